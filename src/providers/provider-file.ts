import { type Static, type TSchema, Type } from "typebox";

/** The grants by which a connection may get its tokens (RFC 6749, section 4; `import` is a set handed over by hand). */
export const connectionGrants = ["authorization_code", "client_credentials", "password", "import"] as const;
export type ConnectionGrant = (typeof connectionGrants)[number];

/** What a rule of `errors` may say that an answer means. The first is for API answers, the others for the token endpoint. */
const errorMeanings = [
  "access_token_expired",
  "needs_reauthorization",
  "client_rejected",
  "rate_limited",
  "blocked",
  "transient",
] as const;

const strict = { additionalProperties: false } as const;
const nullable = <T>(type: string, more: Record<string, unknown> = {}) =>
  Type.Unsafe<T | null>({ type: [type, "null"], ...more });

const optionalObject = <T extends Record<string, TSchema>>(properties: T) =>
  Type.Optional(Type.Object(properties, { ...strict }));
const text = () => Type.Optional(Type.String({ minLength: 1 }));
const seconds = () => Type.Optional(Type.Integer({ minimum: 0, maximum: 315_360_000 }));
const lifeSeconds = () => Type.Optional(nullable<number>("integer", { minimum: 1, maximum: 315_360_000 }));
const pointer = () => Type.Optional(Type.String({ pattern: "^(/[^/]*)+$" }));
/** `null` takes out an entry that the extended definition has. */
const templates = () => Type.Record(Type.String(), nullable<string>("string"));

const exchangeKnobs = {
  url: text(),
  method: Type.Optional(Type.Enum(["POST", "GET"])),
  encoding: Type.Optional(Type.Enum(["form", "json", "query"])),
  client_auth: Type.Optional(Type.Enum(["none", "basic", "body"])),
  basic_percent_encoding: Type.Optional(Type.Boolean()),
  headers: Type.Optional(templates()),
};

const exchange = { ...exchangeKnobs, grant_type: text(), fields: Type.Optional(templates()) };
const grantExchange = Type.Object({ ...exchange, client_id: text(), refresh: optionalObject(exchange) }, { ...strict });

const lifetime = optionalObject({
  from: Type.Optional(Type.Enum(["expires_in", "fixed", "never"])),
  pointer: pointer(),
  unit: Type.Optional(Type.Enum(["s", "ms"])),
  fallback: seconds(),
});

const pointers = Type.Record(Type.String({ pattern: "^[a-z][a-z0-9_]*$" }), Type.String({ pattern: "^(/[^/]*)+$" }), {
  ...strict,
});

const input = Type.Object(
  {
    generate: Type.Optional(Type.Enum(["uuid"])),
    pattern: text(),
    enum: Type.Optional(Type.Array(Type.String({ minLength: 1 }), { minItems: 1 })),
    default: text(),
    description: text(),
  },
  { ...strict },
);

const errorRule = Type.Object(
  {
    endpoint: Type.Enum(["token", "api"]),
    status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599 })),
    pointer: pointer(),
    equals: Type.Optional(Type.String()),
    regex: text(),
    body: text(),
    means: Type.Enum([...errorMeanings]),
  },
  { ...strict },
);

/** A provider definition file, as written: every knob that exists. docs/provider-format.md says what each is for. */
export const providerFileSchema = Type.Object(
  {
    id: Type.String({ pattern: "^[a-z0-9][a-z0-9-]{0,62}$" }),
    name: text(),
    extends: Type.Optional(nullable<string>("string", { minLength: 1 })),
    docs: text(),
    inputs: Type.Optional(Type.Record(Type.String({ pattern: "^[a-z][a-z0-9_]*$" }), input, { ...strict })),
    grants: Type.Optional(Type.Array(Type.Enum([...connectionGrants]), { minItems: 1, uniqueItems: true })),
    scopes: Type.Optional(Type.Record(Type.String(), Type.String({ minLength: 1 }))),
    authorization: optionalObject({
      url: text(),
      issuer: text(),
      params: Type.Optional(templates()),
      scope: optionalObject({
        param: text(),
        separator: text(),
        default: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
        required: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
      }),
      pkce: Type.Optional(Type.Enum(["off", "optional", "required"])),
      pkce_method: Type.Optional(Type.Enum(["S256", "plain"])),
      challenge_encoding: Type.Optional(Type.Enum(["base64url", "base64"])),
      callback: optionalObject({
        code: text(),
        capture: Type.Optional(
          Type.Record(Type.String({ pattern: "^[a-z][a-z0-9_]*$" }), Type.String({ minLength: 1 }), { ...strict }),
        ),
      }),
      manual_code: Type.Optional(Type.Boolean()),
      manual_redirect_uri: Type.Optional(nullable<string>("string", { minLength: 1 })),
    }),
    token: optionalObject({
      ...exchangeKnobs,
      grants: optionalObject({
        authorization_code: Type.Optional(grantExchange),
        client_credentials: Type.Optional(grantExchange),
        password: Type.Optional(grantExchange),
        refresh_token: Type.Optional(Type.Object({ ...exchange }, { ...strict })),
      }),
    }),
    response: optionalObject({
      format: Type.Optional(Type.Enum(["auto", "json", "form"])),
      access_token: pointer(),
      refresh_token: pointer(),
      token_type: pointer(),
      scope: pointer(),
      expires: lifetime,
      refresh_expires: lifetime,
      capture: Type.Optional(pointers),
    }),
    refresh: optionalObject({
      rotation: Type.Optional(Type.Enum(["never", "always", "auto"])),
      reuse: Type.Optional(Type.Enum(["safe", "grace", "until_successor_used", "dead", "kills_family"])),
      grace_s: seconds(),
      old_access_token_dies: Type.Optional(Type.Boolean()),
      ahead: Type.Optional(Type.Number({ minimum: 0, maximum: 0.9 })),
      min_age_s: seconds(),
      idle_life_s: lifeSeconds(),
      absolute_life_s: lifeSeconds(),
    }),
    errors: Type.Optional(Type.Array(errorRule)),
    api: optionalObject({
      base_url: text(),
      authorization: Type.Optional(
        Type.Unsafe<string | { header: string; value: string }>({
          type: ["string", "object"],
          minLength: 1,
          properties: { header: { type: "string", minLength: 1 }, value: { type: "string", minLength: 1 } },
          required: ["header", "value"],
          additionalProperties: false,
        }),
      ),
      headers: Type.Optional(templates()),
    }),
    revocation: Type.Optional(
      Type.Unsafe<{ url: string; kills?: "token" | "all" } | null>({
        type: ["object", "null"],
        properties: { url: { type: "string", minLength: 1 }, kills: { enum: ["token", "all"] } },
        required: ["url"],
        additionalProperties: false,
      }),
    ),
  },
  { ...strict },
);

export type ProviderFile = Static<typeof providerFileSchema>;
