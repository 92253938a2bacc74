import { Agent, request } from "undici";

/** An answer of the broker, its JSON read. */
export type Reply<Body = Record<string, unknown>> = {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Body;
};

export type ApiOptions = { method?: "GET" | "POST" | "PATCH" | "DELETE"; body?: unknown; key?: string };

export type TokenBody = {
  connection: string;
  access_token: string;
  token_type: string;
  expires_at: string | null;
  expires_in: number | null;
  scopes: string[];
  missing_scopes: string[];
  version: number;
  warnings: { code: string; detail: string }[];
  /** Set for a problem, instead of the fields above. */
  code?: string;
  detail?: string;
  retry_after?: number;
};

export type ConnectionBody = { name: string; provider: string; status: string; version: number } & Record<
  string,
  unknown
>;

export type ConnectionRequest = {
  name: string;
  provider: string;
  client?: string;
  grant?: string;
  scopes?: string[];
  inputs?: Record<string, string>;
  credentials?: Record<string, string>;
  labels?: Record<string, string>;
};

export type ClientRequest = {
  name: string;
  provider: string;
  client_id: string;
  client_secret?: string;
  scopes?: string[];
  connections?: string[];
  inputs?: Record<string, string>;
};

/**
 * The broker's HTTP API as tests call it. `api` and `token` return any status. The other methods are steps on the way to what a test is
 * about: they throw if the broker refuses.
 */
export class BrokerApi {
  readonly url: string;
  readonly #key: string;
  // No limit on connections: some tests let hundreds of callers go at the same moment.
  readonly #agent = new Agent({ connections: null, pipelining: 1 });

  constructor(url: string, adminKey: string) {
    this.url = url;
    this.#key = adminKey;
  }

  async api<Body = Record<string, unknown>>(path: string, options: ApiOptions = {}): Promise<Reply<Body>> {
    const { method = "GET", body, key = this.#key } = options;
    const answer = await request(new URL(path, this.url), {
      dispatcher: this.#agent,
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await answer.body.text();
    const isJson = /[/+]json\b/.test(String(answer.headers["content-type"]));
    return { status: answer.statusCode, headers: answer.headers, body: isJson ? JSON.parse(text) : text };
  }

  async token(
    connection: string,
    { key, ...query }: Record<string, string | number> & { key?: string } = {},
  ): Promise<Reply<TokenBody>> {
    const url = new URL(`/tokens/${connection}`, this.url);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
    return await this.api<TokenBody>(url.pathname + url.search, key === undefined ? {} : { key });
  }

  async createClient(client: ClientRequest): Promise<Record<string, unknown>> {
    return await this.#do("/clients", { method: "POST", body: client });
  }

  async changeClient(name: string, changes: Record<string, unknown>): Promise<Record<string, unknown>> {
    return await this.#do(`/clients/${name}`, { method: "PATCH", body: changes });
  }

  async createConnection(connection: ConnectionRequest): Promise<ConnectionBody> {
    return await this.#do<ConnectionBody>("/connections", { method: "POST", body: connection });
  }

  async connection(name: string): Promise<ConnectionBody> {
    return await this.#do<ConnectionBody>(`/connections/${name}`);
  }

  async changeConnection(name: string, changes: Record<string, unknown>): Promise<ConnectionBody> {
    return await this.#do<ConnectionBody>(`/connections/${name}`, { method: "PATCH", body: changes });
  }

  async deleteConnection(name: string): Promise<void> {
    await this.#do(`/connections/${name}`, { method: "DELETE" });
  }

  async consentLink(name: string, body: Record<string, unknown> = {}): Promise<{ id: string; url: string }> {
    return await this.#do<{ id: string; url: string }>(`/connections/${name}/consent-links`, { method: "POST", body });
  }

  async submitCode(name: string, code: string): Promise<ConnectionBody> {
    return await this.#do<ConnectionBody>(`/connections/${name}/code`, { method: "POST", body: { code } });
  }

  async importTokens(name: string, tokens: Record<string, unknown>): Promise<ConnectionBody> {
    return await this.#do<ConnectionBody>(`/connections/${name}/import`, { method: "POST", body: tokens });
  }

  async refresh(name: string): Promise<ConnectionBody> {
    return await this.#do<ConnectionBody>(`/connections/${name}/refresh`, { method: "POST" });
  }

  async createKey(key: {
    name: string;
    abilities: string[];
    connections: string[];
    labels?: Record<string, string>;
    expires_at?: string;
  }): Promise<string> {
    return (await this.#do<{ key: string }>("/keys", { method: "POST", body: key })).key;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #do<Body = Record<string, unknown>>(path: string, options: ApiOptions = {}): Promise<Body> {
    const { status, body } = await this.api<Body>(path, options);
    if (status >= 200 && status < 300) return body;
    throw new Error(`${options.method ?? "GET"} ${path} was answered with ${status}: ${JSON.stringify(body)}`);
  }
}
