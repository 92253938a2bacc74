import { type TObject, type TSchema, Type } from "typebox";
import { providerTimes } from "../../time.ts";

/** The building blocks of the settings. Each takes the sentence that editors and the documentation show. */
export const strict = { additionalProperties: false } as const;

const pointerPattern = "^(/[^/]*)+$";
export const namePattern = "^[a-z][a-z0-9_]*$";

export const nullable = <T>(type: string, more: Record<string, unknown> = {}) =>
  Type.Unsafe<T | null>({ type: [type, "null"], ...more });

export const map = <T extends Record<string, TSchema>>(description: string, properties: T) =>
  Type.Optional(Type.Object(properties, { ...strict, description }));

/** `null` removes what the extended definition has. */
const mapOrNull = <T extends TObject>(schema: T) =>
  Type.Optional(Type.Unsafe<Type.Static<T> | null>({ ...schema, type: ["object", "null"] }));

export const text = (description: string) => Type.Optional(Type.String({ minLength: 1, description }));
export const textOrNull = (description: string) =>
  Type.Optional(nullable<string>("string", { minLength: 1, description }));
export const flag = (description: string) => Type.Optional(Type.Boolean({ description }));
export const choice = <T extends string>(values: readonly T[], description: string) =>
  Type.Optional(Type.Enum([...values], { description }));

export const seconds = (description: string) =>
  Type.Optional(Type.Integer({ minimum: 0, maximum: providerTimes.longestLifetimeSeconds, description }));
export const secondsOrNull = (description: string) =>
  Type.Optional(
    nullable<number>("integer", { minimum: 1, maximum: providerTimes.longestLifetimeSeconds, description }),
  );
export const count = (maximum: number, description: string) =>
  Type.Optional(Type.Integer({ minimum: 1, maximum, description }));

export const pointer = (description: string) => Type.Optional(Type.String({ pattern: pointerPattern, description }));

/** `null` removes an entry of the extended definition. */
export const templates = (description: string) =>
  Type.Optional(Type.Record(Type.String(), nullable<string>("string"), { description }));

/** What a file says of captures. A text is the place alone. */
export type CaptureSettings = Readonly<
  Record<string, string | { pointer?: string; param?: string; pattern?: string; enum?: string[]; default?: string }>
>;

/** Name → where the value is, or a map of that and what the value must be: a pattern, or one of a list. */
export const captures = (where: "pointer" | "param", description: string, more: { hasDefault: boolean }) => {
  const place = where === "pointer" ? { type: "string", pattern: pointerPattern } : { type: "string", minLength: 1 };
  const entry = Type.Unsafe<CaptureSettings[string]>({
    type: ["string", "object"],
    ...(where === "pointer" ? { pattern: pointerPattern } : { minLength: 1 }),
    properties: {
      [where]: place,
      pattern: { type: "string", minLength: 1 },
      enum: { type: "array", items: { type: "string", minLength: 1 }, minItems: 1 },
      ...(more.hasDefault && { default: { type: "string", minLength: 1 } }),
    },
    required: [where],
    additionalProperties: false,
  });
  return Type.Optional(Type.Record(Type.String({ pattern: namePattern }), entry, { ...strict, description }));
};

const clientAuthNames = ["none", "basic", "body", "private_key_jwt", "tls"] as const;
export const signingAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
] as const;

type OwnWay = { header: string; value?: string } | { basic: string };

const clientAuth = Type.Optional(
  Type.Unsafe<(typeof clientAuthNames)[number] | OwnWay>({
    type: ["string", "object"],
    pattern: `^(${clientAuthNames.join("|")})$`,
    properties: {
      header: { type: "string", minLength: 1 },
      value: { type: "string", minLength: 1 },
      basic: { type: "string", minLength: 1 },
    },
    minProperties: 1,
    additionalProperties: false,
    description:
      "How the client authenticates (RFC 6749, section 2.3; RFC 7523; RFC 8705): none, basic, body, private_key_jwt, tls; { header, value } for a header of its own; { basic: template } for what Basic is made of.",
  }),
);

const assertion = map("The JWT of client_auth: private_key_jwt (RFC 7523, section 3, and its successor).", {
  alg: choice(signingAlgorithms, "How it is signed; RS256 unless said otherwise."),
  audience: text("Its `aud`: issuer, token_url, or an address; the issuer where the file knows one, else token_url."),
  typ: choice(
    ["JWT", "client-authentication+jwt"],
    "Its `typ`: client-authentication+jwt for the issuer, else JWT, unless said otherwise.",
  ),
  life_s: count(3600, `How long it counts, in seconds; ${providerTimes.assertionSeconds} unless said otherwise.`),
});

/** How a request is written and how the client authenticates. */
export const requestSettings = {
  url: text("Where the request goes."),
  method: choice(["POST", "GET"], "GET goes with encoding: query."),
  encoding: choice(["form", "json", "query"], "How the fields are sent; secrets are refused in query."),
  client_auth: clientAuth,
  basic_percent_encoding: flag(
    "Whether Basic percent-encodes id and secret first, as RFC 6749, section 2.3.1, says and few servers expect.",
  ),
  assertion,
  headers: templates("Header → template. null takes out one that the extended definition has."),
};

