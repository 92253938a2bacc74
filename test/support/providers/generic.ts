import { type AuthorizeRules, checkVerifier } from "./authorize-page.ts";
import { type Call, type Fields, basicCredentials, bodyFields, checkFields } from "./call.ts";
import { Fault, oauthError } from "./fault.ts";
import type { TokenSet } from "./grant-book.ts";
import type { Answer, Route } from "./route.ts";
import { type DefinitionFile, StrictServer, type Switches } from "./strict-server.ts";

export type GenericOptions = {
  switches?: Partial<Switches>;
  /** The provider's id in the definition; `strict` unless named. */
  id?: string;
  clientAuth?: "basic" | "body";
  pkce?: "s256" | "off";
  /** Callbacks carry the server's origin as `iss` (RFC 9207). */
  sendsIssuer?: boolean;
};

/** A plain OAuth 2.0 server (RFC 6749, RFC 7636, RFC 6750), strict in all it checks, for tests of the broker's core. */
export class GenericProvider extends StrictServer {
  readonly id: string;
  /** The `iss` that callbacks carry; a test of mix-ups sets another. */
  issuer = "";
  /** The refresh token that codes are exchanged for, in place of a new one. It belongs to a grant that the account has given before. */
  repeated: string | null = null;
  readonly #options: GenericOptions;

  constructor(options: GenericOptions = {}) {
    const withoutPkce = options.pkce === "off";
    const rules: AuthorizeRules = {
      path: "/authorize",
      required: ["response_type", "client_id", "redirect_uri", ...(withoutPkce ? [] : ["code_challenge"])],
      optional: ["state", "scope", ...(withoutPkce ? [] : ["code_challenge_method"])],
      scopes: ["read", "write", "offline_access"],
      pkce: options.pkce ?? "s256",
      ...(options.sendsIssuer ? { issuer: () => this.issuer || this.origin } : {}),
    };
    const client = { id: "strict-client", secret: "strict-client-secret-a8d0" };
    super({ switches: options.switches ?? {}, client, authorize: rules });
    this.#options = options;
    this.id = options.id ?? "strict";
  }

  protected routes(): Route[] {
    const handle = (call: Call) => this.#token(call);
    return [{ method: "POST", path: "/token", endpoint: "token", handle }, this.apiRoute("/api/me")];
  }

  protected explain(fault: Fault): Answer {
    if (fault.kind === "access_token_expired" || fault.kind === "access_token_invalid") {
      const headers = { "www-authenticate": 'Bearer error="invalid_token"' };
      return { status: 401, body: { error: "invalid_token", error_description: fault.message }, headers };
    }
    return oauthError(fault);
  }

  definitions(): DefinitionFile[] {
    const { clientAuth = "basic", pkce } = this.#options;
    return [
      {
        id: this.id,
        extends: "oauth2",
        name: "Strict provider",
        grants: ["authorization_code", "import"],
        authorization: { url: `${this.origin}/authorize`, pkce: pkce === "off" ? "off" : "required" },
        token: { url: `${this.origin}/token`, client_auth: clientAuth, encoding: "form" },
        refresh: this.#refreshRules(),
        api: { base_url: `${this.origin}/api` },
      },
    ];
  }

  /** The definition describes refresh tokens as the switches are set when it is written. */
  #refreshRules(): Record<string, unknown> {
    const { rotation, reuse, graceSeconds, oldAccessTokenDies } = this.switches;
    const common = { old_access_token_dies: oldAccessTokenDies };
    if (rotation === "fixed") return { ...common, rotation: "never", reuse: "safe" };
    if (reuse === "grace") return { ...common, rotation: "always", reuse, grace_s: graceSeconds };
    return { ...common, rotation: "always", reuse: reuse === "invalid_grant" ? "dead" : "kills_family" };
  }

  #token(call: Call): Answer {
    const fields = bodyFields(call, ["form"]);
    const grantType = fields.get("grant_type");
    if (grantType === "authorization_code") return answer(this.#exchange(call, fields));
    if (grantType === "refresh_token") return answer(this.#refresh(call, fields));
    throw new Fault("unsupported_grant_type", "grant_type must be authorization_code or refresh_token");
  }

  #exchange(call: Call, fields: Fields): TokenSet {
    const verifier = this.#options.pkce === "off" ? [] : ["code_verifier"];
    const clientId = this.#authenticate(call, fields, ["grant_type", "code", "redirect_uri", ...verifier]);
    const code = this.grants.redeemCode(fields.get("code") ?? "");
    if (fields.get("redirect_uri") !== code.redirectUri) {
      throw new Fault("invalid_grant", "redirect_uri is not the code's");
    }
    if (code.challenge !== undefined) checkVerifier(fields.get("code_verifier") ?? "", code);
    const { family, scope } = code;
    const set = this.grants.startFamily({ clientId, scope, family, grantType: "authorization_code" });
    return this.repeated === null ? set : { ...set, refreshToken: this.repeated };
  }

  #refresh(call: Call, fields: Fields): TokenSet {
    const clientId = this.#authenticate(call, fields, ["grant_type", "refresh_token"]);
    return this.grants.refresh(fields.get("refresh_token") ?? "", clientId);
  }

  #authenticate(call: Call, fields: Fields, required: string[]): string {
    if (this.#options.clientAuth === "body") {
      if (call.headers["authorization"]) throw new Fault("invalid_request", "the client belongs into the body");
      checkFields(fields, { required: [...required, "client_id", "client_secret"] });
      return this.checkClient(fields.get("client_id") ?? "", fields.get("client_secret") ?? "");
    }
    const given = basicCredentials(call);
    if (!given) throw new Fault("invalid_client", "the client must send a Basic header");
    checkFields(fields, { required });
    return this.checkClient(given.id, given.secret);
  }
}

function answer({ accessToken, refreshToken, expiresIn, scope }: TokenSet): Answer {
  const body = { access_token: accessToken, token_type: "Bearer", expires_in: expiresIn, refresh_token: refreshToken };
  return { status: 200, body: scope === "" ? body : { ...body, scope } };
}
