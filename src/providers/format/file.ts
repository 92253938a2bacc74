import { type Static, type TSchema, Type } from "typebox";
import { connectionGrants, type TokenGrant } from "../../grant-types.ts";
import {
  captures,
  choice,
  count,
  device,
  exchangeSettings,
  flag,
  introspection,
  lookup,
  map,
  namePattern,
  nullable,
  pointer,
  pushed,
  requestSettings,
  response,
  revocation,
  seconds,
  secondsOrNull,
  strict,
  templates,
  text,
  textOrNull,
} from "./settings.ts";

/** What a rule of `errors` may say that an answer means. The first is for API answers, the others for the token endpoint. */
const errorMeanings = [
  "access_token_expired",
  "needs_reauthorization",
  "client_rejected",
  "rate_limited",
  "blocked",
  "transient",
] as const;

const input = Type.Object(
  {
    generate: choice(["uuid"], "Made by the broker where none is given."),
    pattern: text("A regular expression that the value matches."),
    enum: Type.Optional(Type.Array(Type.String({ minLength: 1 }), { minItems: 1, description: "What is allowed." })),
    hosts_of_one_owner: flag(
      "The hosts that `enum` makes are of several domains, and one company has them all: a connection may choose among them.",
    ),
    default: text("What counts where none is given."),
    optional: flag("May be left out: then the parameter, field or header that holds it is not sent."),
    secret: flag("Kept encrypted and never shown."),
    description: text("Shown where the input is asked for or refused."),
  },
  { ...strict },
);

const errorRule = Type.Object(
  {
    endpoint: Type.Enum(["token", "api"]),
    status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599 })),
    pointer: pointer("Goes with `equals` or `regex`."),
    equals: Type.Optional(Type.String({ description: "The value at `pointer`, as text." })),
    regex: text("A regular expression that the value at `pointer` matches."),
    body: text("A regular expression that the raw body matches."),
    means: Type.Enum([...errorMeanings]),
  },
  { ...strict },
);

const listOfText = (description: string) => Type.Optional(Type.Array(Type.String({ minLength: 1 }), { description }));

const authorization = map("The request that sends a person to the provider (RFC 6749, section 4.1.1).", {
  url: text("The authorization endpoint."),
  issuer: text("What `iss` in a callback must be (RFC 9207)."),
  iss: choice(
    ["required", "if_present"],
    "Whether a callback must carry it; without this setting, if the metadata announce it.",
  ),
  params: templates("Further parameters; under the name of a standard one, its new name, or null to leave it out."),
  params_with_scope: Type.Optional(
    Type.Record(Type.String(), Type.Record(Type.String(), nullable<string>("string")), {
      description: "Scope → parameters that are sent while it is asked for, in the place of those of the same name.",
    }),
  ),
  scope: map("How scopes are asked for.", {
    param: text("The parameter's name."),
    separator: text("What stands between scopes."),
    default: listOfText("Asked for where client and connection name none."),
    required: listOfText("Always asked for."),
    aliases: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: "Scope → another name of the same, by which answers may name it.",
      }),
    ),
  }),
  pkce: choice(["off", "optional", "required"], "RFC 7636."),
  pkce_method: choice(["S256", "plain"], "RFC 7636, section 4.2."),
  challenge_encoding: choice(["base64url", "base64"], "How the challenge is written."),
  response_mode: choice(
    ["query", "form_post"],
    "How the answer comes back: asked for, and a POST is taken where it is form_post.",
  ),
  callback: map("What comes back with the browser.", {
    code: text("The parameter that holds the code."),
    denied: listOfText("What a person's no is called beside access_denied, in any case."),
    capture: captures("param", "Name → parameter, kept for {callback.name}.", { hasDefault: true }),
    verify: Type.Optional(
      nullable<"hmac_sha256_query">("string", {
        enum: ["hmac_sha256_query", null],
        description:
          "A signature of the callback: `hmac` holds the HMAC-SHA256 of the other parameters, sorted, in hex, by the client's secret.",
      }),
    ),
  }),
  manual_code: flag("The provider shows the code to the person, who hands it over."),
  manual_redirect_uri: textOrNull("The redirect_uri of such a code."),
  code_lifetime_s: secondsOrNull("How long a code lives, where that is less than a minute."),
  pushed,
});

const lookups = (description: string) => Type.Optional(Type.Array(lookup, { maxItems: 5, description }));

