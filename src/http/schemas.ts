import { Type, type TSchema } from "typebox";
import { errorCodes } from "../errors.ts";
import { failureCodes } from "../providers/grant.ts";
import { connectionGrants } from "../providers/provider-file.ts";
import { attentionCodes } from "../registry/attention.ts";
import { eventTypes } from "../store/event-types.ts";
import { warningCodes } from "../tokens/issued-token.ts";

/** An object that refuses fields it does not know. */
export const closed = <T extends Record<string, TSchema>>(properties: T, options: object = {}) =>
  Type.Object(properties, { additionalProperties: false, ...options });

const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

export const literals = <T extends readonly string[]>(values: T, options: object = {}) =>
  Type.Unsafe<T[number]>({ type: "string", enum: [...values], ...options });

export const resourceName = Type.String({
  pattern: "^[a-z0-9][a-z0-9._-]{0,127}$",
  description: "a-z, 0-9, then also . _ -, at most 128 characters",
});

/** Which connections something is for. */
export const patternList = Type.Array(
  Type.String({ pattern: "^[a-z0-9._*-]{1,128}$", description: "a name; * stands for any characters" }),
  { maxItems: 100 },
);

const timestamp = Type.String({ format: "date-time" });
export const limit = Type.Integer({ minimum: 1, maximum: 200, default: 50 });
export const cursor = Type.String({ maxLength: 200, description: "next_cursor of the page before" });
export const scopeList = Type.Array(Type.String({ pattern: String.raw`^[\x21\x23-\x5B\x5D-\x7E]{1,256}$` }), {
  maxItems: 100,
});
export const textMap = Type.Record(Type.String(), Type.String({ maxLength: 256 }), {
  propertyNames: { pattern: "^[A-Za-z0-9._/-]{1,64}$" },
  maxProperties: 64,
});
export const inputMap = Type.Record(Type.String(), Type.String({ maxLength: 2000 }), { maxProperties: 64 });

export const problemSchema = Type.Object(
  {
    type: Type.Literal("about:blank"),
    title: Type.String(),
    status: Type.Integer(),
    code: literals(errorCodes),
    detail: Type.String(),
    connection: Type.Optional(Type.String()),
    retry_after: Type.Optional(Type.Integer({ description: "seconds" })),
  },
  { $id: "Problem", description: "RFC 9457" },
);

/** A list of a page at a time. */
export const pageOf = <T extends TSchema>(item: T) =>
  Type.Object({ items: Type.Array(item), next_cursor: nullable(Type.String()) });

export const tokenSchema = Type.Object({
  connection: Type.String(),
  token: Type.Optional(Type.String({ description: "which further token of the connection this is" })),
  access_token: Type.String(),
  token_type: Type.String(),
  expires_at: nullable(timestamp),
  expires_in: nullable(Type.Integer()),
  scopes: Type.Array(Type.String()),
  missing_scopes: Type.Array(Type.String({ description: "asked for and not granted" })),
  version: Type.Integer(),
  warnings: Type.Array(Type.Object({ code: literals(warningCodes), detail: Type.String() })),
  request: Type.Optional(
    Type.Object({
      base_url: nullable(Type.String()),
      headers: Type.Record(Type.String(), Type.String()),
      expired_when: Type.Array(
        Type.Object({ status: Type.Optional(Type.Integer()), body: Type.Optional(Type.String()) }),
      ),
    }),
  ),
});

/** `last_error.code`: what a provider's answers come to, and two that the broker finds itself. */
export const lastErrorCodes = [...failureCodes, "refresh_outcome_lost", "no_refresh_token", "unusable_token"] as const;

export const statuses = ["pending", "connected", "needs_reauthorization", "disabled"] as const;

const lastError = nullable(Type.Object({ code: literals(lastErrorCodes), at: timestamp, detail: Type.String() }));

const attention = nullable(
  Type.Object(
    { code: literals(attentionCodes), since: timestamp, detail: Type.String() },
    { description: "what a person should look at though tokens may still be served" },
  ),
);

/** A further token of a connection. */
const chainSchema = Type.Object({
  status: literals(statuses),
  granted_scopes: Type.Array(Type.String()),
  version: Type.Integer(),
  expires_at: nullable(timestamp),
  refresh_token_expires_at: nullable(timestamp),
  consecutive_failures: Type.Integer(),
  last_error: lastError,
  attention,
});

