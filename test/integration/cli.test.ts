import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { ScriptedBrowser } from "../support/scripted-browser.ts";
import { walkConsent } from "../support/walk-consent.ts";

const entry = fileURLToPath(new URL("../../src/cli/freshet.ts", import.meta.url));
let broker: BrokerProcess;

beforeAll(async () => {
  // The sandbox's client and connection are there after the first start.
  broker = await startBroker();
});

afterAll(async () => {
  await broker[Symbol.asyncDispose]();
});

/** The command as a shell would start it. `result` comes when it has ended, `firstLine` when it has said something. */
function freshet(args: string[], { stdin = "", env = {} }: { stdin?: string; env?: Record<string, string> } = {}) {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { FRESHET_URL: broker.url, FRESHET_KEY: broker.adminKey, ...env },
  });
  const said = { out: "", err: "" };
  child.stdout.on("data", (chunk) => (said.out += String(chunk)));
  child.stderr.on("data", (chunk) => (said.err += String(chunk)));
  child.stdin.end(stdin);
  const ended = once(child, "close");
  const firstLine = async () => {
    while (!said.out.includes("\n") && child.exitCode === null) await Promise.race([once(child.stdout, "data"), ended]);
    return said.out.split("\n")[0] ?? "";
  };
  const result = async () => {
    await ended;
    return { exitCode: child.exitCode, ...said };
  };
  return { said, firstLine, result, isRunning: () => child.exitCode === null };
}

const run = async (...given: Parameters<typeof freshet>) => await freshet(...given).result();

async function connect(name: string) {
  const waiting = freshet(["connect", name]);
  const link = await waiting.firstLine();
  expect(link).toMatch(new RegExp(`^${broker.publicUrl}/connect/`));
  expect(waiting.isRunning()).toBe(true);
  expect((await walkConsent(link)).status).toBe(200);
  return await waiting.result();
}

test("from nothing to a fresh token and back to nothing, by commands alone", async () => {
  expect(
    await run(["connections", "add", "acme", "--provider", "sandbox", "--client", "sandbox", "--label", "team=a"]),
  ).toEqual({
    exitCode: 0,
    out: "Connection acme is pending. Connect it with: freshet connect acme\n",
    err: "",
  });
  expect(await run(["token", "acme"])).toMatchObject({ exitCode: 1, out: "" });
  expect(await connect("acme")).toMatchObject({
    exitCode: 0,
    out: expect.stringMatching(/\nConnection acme is connected\.\n$/),
  });

  const token = await run(["token", "acme"]);
  expect(token).toMatchObject({ exitCode: 0, err: "" });
  const whole = await run(["token", "acme", "--json", "--min-ttl", "1"]);
  expect(JSON.parse(whole.out)).toMatchObject({ access_token: token.out.trim(), connection: "acme", version: 1 });

  expect((await run(["connections", "list", "--label", "team:a"])).out).toMatch(
    /^NAME +PROVIDER +STATUS .*\nacme +sandbox +connected .*team=a\n$/,
  );
  expect((await run(["connections", "show", "acme"])).out).toMatch(/^status: +connected$/m);
  expect(await run(["clients", "delete", "sandbox"])).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/^freshet: .* \(conflict\)\n$/),
  });
  expect(await run(["connections", "delete", "acme"])).toMatchObject({
    exitCode: 0,
    out: "Connection acme is deleted.\n",
  });
  expect(await run(["token", "acme"])).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/^freshet: .* \(connection_not_found\)\n$/),
  });
});

test("connect waits for a new consent where the connection is connected already", async () => {
  await run(["connections", "add", "again", "--provider", "sandbox", "--client", "sandbox"]);
  await connect("again");
  expect(await connect("again")).toMatchObject({ exitCode: 0 });
  expect(JSON.parse((await run(["token", "again", "--json"])).out)).toMatchObject({ version: 3 });
  expect((await freshet(["connect", "again", "--timeout", "2"]).result()).err).toMatch(/\(not_connected\)\n$/);
});

