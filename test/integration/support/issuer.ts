import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { readCall } from "../../support/providers/call.ts";

type Seen = { path: string; fields: URLSearchParams };
type Answered = { status: number; location?: string; body?: unknown };

/**
 * An authorization server whose person is signed in and agrees to everything. An honest one checks client, redirect URI and
 * verifier; an evil one answers as its test says, and what it was sent is what the attack got.
 */
export class Issuer implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly redirectUris = new Set<string>();
  /** Codes that it issued, with what was asked for each. */
  readonly codes = new Map<string, URLSearchParams>();
  readonly clientId: string;
  /** Whether its answers carry `iss`, which its metadata announce then. */
  namesItself = true;
  /** Replaces what its metadata would say. */
  metadata: Record<string, unknown> = {};
  /** The claims of the id_token for a code, or a text in its place; null: none comes. */
  idToken: ((asked: URLSearchParams) => Record<string, unknown> | string) | null = null;
  /** Replaces what its authorize page would do: where the browser is sent. */
  misleads: ((asked: URLSearchParams) => string) | null = null;
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  private constructor(clientId: string) {
    this.clientId = clientId;
  }

  static async start(clientId: string): Promise<Issuer> {
    const issuer = new Issuer(clientId);
    issuer.#server.listen(0, "127.0.0.1");
    await once(issuer.#server, "listening");
    return issuer;
  }

  get origin(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the issuer does not listen");
    return `http://127.0.0.1:${address.port}`;
  }

  /** The authorize page with what a client asked somewhere, and changes to it. */
  authorizeUrl(asked: URLSearchParams, changes: Record<string, string> = {}): string {
    return `${this.origin}/authorize?${new URLSearchParams({ ...Object.fromEntries(asked), ...changes }).toString()}`;
  }

  /** As at first, with nothing seen. */
  startOver(): void {
    this.seen.length = 0;
    this.metadata = {};
    this.misleads = null;
    this.idToken = null;
  }

  /** What came to one of its addresses, in order. */
  seenAt(path: string): URLSearchParams[] {
    return this.seen.filter((one) => one.path === path).map(({ fields }) => fields);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { path, query, body } = await readCall(request);
    const fields = new URLSearchParams(request.method === "POST" ? body : query);
    this.seen.push({ path, fields });
    const { status, location, body: answer = {} } = this.#answer(path, fields);
    response.writeHead(status, { "content-type": "application/json", ...(location !== undefined && { location }) });
    response.end(JSON.stringify(answer));
  }

  #answer(path: string, fields: URLSearchParams): Answered {
    const [, tenant = "", endpoint = ""] = /^((?:\/t-[a-z0-9-]+)?)(\/.*)$/.exec(path) ?? [];
    if (endpoint === "/.well-known/openid-configuration") return { status: 200, body: this.#metadata(tenant) };
    if (endpoint === "/authorize") return this.#authorize(fields, tenant);
    if (endpoint === "/token") return this.#token(fields);
    if (endpoint === "/revoke") return { status: 200 };
    return { status: 404 };
  }

  /** Each tenant is an issuer of its own: metadata of one are read once an hour. */
  #metadata(tenant: string): Record<string, unknown> {
    const issuer = `${this.origin}${tenant}`;
    return {
      issuer,
      authorization_endpoint: `${issuer}/authorize`,
      token_endpoint: `${issuer}/token`,
      revocation_endpoint: `${issuer}/revoke`,
      authorization_response_iss_parameter_supported: this.namesItself,
      ...this.metadata,
    };
  }

  #authorize(asked: URLSearchParams, tenant: string): Answered {
    if (this.misleads) return { status: 303, location: this.misleads(asked) };
    const redirectUri = asked.get("redirect_uri") ?? "";
    if (asked.get("client_id") !== this.clientId || !this.redirectUris.has(redirectUri)) {
      return { status: 400, body: { error: "invalid_request" } };
    }
    const code = `code-${randomUUID()}`;
    this.codes.set(code, asked);
    const answer = new URLSearchParams({ code, state: asked.get("state") ?? "" });
    if (this.namesItself) answer.set("iss", `${this.origin}${tenant}`);
    return { status: 303, location: `${redirectUri}?${answer.toString()}` };
  }

  #token(fields: URLSearchParams): Answered {
    const tokens = { access_token: randomUUID(), refresh_token: randomUUID(), token_type: "Bearer", expires_in: 3600 };
    if (fields.get("grant_type") === "refresh_token") return { status: 200, body: tokens };
    const asked = this.codes.get(fields.get("code") ?? "");
    const challenge = asked?.get("code_challenge") ?? null;
    const isRight = challenge === null || challenge === challengeOf(fields.get("code_verifier") ?? "");
    if (asked === undefined || !isRight) return { status: 400, body: { error: "invalid_grant" } };
    if (this.idToken === null) return { status: 200, body: tokens };
    const said = this.idToken(asked);
    const usual = { iss: this.origin, aud: this.clientId, sub: "ada" };
    const id_token = typeof said === "string" ? said : `e30.${encode({ ...usual, ...said })}.signature`;
    return { status: 200, body: { ...tokens, id_token } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function encode(claims: object): string {
  return Buffer.from(JSON.stringify(claims)).toString("base64url");
}

/** RFC 7636, section 4.2. */
export function challengeOf(verifier: string): string {
  return createHash("sha256").update(verifier).digest("base64url");
}