const refreshExchange = Type.Object({ ...exchangeSettings }, { ...strict });
const grantExchange = Type.Object(
  {
    ...exchangeSettings,
    client_id: text("A client id that is the same for everybody: connections of this grant need no client."),
    refresh: map("How sets that this grant gave are refreshed.", exchangeSettings),
    scope: map("Which scopes this grant asks for, where they are not those of `authorization.scope`.", {
      default: listOfText("Asked for where client and connection name none."),
      required: listOfText("Always asked for."),
    }),
    after_connect: lookups(
      "What is looked up after connecting by this grant, in place of the `after_connect` at the top.",
    ),
  },
  { ...strict },
);

const token = map("The token endpoint (RFC 6749, section 3.2).", {
  ...requestSettings,
  grants: map("What differs by grant.", {
    authorization_code: Type.Optional(grantExchange),
    client_credentials: Type.Optional(grantExchange),
    password: Type.Optional(grantExchange),
    device_code: Type.Optional(grantExchange),
    refresh_token: Type.Optional(refreshExchange),
  } satisfies Record<Exclude<TokenGrant, "token_exchange">, TSchema>),
});

/** An answer of the token endpoint, as the provider gives it. */
const deadGrant = Type.Object(
  {
    status: Type.Integer({ minimum: 200, maximum: 499, description: "Its HTTP status." }),
    body: Type.Unsafe<string | Record<string, unknown>>({
      type: ["string", "object"],
      minLength: 1,
      minProperties: 1,
      description: "What it holds: a map for JSON, else a text.",
    }),
  },
  { ...strict },
);

const refresh = map("What is known of refreshing (docs: reliability).", {
  rotation: choice(["never", "always", "auto"], "Whether an answer holds a new refresh token."),
  reuse: choice(
    ["safe", "grace", "until_successor_used", "dead", "kills_family"],
    "What a second use of a refresh token does.",
  ),
  grace_s: seconds("How long a used refresh token still works, with reuse: grace."),
  old_access_token_dies: flag("Whether refreshing ends the access token in use."),
  ahead: Type.Optional(
    Type.Number({ minimum: 0, maximum: 0.9, description: "The last share of its life in which a token is refreshed." }),
  ),
  min_age_s: seconds("Nothing younger is refreshed."),
  idle_life_s: secondsOrNull("A refresh token that is not used for so long dies."),
  absolute_life_s: secondsOrNull("A grant dies so long after consent."),
  dead_grant: Type.Optional(
    Type.Array(deadGrant, {
      description: "What a refresh is answered with when the grant is over; an empty list: no refresh token is given.",
    }),
  ),
});

const limits = map("What a token endpoint bears, kept over all replicas.", {
  per: choice(["token_host", "client", "connection"], "What shares the limits."),
  concurrency: count(1000, "Requests at a time."),
  spacing_ms: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 600_000, description: "From one request to the next, in milliseconds." }),
  ),
  cool_down_s: seconds("How long nothing is asked after rate_limited or blocked."),
  max_per_window: Type.Optional(
    nullable<string>("string", {
      pattern: "^[1-9][0-9]{0,4} in [1-9][0-9]{0,5} s$",
      description: "So many requests in so many seconds: 10 in 600 s.",
    }),
  ),
});

const parallelSets = Type.Optional(
  Type.Unsafe<"independent" | { single_per: string[]; max?: number }>({
    type: ["string", "object"],
    pattern: "^independent$",
    properties: {
      single_per: {
        type: "array",
        minItems: 1,
        items: { type: "string", pattern: "^(user|client|inputs\\.[a-z][a-z0-9_]*)$" },
      },
      max: { type: "integer", minimum: 1, maximum: 100_000 },
    },
    required: ["single_per"],
    additionalProperties: false,
    description:
      "independent: token sets do not disturb each other; { single_per: [user, client, inputs.X], max: 1 }: the provider keeps so many sets for the same of these.",
  }),
);

const api = map("What callers send to the provider's API.", {
  base_url: text("Where the API is."),
  authorization: Type.Optional(
    Type.Unsafe<string | { header: string; value: string }>({
      type: ["string", "object"],
      minLength: 1,
      properties: { header: { type: "string", minLength: 1 }, value: { type: "string", minLength: 1 } },
      required: ["header", "value"],
      additionalProperties: false,
      description: "The Authorization header, or { header, value }.",
    }),
  ),
  headers: templates("Further headers of every call."),
});