const grantType = textOrNull("The `grant_type` that is sent; the grant's own name unless given, none where null.");
const fields = templates("Exactly the fields beside grant_type and the client's own; those of the RFC unless given.");

/** The same, with what is sent. */
export const exchangeSettings = { ...requestSettings, grant_type: grantType, fields };

const otherFields = templates("Exactly the fields that are sent; those of the RFC unless given.");

/** A request beside the token endpoint: authenticated as at the top of `token` unless it says otherwise. */
const sideRequestSettings = { ...requestSettings, fields: otherFields };

export const pushed = mapOrNull(
  Type.Object(sideRequestSettings, {
    ...strict,
    description: "Pushed authorization requests (RFC 9126): the parameters go to `url` first.",
  }),
);

export const device = mapOrNull(
  Type.Object(sideRequestSettings, {
    ...strict,
    description: "The device authorization endpoint (RFC 8628, section 3.1).",
  }),
);

export const lifetimeSources = ["expires_in", "expires_at", "jwt_exp", "fixed", "never", "introspect"] as const;

const lifetimeSettings = {
  from: choice(
    lifetimeSources,
    "expires_in: a life; expires_at: a moment; jwt_exp: the `exp` of a JWT; fixed: always `fallback`; never: no end unless the answer names one; introspect: asked for at `introspection`.",
  ),
  pointer: pointer("Where it is in the answer."),
  unit: choice(["s", "ms", "iso"], "s: seconds; ms: milliseconds; iso: a date as text (expires_at only)."),
  fallback: seconds("Seconds that count where the answer says nothing readable."),
};
const lifetime = (description: string) => map(description, lifetimeSettings);

const tokenPointers = {
  access_token: pointer("Where the access token is."),
  refresh_token: pointer("Where the refresh token is."),
  token_type: pointer("Where the type is; Bearer where there is none."),
  scope: pointer("Where the granted scopes are: a text or a list."),
  expires: lifetime("How long the access token lives."),
  refresh_expires: lifetime("How long the refresh token lives."),
};

const condition = map("A 2xx is an answer only if this holds (200-with-error); one that holds a token always is.", {
  pointer: Type.String({ pattern: pointerPattern }),
  equals: Type.String({ description: "As text: true, 0, ok." }),
});

const furtherToken = Type.Object(
  {
    name: Type.String({ pattern: namePattern, description: "Read as GET /tokens/:connection?token=name." }),
    ...tokenPointers,
    refreshed: map(
      "Where the tokens are in the answer to this token's own refresh; as in `response` unless given.",
      tokenPointers,
    ),
    exchange: mapOrNull(
      Type.Object(exchangeSettings, {
        ...strict,
        description:
          "The token is asked for with the connection's own access token (RFC 8693), instead of read from its answer.",
      }),
    ),
  },
  { ...strict },
);

export const response = map("How an answer of the token endpoint is read (RFC 6749, section 5.1).", {
  format: choice(
    ["auto", "json", "form"],
    "auto: by looks, else by content type. Tokens are found in the other, too, where this one has none.",
  ),
  scope_separator: text("What stands between scopes in an answer, where it is not what `authorization.scope` says."),
  ok_when: condition,
  ...tokenPointers,
  capture: captures("pointer", "Name → where a value is that later templates use as {response.name}.", {
    hasDefault: true,
  }),
  extra_tokens: Type.Optional(
    Type.Array(furtherToken, {
      description: "Further tokens of the same consent, each with a refresh token of its own.",
    }),
  ),
});

export const introspection = mapOrNull(
  Type.Object(
    {
      ...sideRequestSettings,
      token: choice(["access_token", "refresh_token"], "The token that is asked about."),
      active: pointer("Where the answer says that the token is good."),
      expires: lifetime("Where the answer says how long: /exp in seconds unless given."),
    },
    { ...strict, description: "Asking what a token is worth (RFC 7662)." },
  ),
);

export const revocation = mapOrNull(
  Type.Object(
    {
      ...sideRequestSettings,
      method: choice(["POST", "GET", "DELETE"], "DELETE may have a body."),
      token: choice(
        ["refresh_token", "access_token", "both"],
        "Which tokens are revoked, each by a request of its own.",
      ),
      kills: choice(["token", "all"], "What ends: the token that is named, or everything of the grant."),
    },
    { ...strict, description: "Revoking tokens (RFC 7009)." },
  ),
);

const lookupRequest = map(
  "A call after connecting; with the access token as `api.authorization` says, unless client_auth is given.",
  {
    ...sideRequestSettings,
    headers: templates("Beside those of `api.headers`."),
  },
);

export const lookup = Type.Object(
  {
    request: lookupRequest,
    select: map("Which entry of a list is meant; the first one unless `where` is given.", {
      list: pointer("Where the list is; the whole answer unless given."),
      where: pointer("Where each entry holds what is compared."),
      equals: text("A template that `where` must equal."),
    }),
    pointer: pointer("Where the entry (or the answer) names the account: shown to ops, compared on reconnect."),
    value: text("A template that names the account, where no request is needed."),
    label: pointer("Where the account's name for people is."),
    capture: captures("pointer", "Name → where a value is that later templates use as {account.name}.", {
      hasDefault: false,
    }),
  },
  { ...strict },
);
