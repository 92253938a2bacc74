import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { prepareBroker, startBroker, startBrokers } from "../../support/broker-process.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";

// A stand-in for the broker: it is ready after a moment, gives the answers that it was given, and ends normally.
const standIn = `
import { createServer } from "node:http";
if (process.env.FAIL) { console.error("PORT: wrong"); process.exit(2); }
console.log("starting");
const since = Date.now();
createServer((request, response) => {
  if (request.url === "/readyz") response.writeHead(Date.now() - since > 100 ? 200 : 503).end();
  else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({
    auth: request.headers.authorization, env: Object.keys(process.env), keys: process.env.ENCRYPTION_KEYS, url: process.env.PUBLIC_URL,
  }));
}).listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => { console.log("draining"); process.exit(0); });
`;

type Echo = { auth: string; env: string[]; keys: string; url: string };
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let entry: string;

beforeAll(async () => {
  folder = await temporaryFolder("stand-in");
  entry = join(folder.path, "main.mjs");
  await writeFile(entry, standIn);
});

afterAll(async () => {
  await folder.remove();
});

it("a broker is handed out once it is ready, and stops in order", async () => {
  await using broker = await startBroker({ entry });
  expect((await broker.api.api<Echo>("/echo")).body.auth).toBe(`Bearer ${broker.adminKey}`);
  expect(await broker.stop()).toBe(0);
  expect(broker.stdout).toBe("starting\ndraining\n");
});

it("a broker gets nothing of the tests' own environment", async () => {
  process.env["DATABASE_URL"] = "postgresql://elsewhere/";
  await using broker = await startBroker({ entry, env: { LOG_LEVEL: "debug" } });
  delete process.env["DATABASE_URL"];
  const { env } = (await broker.api.api<Echo>("/echo")).body;
  expect(env).not.toContain("DATABASE_URL");
  expect(env).not.toContain("VITEST");
  expect(env).toEqual(expect.arrayContaining(["PORT", "PUBLIC_URL", "DATA_DIR", "ADMIN_KEY", "LOG_LEVEL"]));
});

it("a broker that ends instead of getting ready says why", async () => {
  await expect(startBroker({ entry, env: { FAIL: "1" } })).rejects.toThrow("ended with code 2: PORT: wrong");
});

it("a killed broker is gone, and starts again at the same address", async () => {
  await using broker = await startBroker({ entry });
  await broker.kill();
  await expect(broker.api.api("/echo")).rejects.toThrow();
  await broker.start();
  expect((await broker.api.api("/echo")).status).toBe(200);
});

it("a frozen broker answers nothing until it is thawed", async () => {
  await using broker = await startBroker({ entry });
  broker.freeze();
  const answer = broker.api.api("/echo");
  expect(await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 150, "silence"))])).toBe("silence");
  broker.thaw();
  expect((await answer).status).toBe(200);
});

it("replicas share keys and public address, and nothing else", async () => {
  const brokers = await startBrokers(2, { entry, databaseUrl: "postgresql://db/" });
  const [one, two] = await Promise.all(brokers.map(async (broker) => (await broker.api.api<Echo>("/echo")).body));
  expect(one?.keys).toMatch(/^k1:.{44}$/);
  expect(two).toMatchObject({ keys: one?.keys, url: one?.url, auth: one?.auth });
  expect(new Set(brokers.map((broker) => broker.url)).size).toBe(2);
  expect(new Set(brokers.map((broker) => broker.dataDir)).size).toBe(2);
  await Promise.all(brokers.map((broker) => broker[Symbol.asyncDispose]()));
});

it("a broker dies at a failpoint that was set while it was being made ready", async () => {
  const workers = fileURLToPath(new URL("../../support/faults/example/three-workers.ts", import.meta.url));
  await using broker = await prepareBroker({ entry: workers, failpoints: {} });
  broker.setFailpoints({ here: { action: "kill", after: 3 } });
  broker.launch();
  expect(await broker.ended()).toBe(null);
  expect([broker.stdout, broker.stderr]).toEqual(["", 'failpoint "here": kill, 3 arrived\n']);
});

it("a broker's address is known before it starts", async () => {
  const broker = await prepareBroker({ entry, port: 20_999 });
  expect(broker.redirectUri("acme")).toBe("http://127.0.0.1:20999/callback/acme");
});
