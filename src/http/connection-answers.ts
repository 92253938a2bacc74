import { Type } from "typebox";
import { failureCodes } from "../providers/oauth/token-answer.ts";
import { attentionCodes } from "../services/attention.ts";
import { eventTypes } from "../store/token-row.ts";
import { warningCodes } from "../tokens/read.ts";
import {
  count,
  grantSchema,
  literals,
  named,
  nullable,
  statusSchema,
  textField,
  textList,
  texts,
  timestamp,
} from "./schemas.ts";

const at = "2026-11-20T12:00:00.000Z";

const warningSchema = named(
  "TokenWarning",
  {
    description: "What somebody should look at though the token can be used",
    example: { code: "refresh_failing", detail: "The provider cannot be reached; the token is still valid." },
  },
  {
    code: literals(warningCodes, { title: "WarningCode", description: "What it is, from a closed set" }),
    detail: textField("The same for people"),
  },
);

const expiryRuleSchema = named(
  "ExpiryRule",
  { description: "An answer of the provider's API that says the token has expired", example: { status: 401 } },
  {
    status: Type.Optional(count("Its HTTP status")),
    body: Type.Optional(textField("A regular expression that its body matches")),
  },
);

const apiRequestSchema = named(
  "ApiRequest",
  {
    description: "What to send with a call of the provider's API",
    example: {
      base_url: "https://api.provider.example/v1",
      headers: { authorization: "Bearer eyJhbGciOiJSUzI1NiJ9" },
      expired_when: [{ status: 401 }],
    },
  },
  {
    base_url: nullable(textField("What the API's addresses begin with; null: the definition names none")),
    headers: texts("Headers to send, `authorization` among them"),
    expired_when: Type.Array(expiryRuleSchema, {
      description: "Answers of the API on which to come back with `rejected_version`",
    }),
  },
);

export const tokenSchema = named(
  "Token",
  {
    description: "An access token that is valid now",
    example: {
      connection: "acme-shop",
      access_token: "eyJhbGciOiJSUzI1NiJ9",
      token_type: "Bearer",
      expires_at: at,
      expires_in: 281,
      scopes: ["read"],
      missing_scopes: [],
      version: 7,
      warnings: [],
    },
  },
  {
    connection: textField("Name of the connection"),
    token: Type.Optional(textField("Which further token of the connection this is; absent: its own")),
    access_token: textField("What to send to the provider's API"),
    token_type: textField("How to send it, nearly always Bearer"),
    expires_at: nullable(timestamp("When it expires; null: it does not")),
    expires_in: nullable(count("Seconds until then; null: it does not expire")),
    scopes: textList("What was granted"),
    missing_scopes: textList("What was asked for and not granted"),
    version: count("Rises with every new token: give it as `rejected_version` when the provider refuses this one"),
    warnings: Type.Array(warningSchema, { description: "What somebody should look at; empty: nothing" }),
    request: Type.Optional(apiRequestSchema),
  },
);

/** `last_error.code`: how a provider's answers are classified, and two that the broker finds itself. */
export const lastErrorCodes = [...failureCodes, "refresh_outcome_lost", "no_refresh_token", "unusable_token"] as const;

const lastError = nullable(
  named(
    "LastError",
    {
      description: "What the last refresh failed with; null: it did not fail",
      example: { code: "provider_unavailable", at, detail: "The provider answered 503." },
    },
    {
      code: literals(lastErrorCodes, { title: "LastErrorCode", description: "What it is, from a closed set" }),
      at: timestamp("When"),
      detail: textField("The same for people"),
    },
  ),
);

const attention = nullable(
  named(
    "Attention",
    {
      description: "What a person should look at though tokens may still be served; null: nothing",
      example: { code: "missing_scopes", since: at, detail: "Not granted: orders." },
    },
    {
      code: literals(attentionCodes, { title: "AttentionCode", description: "What it is, from a closed set" }),
      since: timestamp("Since when"),
      detail: textField("The same for people, with what to do"),
    },
  ),
);

