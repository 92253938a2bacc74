import { checkVerifier } from "./authorize-page.ts";
import { type Call, type Fields, bodyFields, checkFields, requireHeader } from "./call.ts";
import { Fault, oauthError } from "./fault.ts";
import type { TokenSet } from "./grant-book.ts";
import type { Answer, Route } from "./route.ts";
import { type DefinitionFile, StrictServer, type Switches } from "./strict-server.ts";

const scopes = ["company:read", "company:write", "customer:read", "customer:write", "user:read"];
const version = /^\d+\.\d+\.\d+$/;

/**
 * Bakeronline's accounts: a public client with PKCE, `grant_type=code`, a device per connection, refreshing with the
 * refresh token alone, a version header, one pair of tokens per device.
 */
export class Bakeronline extends StrictServer {
  /** What an access token that has run out is answered with; its documents name the error code only. */
  expiredStatus = 401;

  constructor(switches: Partial<Switches> = {}) {
    const client = { id: "264ade60a4ca76716a53056cecb171c0", secret: "" };
    const required = ["response_type", "client_id", "redirect_uri", "scope", "code_challenge"];
    const optional = ["state", "code_challenge_method"];
    super({ switches, client, authorize: { path: "/oauth/authorize", required, optional, scopes, pkce: "required" } });
  }

  override startOver(): void {
    super.startOver();
    this.expiredStatus = 401;
  }

  protected routes(): Route[] {
    const token = { method: "POST", path: "/api/token", endpoint: "token", handle: (call: Call) => this.#token(call) };
    return [token, this.apiRoute("/company/shops", checkVersion)];
  }

  protected explain(fault: Fault): Answer {
    if (fault.kind === "access_token_expired" || fault.kind === "access_token_invalid") {
      const expired = fault.kind === "access_token_expired";
      const code = expired ? "expired_access_token" : "invalid_access_token";
      return { status: expired ? this.expiredStatus : 401, body: { error: { code, message: fault.message } } };
    }
    return oauthError(fault);
  }

  definitions(): DefinitionFile[] {
    const authorization = { url: `${this.origin}/oauth/authorize` };
    const token = { url: `${this.origin}/api/token` };
    return [{ id: "bakeronline", extends: "bakeronline", authorization, token, api: { base_url: this.origin } }];
  }

  #token(call: Call): Answer {
    checkVersion(call);
    if (call.headers["authorization"]) throw new Fault("invalid_request", "a public client sends no Authorization");
    const fields = bodyFields(call, ["form", "json"]);
    if (fields.get("grant_type") === "code") return answer(this.#exchange(fields));
    if (fields.get("grant_type") === "refresh_token") return answer(this.#refresh(fields));
    throw new Fault("unsupported_grant_type", "grant_type must be code or refresh_token");
  }

  #exchange(fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "client_id", "code", "code_verifier", "device_id", "device_name"] });
    if (fields.get("client_id") !== this.client.id) throw new Fault("invalid_client", "client_id is unknown");
    const code = this.grants.redeemCode(fields.get("code") ?? "");
    checkVerifier(fields.get("code_verifier") ?? "", code);
    const { clientId, scope, family } = code;
    return this.grants.startFamily({ clientId, scope, family, grantType: "code", slot: fields.get("device_id") ?? "" });
  }

  #refresh(fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "refresh_token"] });
    return this.grants.refresh(fields.get("refresh_token") ?? "", this.client.id);
  }
}

function checkVersion(call: Call): void {
  requireHeader(call, "x-version", version);
}

function answer({ accessToken, refreshToken, expiresIn }: TokenSet): Answer {
  const body = { access_token: accessToken, token_type: "Bearer", expires_in: expiresIn, refresh_token: refreshToken };
  return { status: 200, body };
}
