import { type Call, type Fields, basicCredentials, bodyFields, checkFields, refuseBody } from "./call.ts";
import { Fault, oauthError } from "./fault.ts";
import type { TokenSet } from "./grant-book.ts";
import type { Answer, Route } from "./route.ts";
import { type DefinitionFile, StrictServer, type Switches } from "./strict-server.ts";

/** How long access tokens of the code flow live. */
const codeFlowLifeSeconds = 599;
const apiMediaTypes = /^application\/(json|vnd\.retailer\.v\d+\+json)$/;

/**
 * bol.com's login: client credentials by Basic header with the grant type in the query and no body, or by form body;
 * only `Accept: application/json`; no secret or token in a URL. The code flow of intermediaries asks for Basic;
 * `rotation` fixed is its Method 1, rotating its Method 2.
 */
export class Bol extends StrictServer {
  /** True: this address is blocked, and everything is answered with 404. */
  blocked = false;

  constructor(switches: Partial<Switches> = {}) {
    super({
      switches: { accessLifeSeconds: 299, refreshLifeSeconds: 365 * 86_400, oldAccessTokenDies: false, ...switches },
      client: { id: "bol-client-0b1d", secret: "bol-client-secret-c3e9" },
      authorize: {
        path: "/authorize",
        required: ["response_type", "client_id", "redirect_uri", "scope"],
        optional: ["state"],
        scopes: ["offline_access", "openid"],
        pkce: "off",
      },
    });
  }

  override startOver(): void {
    super.startOver();
    this.blocked = false;
  }

  protected routes(): Route[] {
    const handle = (call: Call) => (this.blocked ? { status: 404, body: "" } : this.#token(call));
    return [
      { method: "POST", path: "/token", endpoint: "token", handle },
      this.apiRoute("/retailer/orders", checkApiAccept),
    ];
  }

  protected explain(fault: Fault): Answer {
    const { kind, message } = fault;
    if (kind === "access_token_expired" || kind === "access_token_invalid") {
      const [title, detail] =
        kind === "access_token_expired" ? ["Expired JWT", `JWT expired at ${message}`] : ["Malformed JWT", message];
      return { status: 401, body: { title, status: 401, detail } };
    }
    if (kind === "not_acceptable") {
      return { status: 406, body: { title: "Not Acceptable", status: 406, detail: message } };
    }
    return oauthError(fault);
  }

  definitions(): DefinitionFile[] {
    const authorization = { url: `${this.origin}/authorize` };
    const token = { url: `${this.origin}/token` };
    const api = { base_url: `${this.origin}/retailer` };
    return [
      { id: "bol", extends: "bol", authorization, token, api },
      { id: "bol-form", extends: "bol-form", authorization, token, api },
    ];
  }

  #token(call: Call): Answer {
    if (call.headers["accept"] !== "application/json") {
      throw new Fault("not_acceptable", "only Accept: application/json is supported");
    }
    for (const name of call.query.keys()) {
      if (name !== "grant_type") throw new Fault("invalid_request", `${name} must not stand in the URL`);
    }
    if (call.query.has("grant_type")) return answer(this.#byQuery(call));
    const fields = bodyFields(call, ["form"]);
    const grantType = fields.get("grant_type");
    if (grantType === "client_credentials") return answer(this.#byForm(call, fields));
    if (grantType === "authorization_code") return answer(this.#exchange(call, fields));
    if (grantType === "refresh_token") return answer(this.#refresh(call, fields));
    throw new Fault("unsupported_grant_type", `grant_type ${grantType ?? "(none)"} is not supported`);
  }

  #byQuery(call: Call): TokenSet {
    refuseBody(call);
    if (call.query.get("grant_type") !== "client_credentials") {
      throw new Fault("unsupported_grant_type", "only client_credentials may stand in the query");
    }
    return this.#ownToken(this.#basic(call));
  }

  #byForm(call: Call, fields: Fields): TokenSet {
    if (call.headers["authorization"]) throw new Fault("invalid_request", "Basic goes without a body");
    checkFields(fields, { required: ["grant_type", "client_id", "client_secret"] });
    return this.#ownToken(this.checkClient(fields.get("client_id") ?? "", fields.get("client_secret") ?? ""));
  }

  #ownToken(clientId: string): TokenSet {
    const request = { clientId, scope: "RETAILER", grantType: "client_credentials", withRefresh: false };
    return this.grants.startFamily(request);
  }

  #exchange(call: Call, fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "code", "redirect_uri"] });
    const clientId = this.#basic(call);
    const { family, scope, redirectUri } = this.grants.redeemCode(fields.get("code") ?? "");
    if (fields.get("redirect_uri") !== redirectUri) {
      throw new Fault("invalid_grant", "redirect_uri is not that of the code");
    }
    return this.grants.startFamily({
      clientId,
      scope,
      family,
      lifeSeconds: codeFlowLifeSeconds,
      grantType: "authorization_code",
    });
  }

  #refresh(call: Call, fields: Fields): TokenSet {
    checkFields(fields, { required: ["grant_type", "refresh_token"] });
    return this.grants.refresh(fields.get("refresh_token") ?? "", this.#basic(call));
  }

  #basic(call: Call): string {
    const given = basicCredentials(call);
    if (!given) throw new Fault("invalid_client", "Bad client credentials");
    return this.checkClient(given.id, given.secret);
  }
}

function checkApiAccept(call: Call): void {
  if (!apiMediaTypes.test(call.headers["accept"] ?? "")) throw new Fault("not_acceptable", "Accept is not supported");
}

function answer({ accessToken, refreshToken, expiresIn, scope }: TokenSet): Answer {
  const body = { access_token: accessToken, token_type: "Bearer", expires_in: expiresIn, scope };
  return { status: 200, body: refreshToken === undefined ? body : { ...body, refresh_token: refreshToken } };
}
