import { Type } from "typebox";
import type { Completion } from "../../consent/completion.ts";
import type { CopiedCodes } from "../../consent/copied-code.ts";
import type { Links } from "../../consent/links.ts";
import { BrokerError } from "../../errors.ts";
import type { Expiry, Grant } from "../../providers/oauth/token-answer.ts";
import type { ConnectionService } from "../../services/connections.ts";
import { consentTimes, providerTimes } from "../../time.ts";
import { audited, noteInAudit } from "../audit.ts";
import { principalOf } from "../auth.ts";
import { connectionSchema, deviceSchema, linkSchema } from "../connection-answers.ts";
import { type ApiScope, connectionParams as params, literals, requestBody, textField } from "../schemas.ts";
import { viewConnection } from "../views.ts";

export type GrantRoutesOptions = {
  connections: Pick<ConnectionService, "importGrant" | "decideAccount" | "beginDevice">;
  consent: { links: Pick<Links, "create">; copiedCodes: Pick<CopiedCodes, "submit">; completion: Completion };
};

const tags = ["connections"];
// RFC 6749, appendix A.12: what a header can carry.
const token = (description: string) => Type.String({ pattern: String.raw`^[\x20-\x7E]{1,16384}$`, description });

const endUser = Type.String({
  minLength: 1,
  maxLength: 200,
  description: "A user of your app, by the id that it has for them",
  example: "42",
});

const link = requestBody(
  "NewConsentLink",
  {
    description: "How the link is to be; an empty body will do",
    example: { expires_in: 86_400, purpose: "Orders for the web shop" },
  },
  {
    expires_in: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: consentTimes.longestLinkSeconds,
        description: `Seconds that it works; without it, ${consentTimes.linkSeconds}`,
      }),
    ),
    return_to: Type.Optional(
      Type.String({ maxLength: 2000, description: "Where its last page leads on to: an address of RETURN_ORIGINS" }),
    ),
    manual: Type.Optional(
      Type.Boolean({
        description: "The page asks for a code that the provider shows; only where the definition says manual_code",
      }),
    ),
    purpose: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 200,
        description: "What the account is connected for, in one line; the person who opens the link reads it",
      }),
    ),
    completion: Type.Optional(
      literals(["app"] as const, {
        description:
          "app: the browser ends at `return_to?ticket=…`, and your app completes the consent for its signed-in user: `POST /consents/:ticket/complete`. Needs `end_user` and `return_to`",
      }),
    ),
    end_user: Type.Optional(endUser),
  },
);

const completedConsent = requestBody(
  "ConsentCompletion",
  {
    description: "Who is signed in to your app, in the browser that has brought the ticket",
    example: { end_user: "42" },
  },
  { end_user: endUser },
);

const tokenSet = requestBody(
  "TokenSet",
  {
    description: "Tokens from elsewhere: an access token, a refresh token, or both",
    example: { access_token: "eyJhbGciOiJSUzI1NiJ9", refresh_token: "8xLOxBtZp8", expires_in: 3600 },
  },
  {
    access_token: Type.Optional(token("The access token")),
    refresh_token: Type.Optional(token("The refresh token; nobody else may use it from then on")),
    expires_in: Type.Optional(
      Type.Integer({
        minimum: -providerTimes.longestLifetimeSeconds,
        maximum: providerTimes.longestLifetimeSeconds,
        description: "Seconds that the access token still lives",
      }),
    ),
    expires_at: Type.Optional(
      Type.String({ format: "date-time", description: "When the access token expires, in place of expires_in" }),
    ),
    scope: Type.Optional(Type.String({ maxLength: 8192, description: "What was granted, with spaces between" })),
    verify: Type.Optional(Type.Boolean({ description: "true: refresh at once, to see that it works" })),
  },
);

const copiedCode = requestBody(
  "CopiedCode",
  { description: "A code that a person copied by hand", example: { code: "SplxlOBeZQQYbYS6WxSbIA" } },
  { code: token("The code, or the whole address that holds it") },
);

const accountDecision = requestBody(
  "AccountDecision",
  { description: "Which account the connection is for", example: { accept: true } },
  {
    accept: Type.Boolean({ description: "true: the other account takes the connection's place; false: it is dropped" }),
  },
);

