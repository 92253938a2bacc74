import { once } from "node:events";
import { createServer } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { until } from "../support/patience.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import type { DefinitionFile } from "../support/providers/strict-server.ts";
import { ForeignHost } from "./attackers/support/foreign-host.ts";

const words = "inside-words-7f31";

/** Something inside the network, at 127.0.0.1, that gives tokens, or refuses in words of its own. */
async function startInside() {
  const server = createServer((request, response) => {
    const isToken = request.url === "/token";
    response.writeHead(isToken ? 200 : 400, { "content-type": "application/json" });
    const refusal = { error: "invalid_grant", error_description: words };
    response.end(JSON.stringify(isToken ? { access_token: "from-inside", expires_in: 3600 } : refusal));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no port");
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { origin: `http://127.0.0.1:${address.port}`, stop };
}

describe("networks that one definition names", () => {
  const stack = new AsyncDisposableStack();
  let broker: BrokerProcess;
  let neighbour: ForeignHost;
  let inside: Awaited<ReturnType<typeof startInside>>;
  let key = "";

  beforeAll(async () => {
    inside = await startInside();
    stack.defer(() => inside.stop());
    neighbour = stack.use(await ForeignHost.start("127.0.0.2"));
    const machine = { extends: "oauth2", grants: ["client_credentials"] };
    const fixed = { client_auth: "none", grants: { client_credentials: { client_id: "fixed" } } };
    const definitions: DefinitionFile[] = [
      { id: "inside", ...machine, networks: ["127.0.0.0/8"], token: { url: `${inside.origin}/token`, ...fixed } },
      {
        id: "free",
        ...machine,
        networks: ["127.0.0.1/32"],
        inputs: { at: { pattern: "^https?://.+$" } },
        token: { url: "{inputs.at}/refuse", ...fixed },
      },
      { id: "heir", extends: "inside" },
    ];
    const providersDir = await providersFolder({ definitions: () => definitions });
    broker = stack.use(await startBroker({ providersDir, env: { PROVIDER_NETWORKS: undefined } }));
    key = await broker.api.createKey({ name: "team", abilities: ["connections", "tokens"], connections: ["*"] });
  });
  afterAll(async () => await stack.disposeAsync());

  const create = async (body: Record<string, unknown>) => {
    const answer = await broker.api.api("/connections", { method: "POST", key, body });
    const seen = await broker.api.api(`/connections/${String(body["name"])}`, { key });
    return { status: answer.status, text: JSON.stringify([answer.body, seen.body]), seen: seen.body };
  };

  it("let it get its token there, and nobody else: not what extends it, nor a provider whose host a caller names", async () => {
    expect((await create({ name: "good", provider: "inside" })).status).toBe(201);
    expect((await broker.api.token("good", { key })).body.access_token).toBe("from-inside");

    const heir = await create({ name: "heir", provider: "heir" });
    expect(heir.seen).toMatchObject({ status: "pending", last_error: { code: "blocked_address" } });
    const { port } = new URL(neighbour.origin);
    const hosts = ["127.0.0.2", "2130706434", "0x7f000002", "0177.0.0.2", "localhost", "127.2"];
    for (const [index, host] of hosts.entries()) {
      for (const scheme of ["http", "https"]) {
        const inputs = { shop_url: `${scheme}://${host}:${port}` };
        const credentials = { username: "ada", password: "any" };
        const shop = { provider: "shopware", grant: "password", inputs, credentials };
        const { status, text } = await create({ name: `shop-${index}-${scheme}`, ...shop });
        expect([status, /blocked_address|connect_failed/.test(text)], text).toEqual([201, true]);
        expect(text.replaceAll(JSON.stringify(inputs), "")).not.toMatch(/127\.|::1|ECONN|ERR_/);
      }
    }
    const beyond = await create({ name: "beyond", provider: "free", inputs: { at: neighbour.origin } });
    expect(beyond.seen).toMatchObject({ last_error: { code: "blocked_address" } });
    expect([neighbour.connections, neighbour.requests]).toEqual([0, []]);
  });

  it("and what stands there is quoted to nobody, save the log: the host is not one that the definition fixes", async () => {
    const refused = await broker.api.api("/connections", {
      method: "POST",
      key,
      body: { name: "curious", provider: "free", inputs: { at: inside.origin } },
    });
    expect(refused).toMatchObject({ status: 422, body: { code: "provider_rejected" } });
    expect(refused.body["detail"]).toContain("the provider answered 400;");
    expect(JSON.stringify(refused.body)).not.toContain(words);
    await until("the log says more", () => broker.stdout.includes(words));
  });

  it("are shown with each provider: its own, or those for all", async () => {
    const { body } = await broker.api.api<{ items: { id: string; networks: string[] }[] }>("/providers");
    const shown = Object.fromEntries(body.items.map(({ id, networks }) => [id, networks]));
    expect(shown).toMatchObject({ inside: ["127.0.0.0/8"], free: ["127.0.0.1/32"], heir: [], shopware: [] });
    expect(broker.stdout).not.toContain("PROVIDER_NETWORKS counts for every provider");
  });
});
