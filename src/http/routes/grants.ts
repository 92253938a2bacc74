import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { Expiry, Grant } from "../../providers/grant.ts";
import type { ConnectionService } from "../../registry/connection-service.ts";
import type { ConsentCalls } from "../../registry/consent-calls.ts";
import { principalOf } from "../auth.ts";
import { closed, connectionSchema, deviceSchema, linkSchema } from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
import { viewConnection } from "../views.ts";

export type GrantRoutesOptions = {
  connections: Pick<ConnectionService, "importGrant">;
  consentCalls: ConsentCalls;
};

const sevenDaysSeconds = 604_800;
const tenYearsSeconds = 315_360_000;
const tags = ["connections"];
const params = Type.Object({ connection: Type.String() });
// RFC 6749, appendix A.12: what a header can carry.
const token = Type.String({ pattern: String.raw`^[\x20-\x7E]{1,16384}$` });

const link = closed({
  expires_in: Type.Optional(
    Type.Integer({ minimum: 1, maximum: sevenDaysSeconds, description: "seconds; default 3600" }),
  ),
  return_to: Type.Optional(Type.String({ maxLength: 2000 })),
  manual: Type.Optional(Type.Boolean()),
  purpose: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 200,
      description: "what the account is connected for, in one line; the person who opens the link reads it",
    }),
  ),
});

const tokenSet = closed({
  access_token: Type.Optional(token),
  refresh_token: Type.Optional(token),
  expires_in: Type.Optional(
    Type.Integer({ minimum: -tenYearsSeconds, maximum: tenYearsSeconds, description: "seconds from now" }),
  ),
  expires_at: Type.Optional(Type.String({ format: "date-time" })),
  scope: Type.Optional(Type.String({ maxLength: 8192, description: "separated by spaces" })),
  verify: Type.Optional(Type.Boolean({ description: "refresh at once" })),
});

/** The ways in which a person's grant comes to a connection. */
export async function grantRoutes(app: ApiScope, { connections, consentCalls }: GrantRoutesOptions): Promise<void> {
  const answer = { 200: connectionSchema };

  const createSchema = {
    summary: "A link by which a person connects the account",
    tags,
    params,
    body: link,
    response: { 201: linkSchema },
  };
  app.post("/connections/:connection/consent-links", { schema: createSchema }, async (request, reply) => {
    const { expires_in, return_to, manual, purpose } = request.body;
    const wanted = {
      ...(expires_in === undefined ? {} : { expiresInSeconds: expires_in }),
      ...(return_to === undefined ? {} : { returnTo: return_to }),
      ...(manual === undefined ? {} : { manual }),
      ...(purpose === undefined ? {} : { purpose }),
    };
    const { id, url, expiresAt } = await consentCalls.createLink(
      principalOf(request),
      request.params.connection,
      wanted,
    );
    return await reply.code(201).send({ id, url, expires_at: expiresAt.toISOString() });
  });

  const code = {
    summary: "Hand in a code that a person copied",
    tags,
    params,
    body: closed({ code: token }),
    response: answer,
  };
  app.post("/connections/:connection/code", { schema: code }, async (request) => {
    const { connection } = request.params;
    return viewConnection(await consentCalls.submitCode(principalOf(request), connection, request.body.code));
  });

  const account = {
    summary: "Accept or decline the other account that a reconnect was made with",
    tags,
    params,
    body: closed({ accept: Type.Boolean({ description: "true: it takes the connection's place" }) }),
    response: answer,
  };
  app.post("/connections/:connection/account", { schema: account }, async (request) => {
    const { connection } = request.params;
    return viewConnection(await consentCalls.decideAccount(principalOf(request), connection, request.body.accept));
  });

  const device = {
    summary: "A code that a person types in at the provider (device_code connections)",
    tags,
    params,
    response: { 200: deviceSchema },
  };
  app.post("/connections/:connection/device", { schema: device }, async (request) => {
    const shown = await consentCalls.beginDevice(principalOf(request), request.params.connection);
    return {
      user_code: shown.userCode,
      verification_uri: shown.verificationUri,
      verification_uri_complete: shown.verificationUriComplete,
      expires_at: shown.expiresAt.toISOString(),
      interval: shown.intervalSeconds,
    };
  });

  const importSchema = { summary: "Hand over a token set", tags, params, body: tokenSet, response: answer };
  app.post("/connections/:connection/import", { schema: importSchema }, async (request) => {
    const given = { grant: readTokenSet(request.body), verify: request.body.verify ?? false };
    return viewConnection(await connections.importGrant(principalOf(request), request.params.connection, given));
  });
}

type TokenSet = Type.Static<typeof tokenSet>;

function readTokenSet(body: TokenSet): Grant {
  const { access_token, refresh_token, scope, verify } = body;
  if (access_token === undefined && refresh_token === undefined) {
    throw new BrokerError("invalid_request", "access_token: this or refresh_token is required.");
  }
  if (verify === true && refresh_token === undefined) {
    throw new BrokerError("invalid_request", "verify: needs a refresh_token to verify.");
  }
  return {
    tokenType: "Bearer",
    accessExpiry: readExpiry(body),
    refreshExpiry: { kind: "unstated" },
    captured: {},
    ...(access_token === undefined ? {} : { accessToken: access_token }),
    ...(refresh_token === undefined ? {} : { refreshToken: refresh_token }),
    ...(scope === undefined ? {} : { scopes: scope.split(/\s+/).filter((each) => each !== "") }),
  };
}

function readExpiry({ expires_in, expires_at }: TokenSet): Expiry {
  if (expires_in !== undefined && expires_at !== undefined) {
    throw new BrokerError("invalid_request", "expires_at: give this or expires_in, not both.");
  }
  if (expires_in !== undefined) return { kind: "in", seconds: expires_in };
  if (expires_at !== undefined) return { kind: "at", epochSeconds: Date.parse(expires_at) / 1000 };
  return { kind: "unstated" };
}
