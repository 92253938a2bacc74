import { expect, test } from "vitest";
import type { Broker } from "../../../src/broker.ts";
import { readConfig } from "../../../src/config.ts";
import { BrokerError } from "../../../src/errors.ts";
import { ensureSandbox, firstSteps, type FirstStepServices } from "../../../src/start/first-steps.ts";
import { NotedAudit } from "../../support/noted-audit.ts";

const sandbox = { id: "sandbox", provider: "sandbox" };
const credentials = { clientId: "sandbox", clientSecret: "secret" };

/** A broker's clients and connections, as far as the first steps go. */
function createBroker(connections: Record<string, string> = {}, clients: string[] = [], provider = "sandbox") {
  const services: FirstStepServices = {
    findConnection: async (name) => {
      const status = connections[name];
      return status === undefined ? null : { id: name, provider, status };
    },
    createClient: async ({ name }) => {
      if (clients.includes(name)) throw new BrokerError("conflict", "taken");
      clients.push(name);
    },
    createConnection: async ({ name, client }) => {
      if (!clients.includes(client)) throw new BrokerError("invalid_request", "no such client");
      if (connections[name] !== undefined) throw new BrokerError("conflict", "taken");
      connections[name] = "pending";
    },
  };
  return { services, connections, clients };
}

test("a first start makes client and connection", async () => {
  const { services, connections, clients } = createBroker();
  expect(await ensureSandbox(services, credentials)).toEqual({ ...sandbox, status: "pending" });
  expect({ connections, clients }).toEqual({ connections: { sandbox: "pending" }, clients: ["sandbox"] });
});

test("a later start changes nothing", async () => {
  const { services, clients } = createBroker({ sandbox: "connected" });
  expect(await ensureSandbox(services, credentials)).toEqual({ ...sandbox, status: "connected" });
  expect(clients).toEqual([]);
});

test("a client that is left of a deleted connection is used again", async () => {
  const { services, connections } = createBroker({}, ["sandbox"]);
  await ensureSandbox(services, credentials);
  expect(connections).toEqual({ sandbox: "pending" });
});

test("two starts at once end with one of each", async () => {
  const { services, connections, clients } = createBroker();
  await Promise.all([ensureSandbox(services, credentials), ensureSandbox(services, credentials)]);
  expect({ connections, clients }).toEqual({ connections: { sandbox: "pending" }, clients: ["sandbox"] });
});

test("a connection of that name at another provider is not the sandbox's: no link to it is printed", async () => {
  const { services, clients } = createBroker({ sandbox: "pending" }, [], "foreign");
  const problem = 'The connection "sandbox" is one of the provider "foreign".';
  await expect(ensureSandbox(services, credentials)).rejects.toThrow(new BrokerError("conflict", problem));
  expect(clients).toEqual([]);
});

test("any other fault is reported", async () => {
  const { services } = createBroker();
  services.createClient = async () => await Promise.reject(new BrokerError("storage_unavailable", "gone"));
  await expect(ensureSandbox(services, credentials)).rejects.toThrow("gone");
});

/** What a start prints of the sandbox. */
async function printed(status: string, env: Record<string, string>): Promise<string> {
  const broker = {
    sandbox: { clientId: "sandbox", clientSecret: () => "secret" },
    records: { findByName: async () => ({ ...sandbox, status }) },
    hasOldSandboxSecret: async () => false,
    audit: { begin: async () => null, end: async () => {} },
    consent: { links: { create: async () => ({ url: "http://localhost:8080/connect/l1" }) } },
    adminKeyFile: null,
  } as unknown as Broker;
  const given = { env: { ADMIN_KEY: "x".repeat(32) }, file: null };
  return await firstSteps(broker, { config: readConfig(env), given, log: { warn: () => {} } });
}

test("where only apps may connect accounts, a start prints no link, and says what makes one", async () => {
  expect(await printed("pending", {})).toContain("http://localhost:8080/connect/l1");
  const strict = { CONSENT_COMPLETION: "app" };
  const text = await printed("pending", strict);
  expect(text).not.toContain("/connect/");
  expect(text).toContain("CONSENT_COMPLETION=app lets only an app connect accounts");
  expect(text).toContain("set RETURN_ORIGINS to the origin of your app");
  const withApp = await printed("pending", { ...strict, RETURN_ORIGINS: "https://app.example" });
  expect(withApp).toContain("(RETURN_ORIGINS): https://app.example.");
  expect(await printed("connected", strict)).toContain("/tokens/sandbox");
});

test("what a start makes stands in the audit, by the broker itself: client, connection and link, and a client that another start has made", async () => {
  const { services, clients } = createBroker();
  const audit = new NotedAudit();
  const broker = {
    sandbox: { clientId: "sandbox", clientSecret: () => "secret" },
    records: { findByName: async (name: string) => await services.findConnection(name) },
    clients: { create: async (_by: unknown, client: Made) => await services.createClient(client) },
    connections: { create: async (_by: unknown, connection: Made) => await services.createConnection(connection) },
    consent: { links: { create: async () => ({ id: "link-1", url: "http://localhost/connect/x" }) } },
    audit,
    hasOldSandboxSecret: async () => false,
    adminKeyFile: null,
  } as unknown as Broker;
  const config = readConfig({});
  const options = { config, given: { env: {}, file: null }, log: { warn() {} } };
  await firstSteps(broker, options);
  const made = ["clients.create", "connections.create", "links.create"];
  expect(audit.lines()).toEqual(made.map((action) => `system - ${action} sandbox: ok`));
  expect(audit.entries.at(-1)?.outcome?.detail).toEqual({ link: "link-1" });
  await firstSteps({ ...broker, records: { findByName: async () => null } } as unknown as Broker, options);
  expect([clients, audit.lines()[3]]).toEqual([["sandbox"], "system - clients.create sandbox: conflict"]);
});

/** What clients and connections are made from. */
type Made = Parameters<FirstStepServices["createClient"]>[0] & Parameters<FirstStepServices["createConnection"]>[0];
