import { expect, test } from "vitest";
import { planConnection, type PlanParts } from "../../../src/services/new-connection.ts";
import type { Principal } from "../../../src/callers/principal.ts";
import type { ClientRow } from "../../../src/store/clients.ts";
import { catalogWith } from "../providers/definitions.ts";

const own = `id: own
grants: [authorization_code, client_credentials]
authorization: { url: https://x.example, scope: { default: [read], required: [person] } }
token:
  url: https://x.example/token
  grants: { client_credentials: { scope: { required: [machine] } } }
`;
const client = {
  name: "app",
  provider: "own",
  secret: new Uint8Array(1),
  scopes: ["read"],
  patterns: ["*"],
  inputs: {},
};
const principal = { abilities: ["connections"], connections: ["*"] } as unknown as Principal;
const parts = {
  catalog: catalogWith({ "own.yaml": own }),
  clients: { findServing: async () => client as unknown as ClientRow },
  randomBytes: (size: number) => new Uint8Array(size),
} as unknown as PlanParts;

test("a client that is limited to scopes may be used with those that the connection's own grant requires, and no others", async () => {
  const request = { name: "c", provider: "own", client: "app", inputs: {}, credentials: null, labels: {} };
  const scopesOf = async (grant: string, scopes: string[] | null) =>
    (await planConnection(parts, principal, { ...request, grant, scopes })).scopes;
  expect(await scopesOf("authorization_code", null)).toEqual(["read", "person"]);
  expect(await scopesOf("client_credentials", null)).toEqual(["read", "machine"]);
  await expect(scopesOf("client_credentials", ["person"])).rejects.toMatchObject({ code: "invalid_request" });
  await expect(scopesOf("authorization_code", ["machine"])).rejects.toMatchObject({ code: "invalid_request" });
});
