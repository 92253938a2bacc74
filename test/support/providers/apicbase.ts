import { type Call, type Fields, basicCredentials, bodyFields, checkFields } from "./call.ts";
import { Fault, oauthError } from "./fault.ts";
import type { TokenSet } from "./grant-book.ts";
import type { Answer, Route } from "./route.ts";
import { type DefinitionFile, StrictServer, type Switches } from "./strict-server.ts";

const codePage = "/oauth/code/";

/**
 * Apicbase: form bodies only, the client in the body or in a Basic header, codes that live a minute, refresh tokens that
 * work once and end the old access token, sets that are independent of each other, a page that shows the code.
 */
export class Apicbase extends StrictServer {
  constructor(switches: Partial<Switches> = {}) {
    super({
      switches: { accessLifeSeconds: 604_800, codeLifeSeconds: 60, reuse: "invalid_grant", ...switches },
      client: { id: "apicbase-client", secret: "apicbase-client-secret-5f2c" },
      authorize: {
        path: "/oauth/authorize/",
        required: ["response_type", "client_id", "scope"],
        optional: ["redirect_uri", "state"],
        scopes: ["accounts", "library"],
        pkce: "off",
        defaultRedirectPath: codePage,
      },
    });
  }

  /** The page that shows a code when no other `redirect_uri` is asked for. */
  get codePage(): string {
    return this.origin + codePage;
  }

  protected routes(): Route[] {
    const token = {
      method: "POST",
      path: "/oauth/token/",
      endpoint: "token",
      handle: (call: Call) => this.#token(call),
    };
    return [token, this.apiRoute("/api/v2/products/")];
  }

  protected explain(fault: Fault): Answer {
    if (fault.kind === "access_token_expired" || fault.kind === "access_token_invalid") {
      return { status: 401, body: { detail: "Authentication credentials were not provided." } };
    }
    return oauthError(fault);
  }

  definitions(): DefinitionFile[] {
    const authorization = { url: `${this.origin}/oauth/authorize/` };
    const token = { url: `${this.origin}/oauth/token/` };
    return ["apicbase", "apicbase-basic"].map((id) => {
      return { id, extends: id, authorization, token, api: { base_url: this.origin } };
    });
  }

  #token(call: Call): Answer {
    const fields = bodyFields(call, ["form"]);
    const grantType = fields.get("grant_type");
    if (grantType === "authorization_code") return answer(this.#exchange(call, fields));
    if (grantType === "refresh_token") return answer(this.#refresh(call, fields));
    throw new Fault("unsupported_grant_type", "grant_type must be authorization_code or refresh_token");
  }

  #exchange(call: Call, fields: Fields): TokenSet {
    const clientId = this.#authenticate(call, fields, { required: ["grant_type", "code"], optional: ["redirect_uri"] });
    const { family, scope, redirectUri } = this.grants.redeemCode(fields.get("code") ?? "");
    // Without one in the authorization request the exchange may leave it out, or name the default page (RFC 6749, 4.1.3).
    if (fields.get("redirect_uri") !== redirectUri && (redirectUri ?? this.codePage) !== fields.get("redirect_uri")) {
      throw new Fault("invalid_grant", "redirect_uri is not that of the code");
    }
    return this.grants.startFamily({ clientId, scope, family, grantType: "authorization_code" });
  }

  #refresh(call: Call, fields: Fields): TokenSet {
    const clientId = this.#authenticate(call, fields, { required: ["grant_type", "refresh_token"] });
    return this.grants.refresh(fields.get("refresh_token") ?? "", clientId);
  }

  /** With Basic the id and secret stay out of the body; without it they must be in it. */
  #authenticate(call: Call, fields: Fields, named: { required: string[]; optional?: string[] }): string {
    const basic = basicCredentials(call);
    if (basic) {
      checkFields(fields, named);
      return this.checkClient(basic.id, basic.secret);
    }
    checkFields(fields, { ...named, required: [...named.required, "client_id", "client_secret"] });
    return this.checkClient(fields.get("client_id") ?? "", fields.get("client_secret") ?? "");
  }
}

function answer({ accessToken, refreshToken, expiresIn, scope }: TokenSet): Answer {
  return {
    status: 200,
    body: {
      access_token: accessToken,
      expires_in: expiresIn,
      token_type: "Bearer",
      scope,
      refresh_token: refreshToken,
    },
  };
}
