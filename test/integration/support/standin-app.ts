import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { BrokerApi } from "../../support/broker-api.ts";

type Answer = { status: number; location?: string; text?: string; cookie?: string };

/** An app with users and sessions that connects their accounts, as "Completion by your app" of docs/consent.md describes it. */
export class StandinApp implements AsyncDisposable {
  /** The key with which it makes links and completes them, and where it asks the broker. */
  key = "";
  api: BrokerApi | null = null;
  /** What the broker answered to its calls of /consents/…, newest last. */
  readonly completions: { status: number; code: string }[] = [];
  readonly #sessions = new Map<string, string>();
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  static async start(): Promise<StandinApp> {
    const app = new StandinApp();
    app.#server.listen(0, "127.0.0.1");
    await once(app.#server, "listening");
    return app;
  }

  get origin(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the app does not listen");
    return `http://127.0.0.1:${address.port}`;
  }

  /** Where browsers come back to. Its own parameter comes back with them. */
  get returnTo(): string {
    return `${this.origin}/connected?from=settings%20page`;
  }

  signInUrl(user: string): string {
    return `${this.origin}/sign-in?user=${user}`;
  }

  /** A link for one of its users, whose connection is named after them. */
  async makeLink(user: string, connection = user): Promise<{ id: string; url: string }> {
    const body = { completion: "app", end_user: user, return_to: this.returnTo };
    const made = await this.#call<{ id: string; url: string }>(`/connections/${connection}/consent-links`, body);
    if (made.status !== 201) throw new Error(`no link: ${JSON.stringify(made.body)}`);
    return made.body;
  }

  /** Completes a ticket for a user, as its own page does for the one who is signed in. */
  async complete(ticket: string, user: string, api: BrokerApi | null = this.api) {
    const path = `/consents/${encodeURIComponent(ticket)}/complete`;
    const answer = await this.#call<Record<string, unknown>>(path, { end_user: user }, api);
    const { status, body } = answer;
    this.completions.push({ status, code: status === 200 ? String(body["status"]) : String(body["code"]) });
    return answer;
  }

  async #call<Body>(path: string, body: unknown, api = this.api) {
    if (api === null) throw new Error("the app does not know the broker");
    return await api.api<Body>(path, { method: "POST", body, key: this.key });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status, location, text = "", cookie } = await this.#answer(request);
    response.writeHead(status, {
      "content-type": "text/html",
      ...(location !== undefined && { location }),
      ...(cookie !== undefined && { "set-cookie": `app_session=${cookie}; Path=/; HttpOnly; SameSite=Lax` }),
    });
    response.end(text);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const url = new URL(request.url ?? "/", this.origin);
    const session = /app_session=([\w-]+)/.exec(request.headers.cookie ?? "")?.[1] ?? "";
    const user = this.#sessions.get(session) ?? null;
    if (url.pathname === "/sign-in") {
      const cookie = randomUUID();
      this.#sessions.set(cookie, url.searchParams.get("user") ?? "");
      return { status: 200, text: "<h1>Signed in</h1>", cookie };
    }
    if (url.pathname === "/done") return { status: 200, text: `<h1>Accounts</h1><p>${url.search}</p>` };
    if (url.pathname !== "/connected") return { status: 404 };
    // Nobody is signed in: it is said so, and the address that stands in this browser is worth nothing from then on.
    const { status, body } = await this.complete(url.searchParams.get("ticket") ?? "", user ?? "nobody");
    return { status: 303, location: `/done?${status === 200 ? "connected" : String(body["code"])}` };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
