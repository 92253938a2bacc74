import { expect, it } from "vitest";
import { createClientService } from "../../../src/services/clients.ts";
import { requireCredentials } from "../../../src/services/new-connection.ts";
import { bootstrapKeyId, type Principal } from "../../../src/callers/principal.ts";
import { noAlarms } from "../../support/unasked.ts";
import { define } from "../providers/definitions.ts";

const operator: Principal = {
  callerId: bootstrapKeyId,
  labels: {},
  actor: { kind: "key", id: bootstrapKeyId, name: null },
  abilities: ["tokens", "connections", "admin"],
  connections: ["*"],
  expiresAt: null,
};
const definition = define(
  `
grants: [client_credentials, password]
token:
  url: https://login.example/token
  client_auth: body
  headers: { x-client: "{client.id}", x-secret: "{client.secret}" }
  grants:
    client_credentials: { fields: {} }
    password: { fields: { username: "{credentials.username}", password: "{credentials.password}" } }`,
  "id: own",
);
const odd = "a\u4e00";

/** The service under test. If it stored something, it would call a method that is missing here. */
function serve() {
  const stored = { id: "c-1", name: "app", provider: "own", patterns: ["*"], inputs: {}, secret: null, mac: "proof" };
  const parts = {
    catalog: { get: () => definition, list: async () => [definition] },
    clients: { findByName: async () => stored, asItStands: async () => stored, isWithin: async () => true },
    vault: { clients: { check: () => undefined } },
    alarms: noAlarms,
  };
  return createClientService(parts as unknown as Parameters<typeof createClientService>[0]);
}
const client = {
  name: "app",
  provider: "own",
  clientId: "app",
  clientSecret: "secret",
  scopes: [],
  patterns: ["*"],
  inputs: {},
};

it.each([
  ["client_id", { clientId: odd }],
  ["client_secret", { clientSecret: odd }],
])(
  "a %s that a header cannot carry is refused when a client is made or changed, by its name and without its value",
  async (field, changes) => {
    const error = {
      code: "invalid_request",
      message: expect.stringMatching(new RegExp(`^${field}: is sent in a header`)),
    };
    const service = serve();
    await expect(service.create(operator, { ...client, ...changes })).rejects.toMatchObject(error);
    await expect(service.patch(operator, "app", changes)).rejects.toMatchObject(error);
    await expect(service.patch(operator, "app", changes)).rejects.not.toThrow(odd);
  },
);

it("credentials that a header cannot carry are refused by their name; in a body any text goes", () => {
  const { password: own } = definition.exchanges;
  if (own === undefined) throw new Error("the definition has no password grant");
  // No setting of a definition puts credentials into a header yet.
  const headers = { "x-user": "{credentials.username}" };
  const inHeader = { ...definition, exchanges: { ...definition.exchanges, password: { ...own, headers } } };
  const check = (username: string, password: string) =>
    requireCredentials(inHeader, "password", { username, password });
  expect(() => check(odd, "p")).toThrow(/^credentials\.username: is sent in a header/);
  expect(check("u", odd)).toEqual({ username: "u", password: odd });
});
