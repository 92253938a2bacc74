import { type Call, type Fields, bodyFields, checkFields } from "./call.ts";
import { Fault, type FaultKind } from "./fault.ts";
import type { TokenSet } from "./grant-book.ts";
import type { Answer, Route } from "./route.ts";
import { type DefinitionFile, StrictServer, type Switches } from "./strict-server.ts";

/** The one client that needs no secret. */
const administration = "administration";
const firstUser = { username: "admin", password: "shopware-password-91d4" };

/** Code, status and title of Shopware's errors, by what went wrong. */
const errors: Partial<Record<FaultKind, [code: string, status: number, title: string]>> = {
  wrong_content_type: ["2", 400, "The authorization grant type is not supported by the authorization server."],
  unsupported_grant_type: ["2", 400, "The authorization grant type is not supported by the authorization server."],
  invalid_client: ["4", 401, "Client authentication failed"],
  invalid_scope: ["5", 400, "The requested scope is invalid, unknown, or malformed"],
  invalid_user: ["6", 400, "The user credentials were incorrect."],
  access_token_expired: ["9", 401, "The resource owner or authorization server denied the request."],
  access_token_invalid: ["9", 401, "The resource owner or authorization server denied the request."],
};
const badRequest: [string, number, string] = [
  "3",
  400,
  "The request is missing a required parameter, includes an invalid parameter value, includes a parameter more than once, or is otherwise malformed.",
];

/**
 * The Admin API of one Shopware 6 shop: JSON requests only; client credentials without a refresh token, password with
 * one; errors in a list, a bad refresh token with 401 or 400 by the version of the library behind it.
 */
export class Shopware extends StrictServer {
  readonly user = { ...firstUser };
  /** Which version of league/oauth2-server the shop runs: 8 answers a bad refresh token with 401, 9 with 400. */
  library: 8 | 9 = 8;

  constructor(switches: Partial<Switches> = {}) {
    super({
      switches: {
        accessLifeSeconds: 600,
        refreshLifeSeconds: 7 * 86_400,
        reuse: "invalid_grant",
        oldAccessTokenDies: false,
        ...switches,
      },
      client: { id: "SWIAQ3BYZDNKNJVKA0F6CEXHNA", secret: "shopware-integration-secret-77ab" },
      authorize: null,
    });
  }

  /** A new password ends whatever the old one gave, access tokens too. */
  changePassword(): string {
    this.user.password = `password-${crypto.randomUUID()}`;
    this.killRefreshTokens();
    this.killAccessTokens();
    return this.user.password;
  }

  override startOver(): void {
    super.startOver();
    Object.assign(this.user, firstUser);
    this.library = 8;
  }

  protected routes(): Route[] {
    const handle = (call: Call) => this.#token(call);
    return [{ method: "POST", path: "/api/oauth/token", endpoint: "token", handle }, this.apiRoute("/api/product")];
  }

  protected explain(fault: Fault): Answer {
    if (fault.kind === "invalid_grant") {
      return errorList(["8", this.library === 8 ? 401 : 400, "The refresh token is invalid."], refreshDetail(fault));
    }
    return errorList(errors[fault.kind] ?? badRequest, fault.message);
  }

  definitions(): DefinitionFile[] {
    return [
      {
        id: "shopware",
        extends: "shopware",
        inputs: { shop_url: { pattern: String.raw`^https?://127\.0\.0\.1:[0-9]{1,5}$` } },
      },
    ];
  }

  #token(call: Call): Answer {
    const fields = bodyFields(call, ["json"]);
    const grantType = fields.get("grant_type");
    if (grantType === "client_credentials") return answer(this.#clientCredentials(fields));
    if (grantType === "password") return answer(this.#password(fields));
    if (grantType === "refresh_token") return answer(this.#refresh(fields));
    throw new Fault("unsupported_grant_type", "Check that all required parameters have been provided");
  }

  #clientCredentials(fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "client_id", "client_secret"] });
    const clientId = this.checkClient(fields.get("client_id") ?? "", fields.get("client_secret") ?? "");
    return this.grants.startFamily({ clientId, scope: "", grantType: "client_credentials", withRefresh: false });
  }

  #password(fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "client_id", "scopes", "username", "password"] });
    if (fields.get("client_id") !== administration) throw new Fault("invalid_client", "Client authentication failed");
    if (fields.get("scopes") !== "write") throw new Fault("invalid_scope", "Check the `write` scope");
    const { username, password } = this.user;
    if (fields.get("username") !== username || fields.get("password") !== password) {
      throw new Fault("invalid_user", "The user credentials were incorrect.");
    }
    return this.grants.startFamily({ clientId: administration, scope: "write", grantType: "password" });
  }

  #refresh(fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "client_id", "refresh_token"] });
    if (fields.get("client_id") !== administration) throw new Fault("invalid_client", "Client authentication failed");
    return this.grants.refresh(fields.get("refresh_token") ?? "", administration);
  }
}

function refreshDetail({ message }: Fault): string {
  if (message.includes("expired")) return "Token has expired";
  return message.includes("unknown") ? "Cannot decrypt the refresh token" : "Token has been revoked";
}

function errorList([code, status, title]: [string, number, string], detail: string): Answer {
  return { status, body: { errors: [{ code, status: String(status), title, detail }] } };
}

function answer({ accessToken, refreshToken, expiresIn }: TokenSet): Answer {
  const body = { token_type: "Bearer", expires_in: expiresIn, access_token: accessToken };
  return { status: 200, body: refreshToken === undefined ? body : { ...body, refresh_token: refreshToken } };
}
