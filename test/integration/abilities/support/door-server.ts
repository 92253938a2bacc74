import type { JWTPayload } from "jose";
import { type Call, type Fields, bodyFields } from "../../../support/providers/call.ts";
import { Fault, oauthError } from "../../../support/providers/fault.ts";
import type { Answer, Route } from "../../../support/providers/route.ts";
import { StrictServer } from "../../../support/providers/strict-server.ts";

/** Why a request does not come from the client; null: it does. */
type Check = (call: Call, fields: Fields) => string | null;

/** A token endpoint for client credentials behind several doors, each with its own way to know the client. */
export class DoorServer extends StrictServer {
  readonly #doors: Readonly<Record<string, Check>>;

  constructor(doors: Readonly<Record<string, Check>>) {
    super({ switches: {}, client: { id: "door-client", secret: "door-secret-55e1" }, authorize: null });
    this.#doors = doors;
  }

  protected routes(): Route[] {
    return Object.entries(this.#doors).map(([name, check]) => ({
      method: "POST",
      path: `/${name}/token`,
      endpoint: name,
      handle: (call: Call) => this.#open(call, check),
    }));
  }

  protected explain(fault: Fault): Answer {
    return oauthError(fault);
  }

  definitions() {
    return [];
  }

  definition(id: string, token: Record<string, unknown>) {
    const door = { url: `${this.origin}/${id}/token`, encoding: "form", ...token };
    return { id, extends: "oauth2", name: "Door", grants: ["client_credentials"], token: door };
  }

  #open(call: Call, check: Check): Answer {
    const fields = bodyFields(call, ["form"]);
    const fault = check(call, fields);
    if (fault !== null) throw new Fault("invalid_client", fault);
    if (fields.get("grant_type") !== "client_credentials") throw new Fault("unsupported_grant_type", "another grant");
    const { accessToken, expiresIn } = this.grants.startFamily({
      clientId: this.client.id,
      scope: "",
      grantType: "client_credentials",
      withRefresh: false,
    });
    return { status: 200, body: { access_token: accessToken, expires_in: expiresIn } };
  }
}

/** The claims of an assertion, its signature unchecked: the door that was asked has done that. */
export function claimsOf(assertion: string): JWTPayload {
  return JSON.parse(Buffer.from(assertion.split(".")[1] ?? "", "base64url").toString("utf8")) as JWTPayload;
}
