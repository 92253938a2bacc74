import { request } from "undici";
import type { ApiRequest } from "../../src/providers/oauth/side-requests.ts";
import type { BrokerApi, Reply, TokenBody } from "./broker-api.ts";
import { until } from "./patience.ts";

/** A token with all that is to be sent along with it. */
export type ServiceToken = TokenBody & { request: ApiRequest };

export type ApiAnswer = { status: number; body: string };

/** A service that uses one connection as docs/api.md says. Of the provider it knows nothing but a path of its API. */
export class Service {
  readonly connection: string;
  readonly #api: BrokerApi;
  readonly #path: string;

  constructor({ api, connection, path }: { api: BrokerApi; connection: string; path: string }) {
    this.#api = api;
    this.connection = connection;
    this.#path = path;
  }

  /** `GET /tokens/:connection?include=request`, whatever status comes. */
  async read(query: Record<string, number> = {}): Promise<Reply<ServiceToken>> {
    const parameters = Object.entries(query).map(([name, value]) => `&${name}=${value}`);
    return await this.#api.api<ServiceToken>(`/tokens/${this.connection}?include=request${parameters.join("")}`);
  }

  /** The same, for a step on the way. @throws on any refusal */
  async token(query: Record<string, number> = {}): Promise<ServiceToken> {
    const { status, body } = await this.read(query);
    if (status === 200) return body;
    throw new Error(`the token of ${this.connection} was answered with ${status}: ${JSON.stringify(body)}`);
  }

  /** Calls the provider's API with exactly what came with the token. */
  async call({ request: { base_url, headers } }: ServiceToken): Promise<ApiAnswer> {
    const answer = await request(`${base_url}${this.#path}`, { headers });
    return { status: answer.statusCode, body: await answer.body.text() };
  }

  /**
   * Calls the API, which must answer that this token has run out.
   * @throws for any other answer
   */
  async meetEnd(token: ServiceToken): Promise<void> {
    const answer = await this.call(token);
    if (rulesMet(token, answer).length === 0) throw new Error(`the API answered ${answer.status}: ${answer.body}`);
  }

  /** Comes back with the version that the API refused. */
  async report({ version }: ServiceToken): Promise<Reply<ServiceToken>> {
    return await this.read({ rejected_version: version });
  }

  /** Reads until there is a token: a back-off may have to pass. */
  async untilToken(query: Record<string, number> = {}): Promise<ServiceToken> {
    const isThere = async () => (await this.read(query)).status !== 503;
    await until(`a token of ${this.connection}`, isThere, { everyMs: 100 });
    return await this.token();
  }
}

/** Which of the answers named by `expired_when` this one is. */
export function rulesMet({ request: { expired_when } }: ServiceToken, { status, body }: ApiAnswer) {
  return expired_when.filter(
    (rule) =>
      (rule.status === undefined || rule.status === status) &&
      (rule.body === undefined || new RegExp(rule.body, "u").test(body)),
  );
}
