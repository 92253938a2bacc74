import { createHash, randomUUID } from "node:crypto";
import { type Call, bodyFields, checkFields } from "./call.ts";
import { Fault } from "./fault.ts";
import type { CodeRequest } from "./grant-book.ts";
import type { Answer, Route } from "./route.ts";

/** What an authorize URL must and may carry. */
export type AuthorizeRules = {
  path: string;
  required: string[];
  optional: string[];
  /** Scopes that exist; anything else is refused. */
  scopes: string[];
  /** `required`: S256 or plain. `s256`: that method only. */
  pkce: "off" | "required" | "s256";
  /** Where the code goes when no `redirect_uri` is sent: a page of the provider's that shows it. */
  defaultRedirectPath?: string;
  /** Sent back as `iss` (RFC 9207) where set. */
  issuer?: () => string;
};

type Pending = CodeRequest & { returnTo: string; state: string | null };
type Owner = { origin: string; client: { id: string }; redirectUris: ReadonlySet<string> };

/** The page on which a person says "Authorize" or "Deny": plain HTML, for Chromium and for scripted clients. */
export class AuthorizePage {
  readonly #pending = new Map<string, Pending>();
  readonly #rules: AuthorizeRules;
  readonly #server: Owner;
  readonly #issue: (request: CodeRequest) => string;

  constructor(parts: { rules: AuthorizeRules; server: Owner; issue: (request: CodeRequest) => string }) {
    this.#rules = parts.rules;
    this.#server = parts.server;
    this.#issue = parts.issue;
  }

  routes(): Route[] {
    const { path, defaultRedirectPath } = this.#rules;
    const page = { path, endpoint: "authorize" };
    const routes = [
      { ...page, method: "GET", handle: (call: Call) => this.#show(call) },
      { ...page, method: "POST", handle: (call: Call) => this.#decide(call) },
    ];
    if (defaultRedirectPath === undefined) return routes;
    return [...routes, { method: "GET", path: defaultRedirectPath, endpoint: "code_page", handle: showCode }];
  }

  #show(call: Call): Answer {
    try {
      const id = randomUUID();
      const pending = this.#check(call.query);
      this.#pending.set(id, pending);
      return { status: 200, body: formPage(id, pending) };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      return { status: 400, body: wholePage(`<h1>This request is wrong</h1><p>${escape(error.message)}</p>`) };
    }
  }

  #check(query: URLSearchParams): Pending {
    const names = [...query.keys()];
    if (new Set(names).size < names.length) throw new Fault("invalid_request", "a parameter stands there twice");
    const given = new Map(query);
    checkFields(given, this.#rules);
    if (given.get("response_type") !== "code") throw new Fault("invalid_request", "response_type must be code");
    const clientId = given.get("client_id") ?? "";
    if (clientId !== this.#server.client.id) throw new Fault("invalid_client", "client_id is unknown");
    const scope = this.#checkScope(given.get("scope") ?? "");
    const redirectUri = given.get("redirect_uri");
    const returnTo = this.#returnAddress(redirectUri);
    const base = { clientId, scope, returnTo, state: given.get("state") ?? null, ...this.#checkChallenge(given) };
    return redirectUri === undefined ? base : { ...base, redirectUri };
  }

  #checkScope(scope: string): string {
    const unknown = scope.split(" ").find((word) => word !== "" && !this.#rules.scopes.includes(word));
    if (unknown !== undefined) throw new Fault("invalid_scope", `there is no scope ${unknown}`);
    return scope;
  }

  #returnAddress(redirectUri: string | undefined): string {
    const { defaultRedirectPath } = this.#rules;
    if (redirectUri === undefined && defaultRedirectPath !== undefined) {
      return this.#server.origin + defaultRedirectPath;
    }
    if (redirectUri === undefined) throw new Fault("invalid_request", "redirect_uri is missing");
    const isOwnPage = defaultRedirectPath !== undefined && redirectUri === this.#server.origin + defaultRedirectPath;
    if (isOwnPage || this.#server.redirectUris.has(redirectUri)) return redirectUri;
    throw new Fault("invalid_request", `redirect_uri ${redirectUri} is not registered`);
  }

  /** A challenge without a method is a plain one (RFC 7636, section 4.3). */
  #checkChallenge(given: ReadonlyMap<string, string>): { challenge?: string; method?: string } {
    if (this.#rules.pkce === "off") return {};
    const challenge = given.get("code_challenge");
    const method = given.get("code_challenge_method") ?? "plain";
    if (!challenge) throw new Fault("invalid_request", "code_challenge is missing");
    const methods = this.#rules.pkce === "s256" ? ["S256"] : ["S256", "plain"];
    if (!methods.includes(method)) {
      throw new Fault("invalid_request", `code_challenge_method must be ${methods.join(" or ")}`);
    }
    return { challenge, method };
  }

  #decide(call: Call): Answer {
    const fields = bodyFields(call, ["form"]);
    const id = fields.get("request") ?? "";
    const pending = this.#pending.get(id);
    if (!pending) return { status: 400, body: wholePage("<h1>This page is out of date</h1>") };
    this.#pending.delete(id);
    const location = new URL(pending.returnTo);
    if (fields.get("decision") === "authorize") location.searchParams.set("code", this.#issue(pending));
    else location.searchParams.set("error", "access_denied");
    if (pending.state !== null) location.searchParams.set("state", pending.state);
    if (this.#rules.issuer) location.searchParams.set("iss", this.#rules.issuer());
    return { status: 303, body: "", headers: { location: location.href } };
  }
}

/** Checks a verifier against the challenge that its code was issued for (RFC 7636, section 4.6). */
export function checkVerifier(verifier: string, { challenge, method }: CodeRequest): void {
  if (!/^[A-Za-z0-9\-._~]{43,128}$/.test(verifier)) throw new Fault("invalid_grant", "the code_verifier is malformed");
  const hash = createHash("sha256").update(verifier).digest("base64url");
  if (challenge !== (method === "S256" ? hash : verifier)) {
    throw new Fault("invalid_grant", "the code_verifier is wrong");
  }
}

function formPage(id: string, { clientId, scope }: Pending): string {
  return wholePage(`<h1>Strict provider</h1>
    <p><b>${escape(clientId)}</b> asks for access: ${escape(scope || "no particular scope")}</p>
    <form method="post">
      <input type="hidden" name="request" value="${id}" />
      <button name="decision" value="authorize">Authorize</button>
      <button name="decision" value="deny">Deny</button>
    </form>`);
}

function showCode(call: Call): Answer {
  const code = escape(call.query.get("code") ?? "none");
  return { status: 200, body: wholePage(`<h1>Your authorization code</h1><code id="code">${code}</code>`) };
}

function wholePage(content: string): string {
  return `<!doctype html><html lang="en"><head><title>Strict provider</title></head><body>${content}</body></html>`;
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);
}