test("a denial is told, and the link goes on", async () => {
  await run(["connections", "add", "shy", "--provider", "sandbox", "--client", "sandbox"]);
  const waiting = freshet(["connect", "shy"]);
  const link = await waiting.firstLine();
  const browser = new ScriptedBrowser();
  await walkConsent(link, { decision: "deny", browser });
  await expect.poll(() => waiting.said.err, { timeout: 20_000 }).toContain("consent_denied");
  expect((await walkConsent(link, { browser })).status).toBe(200);
  expect(await waiting.result()).toMatchObject({ exitCode: 0 });
});

test("a service's key reads what it is for, and nothing after it is revoked", async () => {
  await run(["connections", "add", "svc-a", "--provider", "sandbox", "--client", "sandbox"]);
  await connect("svc-a");
  const created = await run(["keys", "add", "billing", "--ability", "tokens", "--connection", "svc-*", "--json"]);
  const { id, key }: { id: string; key: string } = JSON.parse(created.out);
  const env = { FRESHET_KEY: key };
  expect(await run(["token", "svc-a"], { env })).toMatchObject({ exitCode: 0 });
  expect(await run(["connections", "list"], { env })).toMatchObject({
    exitCode: 1,
    err: expect.stringContaining("(forbidden)"),
  });
  expect((await run(["keys", "list"])).out).toMatch(new RegExp(`^${id} +billing +tokens +svc-\\*`, "m"));
  expect(await run(["keys", "revoke", id])).toMatchObject({ exitCode: 0, out: `Key ${id} is revoked.\n` });
  await expect
    .poll(async () => (await run(["token", "svc-a"], { env })).err, { timeout: 20_000 })
    .toContain("(unauthenticated)");
});

test("a client is stored with a secret that no answer shows, and a token set is handed over", async () => {
  const secret = "cli-secret-canary";
  const add = [
    "clients",
    "add",
    "mine",
    "--provider",
    "sandbox",
    "--client-id",
    "my-id",
    "--client-secret-file",
    "-",
    "--json",
  ];
  const added = await run(add, { stdin: `${secret}\n` });
  expect(added).toMatchObject({ exitCode: 0, err: "" });
  const shown = await run(["clients", "show", "mine", "--json"]);
  const listed = await run(["clients", "list"]);
  expect(listed.out).toMatch(/^mine +sandbox +my-id +true /m);
  expect(added.out + shown.out + listed.out).not.toContain(secret);

  await run(["connections", "add", "given", "--provider", "sandbox", "--client", "mine", "--grant", "import"]);
  const set = JSON.stringify({ access_token: "at-by-hand", expires_in: 3600, token_type: "bearer" });
  expect(await run(["import", "given", "--file", "-"], { stdin: set })).toEqual({
    exitCode: 0,
    out: "Connection given is connected.\n",
    err: "",
  });
  expect((await run(["token", "given"])).out).toBe("at-by-hand\n");
});

test("providers are listed with the address to register, and a file is checked without a broker", async () => {
  expect((await run(["providers", "list"])).out).toContain(broker.redirectUri("sandbox"));
  expect(JSON.parse((await run(["providers", "show", "sandbox", "--json"])).out)).toMatchObject({ id: "sandbox" });
  const file = fileURLToPath(new URL("../../providers/bol.yaml", import.meta.url));
  const offline = { FRESHET_URL: "http://127.0.0.1:1", FRESHET_KEY: "" };
  expect(await run(["providers", "check", file], { env: offline })).toMatchObject({ exitCode: 0 });
  const wrong = fileURLToPath(new URL("../../package.json", import.meta.url));
  const result = await run(["providers", "check", wrong], { env: offline });
  expect(result).toMatchObject({ exitCode: 1, out: "", err: expect.stringMatching(/\(invalid_provider_file\)\n$/) });
  expect(result.err).toContain(`${wrong}:`);
});

test("on the broker's own machine its key file is enough", async () => {
  await using own = await startBroker({ env: { ADMIN_KEY: undefined } });
  const key = (await readFile(join(own.dataDir, "admin-key"), "utf8")).trim();
  const env = { FRESHET_URL: own.url, FRESHET_KEY: "", DATA_DIR: own.dataDir };
  expect(await run(["clients", "list"], { env })).toMatchObject({ exitCode: 0, err: "" });
  expect(await run(["clients", "list"], { env: { FRESHET_URL: own.url, FRESHET_KEY: key } })).toMatchObject({
    exitCode: 0,
  });
});
