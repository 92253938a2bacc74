import { randomUUID } from "node:crypto";
import { DeviceBook } from "./device-book.ts";
import { checkVerifier } from "../../../support/providers/authorize-page.ts";
import {
  type Call,
  type Fields,
  basicCredentials,
  bearerToken,
  bodyFields,
  checkFields,
} from "../../../support/providers/call.ts";
import { Fault, oauthError } from "../../../support/providers/fault.ts";
import type { TokenSet } from "../../../support/providers/grant-book.ts";
import type { Answer, Route } from "../../../support/providers/route.ts";
import { type DefinitionFile, StrictServer, type Switches } from "../../../support/providers/strict-server.ts";

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code";
const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";

/**
 * A strict server with abilities that few providers have: an API that names the account, a second token in the answer to a code, token
 * exchange, user codes, revocation and introspection.
 */
export class AbleProvider extends StrictServer {
  readonly id: string = "able";
  /** Who signs in from now on. */
  account = "ada";
  /** The password of the person who logs in. */
  password = "first-password";
  /** Whether a code also gives the person's own token. */
  givesUserToken = false;
  /** What its answers have as refresh token; "given": a real one. */
  refreshToken: "given" | "" | null | undefined = "given";
  /** Seconds left that introspection names; null: the token counts as not active. */
  introspectedSeconds: number | null = 1800;
  /** Whether the answers of the token endpoint say how long a token lives. */
  namesLife = true;
  /** Where the token endpoint is. */
  tokenPath = "/token";
  /** What its metadata say beside the addresses (RFC 8414); null: there are none. */
  metadata: Record<string, unknown> | null = null;
  /** Every token that was revoked, in order. */
  readonly revoked: string[] = [];
  readonly devices = new DeviceBook();
  readonly #accounts = new Map<string, string>();

  constructor(switches: Partial<Switches> = {}) {
    const authorize = {
      path: "/authorize",
      required: ["response_type", "client_id"],
      optional: ["redirect_uri", "state", "scope", "code_challenge", "code_challenge_method"],
      scopes: ["read"],
      pkce: "off" as const,
      defaultRedirectPath: "/shows-code",
    };
    super({ switches, client: { id: "able-client", secret: "able-client-secret-71c2" }, authorize });
  }

  protected routes(): Route[] {
    return [
      post(this.tokenPath, "token", (call) => this.#token(call)),
      post("/revoke", "revoke", (call) => this.#revoke(call)),
      post("/introspect", "introspect", (call) => this.#introspect(call)),
      post("/device", "device", (call) => this.#device(call)),
      post("/par", "par", (call) => this.#push(call)),
      {
        method: "GET",
        path: "/.well-known/openid-configuration",
        endpoint: "metadata",
        handle: () => this.#metadata(),
      },
      { method: "GET", path: "/api/whoami", endpoint: "whoami", handle: (call) => this.#whoami(call) },
    ];
  }

  protected explain(fault: Fault): Answer {
    if (fault.kind.startsWith("access_token")) return { status: 401, body: { error: "invalid_token" } };
    return oauthError(fault);
  }

  definitions(): DefinitionFile[] {
    return [this.definition(this.id, {})];
  }

  /** A definition of this server under another id, with settings of its own. */
  definition(id: string, settings: Record<string, unknown>): DefinitionFile {
    const { token, authorization, refresh, api, ...others } = settings as Record<string, Record<string, unknown>>;
    return {
      id,
      extends: "oauth2",
      name: "Able provider",
      grants: ["authorization_code", "import"],
      authorization: { url: `${this.origin}/authorize`, pkce: "off", ...authorization },
      token: { url: `${this.origin}/token`, client_auth: "basic", encoding: "form", ...token },
      refresh: { rotation: "always", reuse: "kills_family", old_access_token_dies: false, ...refresh },
      api: { base_url: `${this.origin}/api`, ...api },
      ...others,
    };
  }

  /** The lookup that names the account. */
  lookup(): Record<string, unknown> {
    const request = { url: `${this.origin}/api/whoami` };
    return { request, pointer: "/id", label: "/name", capture: { tenant: "/tenant" } };
  }

  revocation(kills: "token" | "all", token = "refresh_token"): Record<string, unknown> {
    return { url: `${this.origin}/revoke`, kills, token };
  }

  accountOf(token: string): string | undefined {
    return this.#accounts.get(this.ledger.familyOf(token) ?? "");
  }

  /** A code that the provider's page shows to somebody who copies it. */
  copiedCode(): string {
    return this.grants.issueCode({ clientId: this.client.id, scope: "" });
  }

  #authenticate(call: Call): string {
    const given = basicCredentials(call);
    if (!given) throw new Fault("invalid_client", "the client must send a Basic header");
    return this.checkClient(given.id, given.secret);
  }

  #token(call: Call): Answer {
    const fields = bodyFields(call, ["form"]);
    this.#authenticate(call);
    switch (fields.get("grant_type")) {
      case "authorization_code":
        return this.#exchange(fields);
      case "refresh_token":
        checkFields(fields, { required: ["grant_type", "refresh_token"], optional: ["store_key"] });
        return this.#answer(this.grants.refresh(fields.get("refresh_token") ?? "", this.client.id));
      case "password":
        return this.#login(fields);
      case deviceGrant:
        return this.#poll(fields);
      case exchangeGrant:
        return this.#tokenExchange(fields);
      default:
        throw new Fault("unsupported_grant_type", "no such grant here");
    }
  }

  #exchange(fields: Fields): Answer {
    checkFields(fields, { required: ["grant_type", "code"], optional: ["redirect_uri", "code_verifier"] });
    const code = this.grants.redeemCode(fields.get("code") ?? "");
    if (fields.get("redirect_uri") !== code.redirectUri) throw new Fault("invalid_grant", "redirect_uri");
    if (code.challenge !== undefined) checkVerifier(fields.get("code_verifier") ?? "", code);
    const own = this.#start("authorization_code", code.family);
    if (!this.givesUserToken) return this.#answer(own);
    const user = this.#start("authed_user");
    return this.#answer(own, { authed_user: this.#body(user) });
  }

  #start(grantType: string, family?: string, withRefresh = true): TokenSet {
    const from = { clientId: this.client.id, scope: "", grantType, withRefresh };
    const set = this.grants.startFamily(family === undefined ? from : { ...from, family });
    this.#accounts.set(set.family, this.account);
    return set;
  }

  #login(fields: Fields): Answer {
    checkFields(fields, { required: ["grant_type", "username", "password"] });
    if (fields.get("password") !== this.password) throw new Fault("invalid_grant", "the password is wrong");
    return this.#answer(this.#start("password"));
  }

  #tokenExchange(fields: Fields): Answer {
    checkFields(fields, { required: ["grant_type", "subject_token", "subject_token_type"], optional: ["audience"] });
    const subject = fields.get("subject_token") ?? "";
    this.grants.checkAccess(subject);
    const set = this.#start("token_exchange", undefined, false);
    this.#accounts.set(set.family, this.accountOf(subject) ?? "");
    return this.#answer(set);
  }

