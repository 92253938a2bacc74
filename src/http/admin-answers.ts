import { Type } from "typebox";
import {
  abilitySchema,
  count,
  named,
  nullable,
  statusSchema,
  textField,
  textList,
  texts,
  timestamp,
} from "./schemas.ts";

const at = "2026-11-20T12:00:00.000Z";

export const clientSchema = named(
  "Client",
  {
    description: "An OAuth client as registered at a provider",
    example: {
      name: "shop-app",
      provider: "sandbox",
      client_id: "4b2f0c1e",
      has_secret: true,
      secret_rotating: false,
      secret_rotating_since: null,
      old_secret_in_use_since: null,
      scopes: [],
      connections: ["acme-*"],
      inputs: {},
      own_redirect_uri: false,
      redirect_uri: "https://broker.example.com/callback/sandbox",
      created_at: at,
      updated_at: at,
    },
  },
  {
    name: textField("Its name, also in paths"),
    provider: textField("Id of the provider's definition"),
    client_id: textField("The id that the provider has given"),
    has_secret: Type.Boolean({ description: "Whether a secret is stored; it is never shown" }),
    secret_rotating: Type.Boolean({ description: "The secret before is still kept as a second choice" }),
    secret_rotating_since: nullable(timestamp("Since when; null: it is not")),
    old_secret_in_use_since: nullable(
      timestamp("Since when the newest secret is refused and the one before works; null: that is not so"),
    ),
    scopes: textList("Where set, all that keys without `admin` may ask for"),
    connections: textList("Names that keys without `admin` may use it for; none counts as * where somebody changes it"),
    inputs: texts("What the definition asks for, by name"),
    own_redirect_uri: Type.Boolean({
      description:
        "Its redirect_uri is its own; false: that of all clients of the provider, as before there were others",
    }),
    redirect_uri: textField("To be registered at the provider"),
    created_at: timestamp("When it was created"),
    updated_at: timestamp("When something of it changed last"),
  },
);

const needsExample = { client: true, client_secret: true, client_inputs: [], inputs: [], credentials: [] };

const needsSchema = named(
  "GrantNeeds",
  { description: "What has to be given for a grant", example: needsExample },
  {
    client: Type.Boolean({ description: "False: the definition fixes the client id, and no client is needed" }),
    client_secret: Type.Boolean({ description: "False: a client of this grant needs no secret" }),
    client_inputs: textList("Inputs that are set on the client"),
    inputs: textList("Inputs that are set on the connection"),
    credentials: textList("Credentials of the connection"),
  },
);

const providerExample = {
  id: "sandbox",
  name: "Sandbox",
  docs: null,
  usable: true,
  grants: ["authorization_code"],
  default_grant: "authorization_code",
  needs: { authorization_code: needsExample },
  redirect_uri: "https://broker.example.com/callback/sandbox",
  networks: [],
  definition: { id: "sandbox" },
};

export const providerSchema = named(
  "Provider",
  {
    description: "A provider's definition in force",
    example: providerExample,
  },
  {
    id: textField("What connections and clients name it by"),
    name: textField("Its name for people"),
    docs: nullable(textField("Where the provider documents its OAuth; null: the definition does not say")),
    usable: Type.Boolean({ description: "False: it is only there to be extended" }),
    grants: textList("Grants that it offers"),
    default_grant: textField("What a connection gets that names no grant"),
    needs: Type.Record(Type.String(), needsSchema, { description: "What has to be given for each grant" }),
    redirect_uri: textField(
      "To be registered at the provider; {client} stands for the name of the client, where each has its own",
    ),
    networks: textList("CIDR blocks outside the public internet that it may reach: its own, or PROVIDER_NETWORKS"),
    definition: Type.Record(Type.String(), Type.Unknown(), { description: "The file in force, extends followed" }),
  },
);

export const providerListSchema = named(
  "ProviderList",
  { description: "All definitions in force", example: { items: [providerExample], next_cursor: null } },
  {
    items: Type.Array(providerSchema, { description: "In the order of their ids" }),
    next_cursor: Type.Null({ description: "Always null: the list has one page" }),
  },
);

const workingKeyFields = {
  id: textField("What it is revoked by"),
  name: textField("Its name for people"),
  abilities: Type.Array(Type.String(), { description: "What it may do" }),
  expires_at: nullable(timestamp("When it expires; null: it does not")),
  created_at: timestamp("When it was created"),
};
const workingKeyExample = {
  id: "4kZt0Qm2xW9a",
  name: "orders",
  abilities: ["tokens"],
  created_at: at,
  expires_at: null,
};

const keyFields = {
  id: workingKeyFields.id,
  name: workingKeyFields.name,
  abilities: workingKeyFields.abilities,
  connections: textList("Which connections it is for; * stands for any characters"),
  expires_at: workingKeyFields.expires_at,
  revoked_at: nullable(timestamp("When it was revoked; null: it was not")),
  created_at: workingKeyFields.created_at,
};
const keyExample = { ...workingKeyExample, connections: ["acme-*"], revoked_at: null };

export const keySchema = named(
  "Key",
  { description: "A key of this broker, without the key itself", example: keyExample },
  keyFields,
);

export const newKeySchema = named(
  "CreatedKey",
  {
    description: "A new key, with the key itself",
    example: { ...keyExample, key: "frt_4kZt0Qm2xW9a_…" },
  },
  { ...keyFields, key: textField("The key itself: shown this once") },
);

const heldExample = {
  name: "acme-shop",
  provider: "sandbox",
  status: "connected",
  sets_lost: 1,
  access_token_expires_at: at,
};

export const heldSchema = named(
  "HeldConnection",
  {
    description: "A connection that is not refreshed since the database was restored",
    example: heldExample,
  },
  {
    name: textField("Its name"),
    provider: textField("Id of the provider's definition"),
    status: statusSchema,
    sets_lost: nullable(count("Newer token sets that were stored before; null: it was deleted")),
    access_token_expires_at: nullable(timestamp("When the token that is served expires; null: not known")),
  },
);

const workingKeySchema = named(
  "WorkingKey",
  { description: "A key that works", example: workingKeyExample },
  workingKeyFields,
);

export const recoverySchema = named(
  "Recovery",
  {
    description: "What is held since the database was restored",
    example: { items: [heldExample], notice: "The database is from before.", keys: [workingKeyExample] },
  },
  {
    items: Type.Array(heldSchema, { description: "Connections that are not refreshed" }),
    notice: nullable(textField("What else the restored database may have brought back; null: nothing is held")),
    keys: Type.Array(workingKeySchema, {
      description: "While anything is held: the keys that work, oldest first, of those that GET /keys lists",
    }),
  },
);

export const releasedSchema = named(
  "Released",
  { description: "What is refreshed again", example: { released: ["acme-shop"] } },
  { released: textList("Names of the connections") },
);

export const keyAbilities = Type.Array(abilitySchema, {
  minItems: 1,
  uniqueItems: true,
  description: "What the key may do",
  example: ["tokens"],
});
