import { Type } from "typebox";
import {
  abilitySchema,
  count,
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
  labels: texts("What these connections must carry, too; none: any labels"),
  expires_at: workingKeyFields.expires_at,
  revoked_at: nullable(timestamp("When it was revoked; null: it was not")),
  created_at: workingKeyFields.created_at,
  last_used_at: nullable(timestamp("When it was used last, up to a minute late; null: never")),
};
const keyExample = { ...workingKeyExample, connections: ["acme-*"], labels: {}, revoked_at: null, last_used_at: null };

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

const unopenedSchema = named(
  "Unopened",
  {
    description: "A value that does not open, or a row that is not as the broker has written it",
    example: { table: "connections", id: "0b0f2f6a", name: "acme-shop", column: "refresh_token_sealed", key: "k1" },
  },
  {
    table: textField(
      "Its table; audit.entries: a chain of the audit with a fault, behind which the key alone proves entries",
    ),
    id: textField("The id of the row, or of the audit's chain"),
    name: nullable(textField("Its name; null: it has none, or this key may not see it")),
    column: textField("The column that does not open, or mac: somebody else has changed the row"),
    key: nullable(textField("The id of the key that it is under; null: it is no record")),
  },
);

export const rotationSchema = named(
  "Rotation",
  {
    description: "A rotation: everything is sealed and signed anew with one encryption key",
    example: {
      target_key: "k2",
      state: "finished",
      begun_by: "admin",
      begun_at: at,
      finished_at: at,
      pass: 2,
      place: "spools",
      seen: 240,
      moved: 118,
      waits_for: null,
      unopened: [],
      forgotten: ["k1"],
    },
  },
  {
    target_key: textField("The id of the key to which everything moves"),
    state: literals(["running", "finished"], { title: "RotationState", description: "Whether it goes on" }),
    begun_by: textField("The id of the key that asked for it"),
    begun_at: timestamp("When it began"),
    finished_at: nullable(timestamp("When it was finished; null: it is running")),
    pass: count("Which pass over everything this is; one that moves nothing is the last"),
    place: nullable(textField("The table that this pass has reached, or marks, or spools; null: its beginning")),
    seen: count("Rows looked at in all passes"),
    moved: count("Rows sealed or signed anew in all passes"),
    waits_for: nullable(textField("What it waits for; null: nothing")),
    unopened: Type.Array(unopenedSchema, {
      description: "What does not open, and stays as it is; the first hundred",
    }),
    forgotten: textList("The keys that were free at its end: starts do not need them any more"),
  },
);

const underKeySchema = named(
  "UnderKey",
  { description: "What of one table is under an encryption key", example: { table: "connections", seals: 3, macs: 1 } },
  {
    table: textField("The table"),
    seals: count("Sealed values under the key"),
    macs: count("Rows that are signed with it"),
  },
);

const keyUseExample = {
  id: "k1",
  current: false,
  here: true,
  named: false,
  tables: [],
  marks: 0,
  spooled: 0,
  instances: [],
  free: true,
  reasons: [],
};

const keyUseSchema = named(
  "EncryptionKey",
  { description: "An encryption key, and what is under it", example: keyUseExample },
  {
    id: textField("Its id in ENCRYPTION_KEYS"),
    current: Type.Boolean({ description: "The replica that answers seals with it" }),
    here: Type.Boolean({ description: "It is in ENCRYPTION_KEYS of the replica that answers" }),
    named: Type.Boolean({ description: "The database names it: a start without it is refused" }),
    tables: Type.Array(underKeySchema, { description: "What is under it in the database" }),
    marks: nullable(count("Marks in Redis that are signed with it; null: Redis does not answer")),
    spooled: nullable(count("Answers in Redis that wait to be stored; null: Redis does not answer")),
    instances: textList("The instances that seal with it, or may hold something under it"),
    free: Type.Boolean({ description: "Nothing is under it: it may be taken out of ENCRYPTION_KEYS" }),
    reasons: textList("Why it is not free"),
  },
);

const instanceExample = {
  id: "0b0f2f6a-7a52-4e0f-8a55-0a4bb2b0a3f5",
  name: "broker-1:8080",
  keys: ["k2", "k1"],
  current_key: "k2",
  held_keys: [],
  present: true,
  seen_at: at,
  left_at: null,
};

const instanceSchema = named(
  "Instance",
  { description: "A process of the last 30 days, and its encryption keys", example: instanceExample },
  {
    id: textField("The id in its DATA_DIR"),
    name: textField("Host and port"),
    keys: textList("The ids of its keys, in its order"),
    current_key: nullable(textField("The key with which it seals; null: it has not begun to")),
    held_keys: nullable(
      textList("Every key under which it holds something that is nowhere else; null: it has not said"),
    ),
    present: Type.Boolean({ description: "It was seen within the last minute, and has not stopped" }),
    seen_at: timestamp("When it was last seen"),
    left_at: nullable(timestamp("When it stopped in order; null: it runs, or was stopped by force")),
  },
);

export const encryptionSchema = named(
  "Encryption",
  {
    description: "The encryption keys, what is under each, and who has it",
    example: { current_key: "k2", keys: [keyUseExample], replicas: [instanceExample], rotation: null },
  },
  {
    current_key: textField("The key with which the replica that answers seals"),
    keys: Type.Array(keyUseSchema, { description: "Those of this replica in its order, then others that are in use" }),
    replicas: Type.Array(instanceSchema, { description: "The processes of the last 30 days" }),
    rotation: nullable(rotationSchema),
  },
);
