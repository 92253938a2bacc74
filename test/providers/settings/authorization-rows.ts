import { parse } from "yaml";
import { at, each, type Row } from "./row.ts";

const plainVerifier = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s".slice(0, 43);
const challenge = "0Rg1yn7b0R1hLInM2pf4BU3eT3hIX_W1iTNui9njUxU";
const redirect = "redirect_uri=https%3A%2F%2Fbroker.example%2Fcallback%2Fown";
const pushed = (scope: string, proof: string) =>
  `response_type=code&client_id=app-1&${redirect}${scope}&state=state-1${proof}`;
const bySha = `&code_challenge=${challenge}&code_challenge_method=S256`;
const usual = pushed("&scope=read+write", bySha);

const written = (text: string) => new URLSearchParams({ scope: text }).toString();

/** Where scopes are sent: to the authorize page, pushed, and by the grants without a browser. */
function scopes(before: string, after: string): Row["shows"] {
  return {
    "authorize: scope": [before, after],
    "pushed: body": [pushed(`&${written(before)}`, bySha), pushed(`&${written(after)}`, bySha)],
    "device: body": [`client_id=app-1&${written(before)}`, `client_id=app-1&${written(after)}`],
    "fetch: body": [
      `grant_type=client_credentials&${written(before)}`,
      `grant_type=client_credentials&${written(after)}`,
    ],
    "login: body": [
      `grant_type=password&username=ann&password=pw&${written(before)}`,
      `grant_type=password&username=ann&password=pw&${written(after)}`,
    ],
  };
}

/** What of these requests a grant sends. */
const sentBy: Record<string, readonly string[]> = {
  authorization_code: ["authorize: scope", "pushed: body"],
  client_credentials: ["fetch: body"],
  password: ["login: body"],
  device_code: ["device: body"],
};

/** Scopes of one grant, which change what that one asks for alone. */
export const grantScopeRows: Row[] = Object.entries(sentBy).flatMap(([grant, shown]) => {
  const ofGrant = (before: string, after: string) =>
    Object.fromEntries(Object.entries(scopes(before, after)).filter(([label]) => shown.includes(label)));
  const path = `token.grants.${grant}.scope`;
  const required = "authorization: { scope: { required: [offline] } }";
  return [
    { setting: `${path}.default`, file: at(path, { default: ["list"] }), shows: ofGrant("read write", "list") },
    {
      setting: `${path}.required`,
      file: at(path, { required: ["own"] }),
      shows: ofGrant("read write", "read write own"),
    },
    {
      setting: `${path}.required`,
      file: JSON.stringify({ ...parse(at(path, { required: [] })), ...parse(required) }),
      instead: required,
      shows: ofGrant("read write offline", "read write"),
    },
  ];
});