  #device(call: Call): Answer {
    this.#authenticate(call);
    return { status: 200, body: this.devices.begin(`${this.origin}/activate`) };
  }

  #push(call: Call): Answer {
    this.#authenticate(call);
    return { status: 201, body: { request_uri: `urn:pushed:${randomUUID()}`, expires_in: 60 } };
  }

  #poll(fields: Fields): Answer {
    checkFields(fields, { required: ["grant_type", "device_code"] });
    const polled = this.devices.poll(fields.get("device_code") ?? "");
    if ("error" in polled) return { status: 400, body: polled };
    const set = this.#start("device_code");
    this.#accounts.set(set.family, polled.account ?? this.account);
    return this.#answer(set);
  }

  #revoke(call: Call): Answer {
    this.#authenticate(call);
    const token = bodyFields(call, ["form"]).get("token") ?? "";
    this.revoked.push(token);
    const family = this.ledger.familyOf(token);
    if (family !== undefined) this.grants.killFamily(family);
    return { status: 200, body: {} };
  }

  #introspect(call: Call): Answer {
    this.#authenticate(call);
    this.grants.checkAccess(bodyFields(call, ["form"]).get("token") ?? "");
    const seconds = this.introspectedSeconds;
    if (seconds === null) return { status: 200, body: { active: false } };
    return { status: 200, body: { active: true, exp: Math.floor(Date.now() / 1000) + seconds } };
  }

  #whoami(call: Call): Answer {
    const token = bearerToken(call);
    this.grants.checkAccess(token);
    const id = this.accountOf(token) ?? "nobody";
    return { status: 200, body: { id, name: `${id} at work`, tenant: `t-${id}` } };
  }

  #metadata(): Answer {
    if (this.metadata === null) return { status: 404, body: {} };
    const addresses = {
      issuer: this.origin,
      authorization_endpoint: `${this.origin}/authorize`,
      token_endpoint: this.origin + this.tokenPath,
      revocation_endpoint: `${this.origin}/revoke`,
    };
    return { status: 200, body: { ...addresses, ...this.metadata } };
  }

  #body({ accessToken, refreshToken, expiresIn }: TokenSet): Record<string, unknown> {
    const life = this.namesLife ? { expires_in: expiresIn } : {};
    return {
      access_token: accessToken,
      token_type: "Bearer",
      refresh_token: this.refreshToken === "given" ? refreshToken : this.refreshToken,
      ...life,
    };
  }

  #answer(set: TokenSet, more: Record<string, unknown> = {}): Answer {
    return { status: 200, body: { ...this.#body(set), ...more } };
  }
}

function post(path: string, endpoint: string, handle: (call: Call) => Answer): Route {
  return { method: "POST", path, endpoint, handle };
}
