import { Type } from "typebox";
import {
  captures,
  choice,
  map,
  mapOrNull,
  namePattern,
  pointer,
  pointerPattern,
  seconds,
  strict,
  templates,
  text,
} from "./knob-types.ts";
import { exchangeKnobs, sideRequestKnobs } from "./request-knobs.ts";

export const lifetimeSources = ["expires_in", "expires_at", "jwt_exp", "fixed", "never", "introspect"] as const;

const lifetimeKnobs = {
  from: choice(
    lifetimeSources,
    "expires_in: a life; expires_at: a moment; jwt_exp: the `exp` of a JWT; fixed: always `fallback`; never: no end unless the answer names one; introspect: asked for at `introspection`.",
  ),
  pointer: pointer("Where it is in the answer."),
  unit: choice(["s", "ms", "iso"], "s: seconds; ms: milliseconds; iso: a date as text (expires_at only)."),
  fallback: seconds("Seconds that count where the answer says nothing readable."),
};
const lifetime = (description: string) => map(description, lifetimeKnobs);

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

const extraToken = Type.Object(
  {
    name: Type.String({ pattern: namePattern, description: "Read as GET /tokens/:connection?token=name." }),
    ...tokenPointers,
    refreshed: map(
      "Where the tokens are in the answer to this chain's own refresh; as in `response` unless given.",
      tokenPointers,
    ),
    exchange: mapOrNull(
      Type.Object(exchangeKnobs, {
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
    Type.Array(extraToken, {
      description: "Further tokens of the same consent, each with a refresh chain of its own.",
    }),
  ),
});

export const introspection = mapOrNull(
  Type.Object(
    {
      ...sideRequestKnobs,
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
      ...sideRequestKnobs,
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
    ...sideRequestKnobs,
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
