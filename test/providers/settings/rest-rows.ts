import type { Row } from "./row.ts";

const tokenUrl = "POST https://login.example/token";
const form = "application/x-www-form-urlencoded";
const shopHeader = "api: { headers: { X-Shop: '{inputs.shop}' } }";
const basic = "Basic app-1:s3/cret";

/** A shop that is asked for, with these settings. */
const input = (settings: string) => `{ inputs: { shop: { ${settings} } }, ${shopHeader} }`;

const inputRows: Row[] = [
  {
    setting: "inputs.pattern",
    base: "bare",
    file: input("pattern: '^[a-l]+$'"),
    instead: input(""),
    shows: {
      "inputs, given munich": ['{"shop":"munich"}', "inputs.shop must match ^[a-l]+$"],
      "inputs, given munich: sent": ["munich", ""],
    },
  },
  {
    setting: "inputs.enum",
    base: "bare",
    file: input("enum: [berlin, bonn]"),
    instead: input(""),
    shows: {
      "inputs, given munich": ['{"shop":"munich"}', "inputs.shop must be one of: berlin, bonn"],
      "inputs, given munich: sent": ["munich", ""],
      "inputs, given none": [
        "inputs.shop is required by provider own",
        "inputs.shop is required by provider own, one of: berlin, bonn",
      ],
    },
  },
  {
    setting: "inputs.default",
    base: "bare",
    file: input("default: bonn"),
    instead: input(""),
    shows: {
      "inputs, given none": ["inputs.shop is required by provider own", '{"shop":"bonn"}'],
      "inputs, given none: sent": ["", "bonn"],
    },
  },
  {
    setting: "inputs.generate",
    base: "bare",
    file: input("generate: uuid"),
    instead: input(""),
    shows: {
      "inputs, given none": ["inputs.shop is required by provider own", '{"shop":"a UUID"}'],
      "inputs, given none: sent": ["", "a UUID"],
    },
  },
  {
    setting: "inputs.optional",
    base: "bare",
    file: input("optional: true"),
    instead: input(""),
    shows: {
      "inputs, given none": ["inputs.shop is required by provider own", '{"shop":""}'],
      "inputs, given none: sent": ["", "nothing"],
    },
  },
  {
    setting: "inputs.description",
    base: "bare",
    file: input("description: the town"),
    instead: input(""),
    shows: {
      "inputs, given none": [
        "inputs.shop is required by provider own",
        "inputs.shop is required by provider own (the town)",
      ],
    },
  },
];

const errorRow = (setting: string, [rule, instead]: readonly [string, string?], shows: Row["shows"]): Row => ({
  setting: `errors.${setting}`,
  file: `errors: [${rule}]`,
  ...(instead !== undefined && { instead: `errors: [${instead}]` }),
  shows,
});

const errorRows: Row[] = [
  errorRow("endpoint", ["{ endpoint: api, status: 418, body: over, means: access_token_expired }"], {
    "api: expired when": ['[{"status":401}]', '[{"status":401},{"status":418,"body":"over"}]'],
  }),
  errorRow("status", ["{ endpoint: token, status: 404, means: blocked }"], {
    "a page with 404": ["provider_unavailable", "blocked"],
  }),
  errorRow("pointer", ["{ endpoint: token, pointer: /errors/0/code, equals: '8', means: needs_reauthorization }"], {
    "code 8 with 400": ["provider_unavailable", "invalid_grant"],
  }),
  errorRow(
    "equals",
    [
      "{ endpoint: token, pointer: /errors/0/code, equals: '8', means: client_rejected }",
      "{ endpoint: token, pointer: /errors/0/code, equals: '9', means: client_rejected }",
    ],
    { "code 8 with 400": ["provider_unavailable", "invalid_client"] },
  ),
  errorRow("regex", ["{ endpoint: token, pointer: /errors/0/code, regex: '^[78]$', means: rate_limited }"], {
    "code 8 with 400": ["provider_unavailable", "rate_limited"],
  }),
  errorRow("body", ["{ endpoint: token, body: bad gate, means: transient }"], {
    "a 502": ["outcome_unknown", "provider_unavailable"],
  }),
  errorRow(
    "means",
    [
      "{ endpoint: token, status: 502, means: needs_reauthorization }",
      "{ endpoint: token, status: 502, means: blocked }",
    ],
    { "a 502": ["blocked", "invalid_grant"] },
  ),
];

export const restRows: Row[] = [
  ...inputRows,
  ...errorRows,
  {
    setting: "revocation.token",
    file: "revocation: { token: refresh_token }",
    shows: {
      "revoke access token: address": ["POST https://login.example/revoke", ""],
      "revoke access token: authorization": [basic, ""],
      "revoke access token: content-type": [form, ""],
      "revoke access token: body": ["token=at-0&token_type_hint=access_token", ""],
    },
  },
  {
    setting: "revocation.method",
    file: "revocation: { method: DELETE }",
    shows: {
      "revoke access token: address": ["POST https://login.example/revoke", "DELETE https://login.example/revoke"],
      "revoke refresh token: address": ["POST https://login.example/revoke", "DELETE https://login.example/revoke"],
    },
  },
  {
    setting: "grants",
    base: "bare",
    file: "grants: [client_credentials, password]",
    shows: {
      "login: address": ["", tokenUrl],
      "login: content-type": ["", form],
      "login: body": ["", "grant_type=password&username=ann&password=pw&client_id=app-1"],
      "refresh after login: address": ["", tokenUrl],
      "refresh after login: content-type": ["", form],
      "refresh after login: body": ["", "grant_type=refresh_token&refresh_token=rt-0&client_id=app-1"],
    },
  },
];