export const connectionSchema = Type.Object({
  name: Type.String(),
  provider: Type.String(),
  client: nullable(Type.String()),
  grant: literals(connectionGrants),
  status: literals(statuses),
  scopes: Type.Array(Type.String()),
  granted_scopes: Type.Array(Type.String()),
  missing_scopes: Type.Array(Type.String()),
  inputs: Type.Record(Type.String(), Type.String()),
  labels: Type.Record(Type.String(), Type.String()),
  account: nullable(Type.String({ description: "who the provider says it is; compared on reconnect" })),
  account_label: nullable(Type.String({ description: "the account's name for people" })),
  tokens: Type.Optional(
    Type.Record(Type.String(), chainSchema, { description: "further tokens of the same consent, by name" }),
  ),
  version: Type.Integer(),
  expires_at: nullable(timestamp),
  refresh_token_expires_at: nullable(timestamp),
  last_refreshed_at: nullable(timestamp),
  next_refresh_at: nullable(timestamp),
  consecutive_failures: Type.Integer(),
  last_error: lastError,
  attention,
  created_at: timestamp,
  updated_at: timestamp,
});

export const eventSchema = Type.Object({
  id: Type.String(),
  at: timestamp,
  type: literals(eventTypes),
  detail: Type.Record(Type.String(), Type.Unknown()),
});

export const clientSchema = Type.Object({
  name: Type.String(),
  provider: Type.String(),
  client_id: Type.String(),
  has_secret: Type.Boolean(),
  secret_rotating: Type.Boolean({ description: "the secret before is still kept as a second choice" }),
  secret_rotating_since: nullable(timestamp),
  old_secret_in_use_since: nullable(
    Type.String({ format: "date-time", description: "the newest secret is refused, and the one before works" }),
  ),
  scopes: Type.Array(Type.String(), { description: "where set, all that keys without `admin` may ask for" }),
  connections: Type.Array(Type.String(), {
    description: "names that keys without `admin` may use it for; none counts as * where somebody changes it",
  }),
  inputs: Type.Record(Type.String(), Type.String()),
  own_redirect_uri: Type.Boolean({
    description: "its redirect_uri is its own; false: that of all clients of the provider, as before there were others",
  }),
  redirect_uri: Type.String({ description: "to be registered at the provider" }),
  created_at: timestamp,
  updated_at: timestamp,
});

const needsSchema = Type.Object({
  client: Type.Boolean({ description: "false: the definition fixes the client id, and no client is needed" }),
  client_secret: Type.Boolean({ description: "false: a client of this grant needs no secret" }),
  client_inputs: Type.Array(Type.String(), { description: "inputs that are set on the client" }),
  inputs: Type.Array(Type.String(), { description: "inputs that are set on the connection" }),
  credentials: Type.Array(Type.String()),
});

export const providerSchema = Type.Object({
  id: Type.String(),
  name: Type.String(),
  docs: nullable(Type.String()),
  usable: Type.Boolean({ description: "false: only there to be extended" }),
  grants: Type.Array(Type.String()),
  default_grant: Type.String({ description: "what a connection gets that names no grant" }),
  needs: Type.Record(Type.String(), needsSchema, { description: "what has to be given for each grant" }),
  redirect_uri: Type.String({
    description: "to be registered at the provider; {client} stands for the name of the client, where each has its own",
  }),
  networks: Type.Array(Type.String(), {
    description: "CIDR blocks outside the public internet that it may reach: its own, or PROVIDER_NETWORKS",
  }),
  definition: Type.Record(Type.String(), Type.Unknown(), { description: "the file in force, extends followed" }),
});

export const keySchema = Type.Object({
  id: Type.String(),
  name: Type.String(),
  abilities: Type.Array(Type.String()),
  connections: Type.Array(Type.String()),
  expires_at: nullable(timestamp),
  revoked_at: nullable(timestamp),
  created_at: timestamp,
});

export const newKeySchema = Type.Object({
  ...keySchema.properties,
  key: Type.String({ description: "the key itself: shown this once" }),
});

export const heldSchema = Type.Object({
  name: Type.String(),
  provider: Type.String(),
  status: literals(statuses),
  sets_lost: nullable(Type.Integer({ description: "newer token sets that were stored before; null: it was deleted" })),
  access_token_expires_at: nullable(timestamp),
});

export const recoverySchema = Type.Object({
  items: Type.Array(heldSchema),
  notice: nullable(
    Type.String({ description: "what else the restored database may have brought back; null: nothing is held" }),
  ),
  keys: Type.Array(Type.Pick(keySchema, ["id", "name", "abilities", "created_at", "expires_at"]), {
    description: "while anything is held: the keys that work, oldest first, of those that GET /keys lists",
  }),
});

export const deviceSchema = Type.Object({
  user_code: Type.String({ description: "what the person types in" }),
  verification_uri: Type.String({ description: "where" }),
  verification_uri_complete: nullable(Type.String({ description: "the same, with the code in it" })),
  expires_at: timestamp,
  interval: Type.Integer({ description: "seconds between two questions of the broker" }),
});

export const linkSchema = Type.Object({ id: Type.String(), url: Type.String(), expires_at: timestamp });