export const authorizationRows: Row[] = [
  {
    setting: "authorization.url",
    file: "authorization: { url: https://other.example/go }",
    shows: {
      "authorize: address": ["https://login.example/authorize", "https://other.example/go"],
      "a callback of https://login.example": ["is taken", "is refused"],
    },
  },
  {
    setting: "authorization.issuer",
    file: "authorization: { issuer: https://issuer.example }",
    shows: {
      "a callback of https://issuer.example": ["is refused", "is taken"],
      "a callback of https://login.example": ["is taken", "is refused"],
    },
  },
  {
    setting: "issuer",
    file: "issuer: https://issuer.example",
    shows: {
      "a callback of https://issuer.example": ["is refused", "is taken"],
      "a callback of https://login.example": ["is taken", "is refused"],
    },
  },
  {
    setting: "authorization.iss",
    file: "authorization: { issuer: https://issuer.example, iss: required }",
    instead: "authorization: { issuer: https://issuer.example }",
    shows: { "a callback of nobody": ["is taken", "is refused"] },
  },
  {
    setting: "authorization.params",
    file: "authorization: { params: { audience: all } }",
    shows: { "authorize: audience": ["", "all"], "pushed: body": [usual, `${usual}&audience=all`] },
  },
  {
    setting: "authorization.params",
    file: "authorization: { params: { client_id: app, response_type: null } }",
    shows: {
      "authorize: client_id": ["app-1", ""],
      "authorize: app": ["", "app-1"],
      "authorize: response_type": ["code", ""],
      "pushed: body": [usual, usual.replace("response_type=code&client_id", "app")],
    },
  },
  {
    setting: "authorization.params_with_scope",
    file: "authorization: { params_with_scope: { write: { prompt: consent }, other: { prompt: none } } }",
    shows: { "authorize: prompt": ["", "consent"], "pushed: body": [usual, `${usual}&prompt=consent`] },
  },
  {
    setting: "authorization.scope.param",
    file: "authorization: { scope: { param: permissions } }",
    shows: {
      "authorize: scope": ["read write", ""],
      "authorize: permissions": ["", "read write"],
      "pushed: body": [usual, usual.replace("&scope=", "&permissions=")],
    },
  },
  {
    setting: "authorization.scope.separator",
    file: "authorization: { scope: { separator: ',' } }",
    shows: {
      ...scopes("read write", "read,write"),
      ...each(["answer", "refreshed user", "second"], "scopes", ["read,write | all", "read | write | all"]),
    },
  },
  {
    setting: "authorization.scope.default",
    file: "authorization: { scope: { default: [list] } }",
    shows: scopes("read write", "list"),
  },
  {
    setting: "authorization.scope.required",
    file: "authorization: { scope: { required: [offline] } }",
    shows: scopes("read write", "read write offline"),
  },
  {
    setting: "authorization.scope.aliases",
    file: "authorization: { scope: { aliases: { every: all, none: nothing } } }",
    shows: each(["answer", "refreshed user", "second"], "scopes", ["read,write | all", "read,write | all | every"]),
  },
  {
    setting: "authorization.pkce",
    file: "authorization: { pkce: 'off' }",
    shows: {
      "authorize: code_challenge": [challenge, ""],
      "authorize: code_challenge_method": ["S256", ""],
      "pushed: body": [usual, pushed("&scope=read+write", "")],
      "a code that was not asked for": ["is refused", "is exchanged"],
    },
  },
  {
    setting: "authorization.pkce",
    file: "authorization: { pkce: optional }",
    shows: { "a code that was not asked for": ["is refused", "is exchanged"] },
  },
  {
    setting: "authorization.pkce_method",
    file: "authorization: { pkce_method: plain }",
    shows: {
      "authorize: code_challenge": [challenge, plainVerifier],
      "authorize: code_challenge_method": ["S256", "plain"],
      "pushed: body": [
        usual,
        pushed("&scope=read+write", `&code_challenge=${plainVerifier}&code_challenge_method=plain`),
      ],
    },
  },
  {
    setting: "authorization.challenge_encoding",
    file: "authorization: { challenge_encoding: base64 }",
    shows: {
      "authorize: code_challenge": [challenge, "0Rg1yn7b0R1hLInM2pf4BU3eT3hIX/W1iTNui9njUxU="],
      "pushed: body": [usual, usual.replace("X_W1", "X%2FW1").replace("jUxU&", "jUxU%3D&")],
    },
  },
  {
    setting: "authorization.callback.code",
    file: "authorization: { callback: { code: other_code } }",
    shows: {
      "a callback": ["code-1", "code-2"],
      "a signed callback": ["code-1", "missing_code"],
      "a callback with a wrong signature": ["code-1", "missing_code"],
    },
  },
  {
    setting: "authorization.callback.denied",
    file: "authorization: { callback: { denied: [User_Cancelled] } }",
    shows: {
      "a callback with user_cancelled": ["is a failure", "is a no"],
      "a poll with user_cancelled": ["is a failure", "is a no"],
    },
  },
  {
    setting: "authorization.response_mode",
    file: "authorization: { response_mode: form_post }",
    shows: {
      "authorize: response_mode": ["", "form_post"],
      "pushed: body": [usual, `${usual}&response_mode=form_post`],
    },
  },
  {
    setting: "authorization.callback.capture",
    file: "authorization: { callback: { capture: { realm: realmId } } }",
    shows: { "a callback": ["code-1", "code-1 realm r1"] },
  },
  {
    setting: "authorization.callback.capture.param",
    file: "authorization: { callback: { capture: { realm: { param: state, pattern: '.' } } } }",
    instead: "authorization: { callback: { capture: { realm: { param: realmId, pattern: '.' } } } }",
    shows: {
      "a callback": ["code-1 realm r1", "code-1 realm state-1"],
      "a signed callback": ["code-1", "code-1 realm state-1"],
      "a callback with a wrong signature": ["code-1", "code-1 realm state-1"],
    },
  },
  {
    setting: "authorization.callback.capture.pattern",
    file: "authorization: { callback: { capture: { realm: { param: realmId, pattern: '^[0-9]+$' } } } }",
    instead: "authorization: { callback: { capture: { realm: { param: realmId, pattern: '^r[0-9]$' } } } }",
    shows: { "a callback": ["code-1 realm r1", "unexpected_parameter"] },
  },
  {
    setting: "authorization.callback.capture.enum",
    file: "authorization: { callback: { capture: { realm: { param: realmId, enum: [r2] } } } }",
    instead: "authorization: { callback: { capture: { realm: { param: realmId, enum: [r1, r2] } } } }",
    shows: { "a callback": ["code-1 realm r1", "unexpected_parameter"] },
  },
  {
    setting: "authorization.callback.verify",
    file: "authorization: { callback: { verify: hmac_sha256_query } }",
    shows: {
      "a callback": ["code-1", "invalid_signature"],
      "a callback with a wrong signature": ["code-1", "invalid_signature"],
    },
  },
  {
    setting: "authorization.manual_code",
    file: "authorization: { manual_code: true }",
    shows: { "a code that is copied": ["is refused", "goes to no page"] },
  },
  {
    setting: "authorization.manual_redirect_uri",
    file: "authorization: { manual_code: true, manual_redirect_uri: https://login.example/show }",
    instead: "authorization: { manual_code: true }",
    shows: { "a code that is copied": ["goes to no page", "goes to https://login.example/show"] },
  },
];