/** What a connection and each of its further tokens have. */
const tokenSet = {
  status: statusSchema,
  granted_scopes: textList("What was granted"),
  version: count("Of the newest token; 0: there was none yet"),
  expires_at: nullable(timestamp("When the newest token expires; null: it does not, or there is none")),
  refresh_token_expires_at: nullable(timestamp("When its refresh token expires; null: not known")),
  consecutive_failures: count("Refreshes that have failed since the last one that worked"),
  last_error: lastError,
  attention,
};
const tokenSetExample = {
  status: "connected",
  granted_scopes: ["read"],
  version: 7,
  expires_at: at,
  refresh_token_expires_at: null,
  consecutive_failures: 0,
  last_error: null,
  attention: null,
};

const furtherTokenSchema = named(
  "FurtherToken",
  { description: "A further token of the same consent", example: tokenSetExample },
  tokenSet,
);

export const connectionSchema = named(
  "Connection",
  {
    description: "An account at a provider, whose tokens are kept fresh",
    example: {
      name: "acme-shop",
      provider: "sandbox",
      client: "shop-app",
      grant: "client_credentials",
      scopes: ["read"],
      missing_scopes: [],
      inputs: {},
      labels: { team: "orders" },
      account: null,
      account_label: null,
      last_refreshed_at: at,
      next_refresh_at: at,
      created_at: at,
      updated_at: at,
      ...tokenSetExample,
    },
  },
  {
    name: textField("Its name, also in paths"),
    provider: textField("Id of the provider's definition"),
    client: nullable(textField("Name of its OAuth client; null: the definition fixes the client id")),
    grant: grantSchema,
    status: tokenSet.status,
    scopes: textList("What is asked for"),
    granted_scopes: tokenSet.granted_scopes,
    missing_scopes: textList("What is asked for and was not granted"),
    inputs: texts("What the definition asks for, by name"),
    labels: texts("Labels of your own"),
    account: nullable(textField("Whose account it is, as the provider says; compared on reconnect. Null: not known")),
    account_label: nullable(textField("The account's name for people; null: not known")),
    tokens: Type.Optional(
      Type.Record(Type.String(), furtherTokenSchema, { description: "Further tokens of the same consent, by name" }),
    ),
    version: tokenSet.version,
    expires_at: tokenSet.expires_at,
    refresh_token_expires_at: tokenSet.refresh_token_expires_at,
    last_refreshed_at: nullable(timestamp("When a new token was stored last; null: never")),
    next_refresh_at: nullable(timestamp("When it is refreshed next; null: not planned")),
    consecutive_failures: tokenSet.consecutive_failures,
    last_error: lastError,
    attention,
    created_at: timestamp("When it was created"),
    updated_at: timestamp("When something of it changed last"),
  },
);

export const eventSchema = named(
  "Event",
  {
    description: "A line of a connection's history",
    example: { id: "42", at, type: "refreshed", detail: { version: 7 } },
  },
  {
    id: textField("Its number, as text"),
    at: timestamp("When it happened"),
    type: literals(eventTypes, { title: "EventType", description: "What happened, from a closed set" }),
    detail: Type.Record(Type.String(), Type.Unknown(), { description: "More about it, by type" }),
  },
);

export const deviceSchema = named(
  "DeviceAuthorization",
  {
    description: "What a person types in at the provider",
    example: {
      user_code: "WDJB-MJHT",
      verification_uri: "https://provider.example.com/device",
      verification_uri_complete: null,
      expires_at: at,
      interval: 5,
    },
  },
  {
    user_code: textField("What the person types in"),
    verification_uri: textField("Where"),
    verification_uri_complete: nullable(textField("The same, with the code in it; null: the provider gives none")),
    expires_at: timestamp("Until when the code works"),
    interval: count("Seconds between two questions of the broker"),
  },
);

export const linkSchema = named(
  "ConsentLink",
  {
    description: "A link by which a person connects the account",
    example: { id: "9b2d6f0a1c3e4d5f", url: "https://broker.example.com/connect/9b2d6f0a1c3e4d5f-…", expires_at: at },
  },
  {
    id: textField("Its id"),
    url: textField("To be given to the person: whoever has it can connect an account"),
    expires_at: timestamp("Until when it works"),
  },
);
