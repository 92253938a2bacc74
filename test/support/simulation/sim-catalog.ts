import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import type { ProviderFile } from "../../../src/providers/format/file.ts";
import type { Catalog } from "../../../src/providers/load/catalog.ts";
import { resolveDefinition } from "../../../src/providers/load/resolve.ts";
import type { ClientRow } from "../../../src/store/clients.ts";
import { graceSeconds, type ReuseKind } from "./grant-model.ts";

export const reuseKinds = ["kills_family", "grace", "until_successor_used", "dead", "safe"] as const;

/** The provider that gives tokens to whoever asks: client credentials. */
export const machines = "machines";

const urls = {
  authorization: { url: "https://login.example/authorize", pkce: "off" },
  revocation: { url: "https://login.example/revoke", client_auth: "none", kills: "token" },
} as const;

/** As a definition file says it. */
export type SimLimits = ProviderFile["limits"];

function define(id: string, reuse: ReuseKind, limits: SimLimits): ProviderDefinition {
  const file = {
    id,
    name: id,
    ...urls,
    grants: ["authorization_code", "client_credentials", "import"] as const,
    token: { url: `https://${id}.example/token`, client_auth: "none" as const },
    refresh: {
      reuse,
      rotation: reuse === "safe" ? ("never" as const) : ("always" as const),
      grace_s: graceSeconds,
      old_access_token_dies: reuse === "dead",
    },
    ...(limits === undefined ? {} : { limits }),
  };
  return resolveDefinition(file as unknown as Parameters<typeof resolveDefinition>[0], false);
}

/** One definition for each kind of `reuse`, by its name, and `machines`; all with these limits. */
export function createSimCatalog(limits?: SimLimits): Pick<Catalog, "get" | "list"> {
  const definitions = new Map<string, ProviderDefinition>([
    ...reuseKinds.map((kind) => [kind, define(kind, kind, limits)] as const),
    [machines, define(machines, "safe", limits)] as const,
  ]);
  return { get: (id) => definitions.get(id), list: async () => [...definitions.values()] };
}

/** The client of all connections that name no other, which needs no secret. */
export const simClient: ClientRow = {
  id: "10000000-0000-4000-8000-000000000001",
  name: "freshet",
  provider: "any",
  clientId: "freshet",
  secretRevision: 0,
  secret: null,
  previousSecret: null,
  secretRotatingSince: null,
  oldSecretSince: null,
  scopes: [],
  patterns: [],
  inputs: {},
  ownRedirectUri: false,
  createdAt: new Date(0),
  updatedAt: new Date(0),
  mac: "proof",
};

export function simClientOf(id: string): ClientRow {
  return { ...simClient, id };
}