/** A fact's sources: one, or several that agree. Without a source it is a guess, and `guessed` says why. */
const fact = Type.Unsafe<string | string[] | { from: string | string[]; note?: string } | { guessed: string }>({
  type: ["string", "array", "object"],
  minLength: 1,
  items: { type: "string", minLength: 1 },
  minItems: 1,
  properties: {
    from: { type: ["string", "array"], items: { type: "string" } },
    note: { type: "string", minLength: 1 },
    guessed: { type: "string", minLength: 1 },
  },
  additionalProperties: false,
});

const guide = map("What a person must know who sets this up, in plain words.", {
  register: text("What to register, and where."),
  redirect_uri: text("What is special about redirect URIs there."),
  scopes: text("Which scopes to choose."),
  quirks: listOfText("What surprises."),
});

const idPattern = "^[a-z0-9][a-z0-9-]{0,62}$";

/** A provider definition file, as written: every setting that exists. docs/provider-format.md says what each is for. */
export const providerFileSchema = Type.Object(
  {
    id: Type.String({ pattern: idPattern, description: "Lower-case letters, digits and -." }),
    name: text("What people see."),
    extends: Type.Optional(
      nullable<string>("string", {
        minLength: 1,
        description: "The id of another definition, which this one changes.",
      }),
    ),
    formerly: Type.Optional(
      Type.Array(Type.String({ pattern: idPattern }), {
        uniqueItems: true,
        description:
          "Ids that this definition had before: connections and clients that were made under them go on with it. Never passed on by `extends` to another id.",
      }),
    ),
    docs: text("Where the provider describes all this."),
    networks: Type.Optional(
      Type.Array(Type.String({ minLength: 1 }), {
        description:
          "CIDR blocks outside the public internet that this definition alone may reach, in place of PROVIDER_NETWORKS; never in a built-in file, and never passed on by `extends`.",
      }),
    ),
    issuer: text("Its metadata (RFC 8414, OpenID Connect Discovery) fills in the addresses that are not given."),
    discovery: Type.Optional(
      Type.Object(
        {
          metadata_url: text(
            "Where the issuer's metadata are, if neither at the place of OpenID Connect Discovery nor at that of RFC 8414.",
          ),
        },
        strict,
      ),
    ),
    sources: Type.Optional(
      Type.Record(Type.String({ pattern: namePattern }), Type.String({ minLength: 1 }), {
        ...strict,
        description: "Name → where facts of this file come from.",
      }),
    ),
    facts: Type.Optional(
      Type.Record(Type.String(), fact, {
        description:
          "Setting → the names of its sources, or { guessed: why }. A setting also stands for those below it.",
      }),
    ),
    guide,
    inputs: Type.Optional(
      Type.Record(Type.String({ pattern: namePattern }), input, {
        ...strict,
        description: "Values that differ between connections.",
      }),
    ),
    grants: Type.Optional(
      Type.Array(Type.Enum([...connectionGrants]), {
        minItems: 1,
        uniqueItems: true,
        description: "How connections may get their tokens.",
      }),
    ),
    scopes: Type.Optional(
      Type.Record(Type.String(), Type.String({ minLength: 1 }), { description: "Scope → what it lets one do." }),
    ),
    authorization,
    token,
    device,
    response,
    refresh,
    errors: Type.Optional(
      Type.Array(errorRule, {
        description: "Rules for answers that RFC 6749 does not explain; the first that matches wins.",
      }),
    ),
    limits,
    parallel_sets: parallelSets,
    after_connect: lookups("What is looked up after connecting, in order."),
    revocation,
    introspection,
    api,
  },
  { ...strict },
);

export type ProviderFile = Static<typeof providerFileSchema>;

type LookupSettings = NonNullable<ProviderFile["after_connect"]>[number];

/** Every lookup of a file, that at the top and those of single grants, and where it stands. */
export function placedLookups({ after_connect: usual = [], ...file }: ProviderFile) {
  const special = Object.entries(file.token?.grants ?? {}).flatMap(([grant, settings]) =>
    "after_connect" in settings
      ? placed(["token", "grants", grant, "after_connect"], settings.after_connect ?? [])
      : [],
  );
  return [...placed(["after_connect"], usual), ...special];
}

function placed(path: readonly string[], list: readonly LookupSettings[]) {
  return list.map((settings, index) => ({ path: [...path, String(index)], lookup: settings }));
}