/** The ways in which a person's grant comes to a connection. */
export async function grantRoutes(app: ApiScope, { connections, consent }: GrantRoutesOptions): Promise<void> {
  const answer = { 200: connectionSchema };

  const createSchema = {
    operationId: "createConsentLink",
    summary: "A link by which a person connects the account",
    description: "Give the link to the person: whoever has it can connect an account of theirs.",
    tags,
    problems: [
      "connection_not_found",
      "connection_disabled",
      "grant_not_applicable",
      "provider_rejected",
      "client_rejected",
    ] as const,
    params,
    body: link,
    response: { 201: linkSchema },
  };
  app.post(
    "/connections/:connection/consent-links",
    { schema: createSchema, config: audited("links.create", "connection", "connection") },
    async (request, reply) => {
      const { expires_in, return_to, manual, purpose, completion, end_user } = request.body;
      const wanted = {
        ...(expires_in === undefined ? {} : { expiresInSeconds: expires_in }),
        ...(return_to === undefined ? {} : { returnTo: return_to }),
        ...(manual === undefined ? {} : { manual }),
        ...(purpose === undefined ? {} : { purpose }),
        ...(completion === undefined ? {} : { completion }),
        ...(end_user === undefined ? {} : { endUser: end_user }),
      };
      const { id, url, expiresAt } = await consent.links.create(
        principalOf(request),
        request.params.connection,
        wanted,
      );
      noteInAudit(request, { detail: { link: id, binding: completion === "app" ? "app" : "weak" } });
      return await reply.code(201).send({ id, url, expires_at: expiresAt.toISOString() });
    },
  );

  const complete = {
    operationId: "completeConsent",
    summary: "Complete a consent for the user who is signed in to your app",
    description:
      'For links with `"completion": "app"`, with the key that made the link. The code is exchanged once: the same call gets the same answer for ten minutes.',
    tags,
    problems: [
      "not_found",
      "wrong_end_user",
      "authorization_expired",
      "account_changed",
      "conflict",
      "connection_disabled",
      "duplicate_grant",
      "provider_rejected",
      "client_rejected",
    ] as const,
    params: Type.Object({
      ticket: textField(
        "The parameter `ticket` with which the browser has come to `return_to`",
        "Vd1Zc3l0H2bQfJ7sXk9pRw4mTn6uYa8eGi5oLz0BtCE",
      ),
    }),
    body: completedConsent,
    response: answer,
  };
  app.post(
    "/consents/:ticket/complete",
    { schema: complete, config: audited("consents.complete", "connection") },
    async (request) => {
      const principal = principalOf(request);
      const found = await consent.completion.find(principal, request.params.ticket);
      noteInAudit(request, { name: found.connectionName, detail: { link: found.linkId, binding: "app" } });
      return viewConnection(await consent.completion.complete(principal, found, request.body.end_user));
    },
  );

  const code = {
    operationId: "submitCode",
    summary: "Hand in a code that a person copied",
    description: "Only where the definition says `manual_code`: the provider shows the code on a page of its own.",
    tags,
    problems: ["connection_not_found", "grant_not_applicable", "provider_rejected", "client_rejected"] as const,
    params,
    body: copiedCode,
    response: answer,
  };
  app.post(
    "/connections/:connection/code",
    { schema: code, config: audited("connections.code", "connection", "connection") },
    async (request) => {
      const { connection } = request.params;
      return viewConnection(await consent.copiedCodes.submit(principalOf(request), connection, request.body.code));
    },
  );

  const account = {
    operationId: "decideAccount",
    summary: "Accept or decline the other account that a reconnect was made with",
    description: "After a 409 `account_changed`, where nobody has answered on the page.",
    tags,
    problems: ["connection_not_found", "conflict", "provider_rejected", "client_rejected"] as const,
    params,
    body: accountDecision,
    response: answer,
  };
  app.post(
    "/connections/:connection/account",
    { schema: account, config: audited("connections.account", "connection", "connection") },
    async (request) => {
      const { connection } = request.params;
      const { accept } = request.body;
      noteInAudit(request, { detail: { accept } });
      return viewConnection(await connections.decideAccount(principalOf(request), connection, accept));
    },
  );

  const device = {
    operationId: "startDeviceAuthorization",
    summary: "A code that a person types in at the provider (device_code connections)",
    description: "The broker asks the provider for the code, and then until the person has typed it in.",
    tags,
    problems: ["connection_not_found", "grant_not_applicable", "provider_rejected", "client_rejected"] as const,
    params,
    response: { 200: deviceSchema },
  };
  app.post(
    "/connections/:connection/device",
    { schema: device, config: audited("connections.device", "connection", "connection") },
    async (request) => {
      const shown = await connections.beginDevice(principalOf(request), request.params.connection);
      return {
        user_code: shown.userCode,
        verification_uri: shown.verificationUri,
        verification_uri_complete: shown.verificationUriComplete,
        expires_at: shown.expiresAt.toISOString(),
        interval: shown.intervalSeconds,
      };
    },
  );

  const importSchema = {
    operationId: "importTokens",
    summary: "Hand over a token set",
    description: "The broker keeps it fresh from then on. Nobody else may use the refresh token any more.",
    tags,
    problems: ["connection_not_found", "duplicate_grant", "provider_rejected", "client_rejected"] as const,
    params,
    body: tokenSet,
    response: answer,
  };
  app.post(
    "/connections/:connection/import",
    { schema: importSchema, config: audited("connections.import", "connection", "connection") },
    async (request) => {
      const given = { grant: readTokenSet(request.body), verify: request.body.verify ?? false };
      return viewConnection(await connections.importGrant(principalOf(request), request.params.connection, given));
    },
  );
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
