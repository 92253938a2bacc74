import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { finished } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify, stripVTControlCharacters } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openTerminal } from "../../src/cli/output.ts";
import { runFreshet } from "../../src/cli/program.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { BrokerApi } from "../support/broker-api.ts";
import { type BrokerProcess, compileCache, startBroker } from "../support/broker-process.ts";
import { patience, until } from "../support/patience.ts";
import { Apicbase } from "../support/providers/apicbase.ts";
import { Bakeronline } from "../support/providers/bakeronline.ts";
import { Bol } from "../support/providers/bol.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { Shopware } from "../support/providers/shopware.ts";
import type { StrictServer } from "../support/providers/strict-server.ts";
import { ScriptedBrowser } from "../support/scripted-browser.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { approve, walkConsent } from "../support/walk-consent.ts";
import { AbleProvider } from "./abilities/support/able-provider.ts";

const entry = fileURLToPath(new URL("../../bin/freshet.cjs", import.meta.url));
const encryptionKey = randomBytes(32);
let broker: BrokerProcess;
/** As the broker has made it. */
let adminKey: string;
let able: AbleProvider;
/** Stand-ins for the systems that the documents connect first. */
const systems = { bakery: new Bakeronline(), kitchen: new Apicbase(), shop: new Shopware(), bol: new Bol() };
const allSystems = Object.values(systems);

beforeAll(async () => {
  able = await new AbleProvider().start();
  await Promise.all(allSystems.map((system) => system.start()));
  const device = { url: `${able.origin}/device` };
  const definition = able.definition("able", { grants: ["device_code"], device, after_connect: [able.lookup()] });
  const inside = able.definition("inside", {
    grants: ["client_credentials"],
    token: { url: "https://10.9.8.7/token" },
  });
  const byConsent = able.definition("long", {}); // its tokens live an hour, those of the sandbox a minute and a half
  // The sandbox's client and connection are there after the first start.
  broker = await startBroker({
    providersDir: await providersFolder({ definitions: () => [definition, byConsent, inside] }, ...allSystems),
    env: { ENCRYPTION_KEYS: `k1:${encryptionKey.toString("base64")}`, ADMIN_KEY: undefined },
  });
  adminKey = (await readFile(join(broker.dataDir, "admin-key"), "utf8")).trim();
  const api = new BrokerApi(broker.url, adminKey);
  const { id: client_id, secret: client_secret } = able.client;
  await api.createClient({ name: "long", provider: "long", client_id, client_secret });
  await api.createClient({ name: "inside", provider: "inside", client_id, client_secret });
  await api.close();
  able.redirectUris.add(broker.redirectUri("long"));
});

afterAll(async () => {
  await broker[Symbol.asyncDispose]();
  await Promise.all([able, ...allSystems].map((server) => server.stop()));
});

/**
 * A command line in this process, over streams of its own; test/unit/cli/entry.test.ts starts it as a shell does. `result` comes when
 * it has ended, `firstLine` when it has said something.
 */
function freshet(
  args: string[],
  {
    stdin = "",
    env = {},
    isTTY = false,
  }: { stdin?: string | null; env?: Record<string, string>; isTTY?: boolean } = {},
) {
  const streams = {
    stdin: Object.assign(new PassThrough(), { isTTY }),
    stdout: new PassThrough(),
    stderr: Object.assign(new PassThrough(), { isTTY }),
  };
  const said = { out: "", err: "" };
  streams.stdout.on("data", (chunk) => (said.out += String(chunk)));
  streams.stderr.on("data", (chunk) => (said.err += String(chunk)));
  if (stdin !== null) streams.stdin.end(stdin);
  let exitCode: number | null = null;
  const ended = runFreshet(args, {
    terminal: openTerminal(streams),
    env: { FRESHET_URL: broker.url, FRESHET_KEY: adminKey, ...env },
    nowMs: Date.now,
    sleep: (milliseconds) => sleep(milliseconds / 10), // nobody waits for a person here
  }).then((code) => (exitCode = code));
  const isRunning = () => exitCode === null;
  const firstLine = async () => {
    await until("a line", () => said.out.includes("\n") || !isRunning());
    return said.out.split("\n")[0] ?? "";
  };
  const result = async () => {
    await ended;
    streams.stdout.end();
    streams.stderr.end();
    await Promise.all([finished(streams.stdout), finished(streams.stderr)]);
    return { exitCode, ...said };
  };
  const type = (line: string) => void streams.stdin.write(`${line}\n`);
  return { said, firstLine, result, type, isRunning };
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
    await run(["connections", "add", "acme", "--provider", "long", "--client", "long", "--label", "team=a"]),
  ).toEqual({
    exitCode: 0,
    out: "Connection acme is pending. Connect it with: freshet connect acme\n",
    err: "Grant: authorization_code; long offers import too: --grant chooses.\n",
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
    /^NAME +PROVIDER +STATUS .*\nacme +long +connected .*team=a\n$/,
  );
  expect((await run(["connections", "show", "acme"])).out).toMatch(/^status: +connected$/m);
  expect(await run(["clients", "delete", "long"])).toMatchObject({
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
  await run(["connections", "add", "again", "--provider", "long", "--client", "long"]);
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
  await expect.poll(() => waiting.said.err, patience).toContain("consent_denied");
  expect((await walkConsent(link, { browser })).status).toBe(200);
  expect(await waiting.result()).toMatchObject({ exitCode: 0 });
});

test("a client that its provider refuses ends the wait, and the same link connects once the client is corrected", async () => {
  const line = ["connect", "mistaken", "--provider", "long", "--client", "mistaken", "--client-id", able.client.id];
  const waiting = freshet(line, { env: { FRESHET_CLIENT_SECRET: "wrong" } });
  const link = await waiting.firstLine();
  const browser = new ScriptedBrowser();
  await walkConsent(link, { browser });
  expect(await waiting.result()).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(
      /long refuses .* clients update mistaken --client-secret-file .* \(client_rejected\)\n$/,
    ),
  });
  const corrected = { env: { FRESHET_CLIENT_SECRET: able.client.secret } };
  expect(await run(["clients", "update", "mistaken"], corrected)).toMatchObject({ exitCode: 0 });
  expect((await walkConsent(link, { browser })).status).toBe(200);
  expect((await run(["connections", "show", "mistaken"])).out).toMatch(/^status: +connected$/m);
});

/** The lines of a document's walk, from its heading to the end of its first block. */
async function linesOfWalk(document: string, heading: string): Promise<string[]> {
  const text = await readFile(new URL(`../../${document}`, import.meta.url), "utf8");
  return (
    /```sh\n(.*?)```/s
      .exec(text.split(`## ${heading}\n`)[1] ?? "")?.[1]
      ?.trim()
      .split("\n") ?? []
  );
}

/** A person at a terminal: registers the address that is said, answers what is asked, opens the link that is printed and agrees. */
async function typeAt(line: string, system: StrictServer | undefined) {
  const words = line.split(" ").slice(1);
  const running = freshet(words, { stdin: null, isTTY: true });
  const { said } = running;
  const answers: [asked: RegExp, answer: () => string][] = [
    [/Client id.*: $/, () => system?.client.id ?? ""],
    [/Client secret.*: $/, () => system?.client.secret ?? ""],
    [/shop_url.*: $/, () => system?.origin ?? ""],
  ];
  let answered = 0;
  let visited = "";
  await until(`an end of ${line}`, async () => {
    const last = said.err.slice(answered);
    const [, uri] = /Redirect URI to register there: (\S+)\n/.exec(said.err) ?? [];
    if (uri !== undefined) system?.redirectUris.add(uri);
    const link = /^http\S+\/connect\/\S+$/m.exec(said.out)?.[0];
    const [, answer] = answers.find(([asked]) => asked.test(stripVTControlCharacters(last))) ?? [];
    if (answer !== undefined) {
      answered = said.err.length;
      running.type(answer());
    } else if (link !== undefined && visited === "") {
      visited = link;
      expect((await walkConsent(link)).status).toBe(200);
    }
    return !running.isRunning();
  });
  return await running.result();
}

test("the documents' eight commands, and nothing else, connect the four systems", async () => {
  const lines = await linesOfWalk("docs/cli.md", "Four systems in eight commands");
  expect(await linesOfWalk("README.md", "Your first connections")).toEqual(lines);
  expect(lines).toHaveLength(8);
  const [start, alias, ...commands] = lines;
  expect([start, alias]).toEqual(["npm ci && npm start", "alias freshet='npm run -s freshet --'"]);
  const outs: string[] = [];
  for (const command of commands) {
    const system = Object.entries(systems).find(([name]) => command.includes(`acme-${name} --provider`))?.[1];
    const { exitCode, out, err } = await typeAt(command, system);
    expect({ exitCode, out, err }, command).toMatchObject({ exitCode: 0 });
    outs.push(out);
    if (system?.client.secret) expect(out + err).not.toContain(system.client.secret);
  }
  const [list = "", token = ""] = outs.slice(-2);
  for (const name of Object.keys(systems)) expect(list).toMatch(new RegExp(`^acme-${name} +\\w+ +connected `, "m"));
  expect(systems.bol.ledger.tokens.map(({ value }) => value)).toContain(token.trim());
});

test("a wrong secret leaves nothing behind, and the same line with the right one connects", async () => {
  const line = [
    "connect",
    "second-bol",
    "--provider",
    "bol",
    "--client",
    "second",
    "--client-id",
    systems.bol.client.id,
  ];
  const connectWith = async (secret: string) =>
    await run([...line, "--grant", "client_credentials"], { env: { FRESHET_CLIENT_SECRET: secret } });
  expect(await connectWith("wrong")).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/Client second is deleted again.*\n.* \(provider_rejected\)\n$/),
  });
  expect(await connectWith(systems.bol.client.secret)).toMatchObject({
    exitCode: 0,
    out: "Connection second-bol is connected.\n",
  });
});

test("a connection is disabled, enabled, changed and looked back on, and a mistyped name is told as it was meant", async () => {
  await run(["connections", "add", "laps", "--provider", "sandbox", "--client", "sandbox"]);
  expect((await run(["connections", "disable", "laps"])).out).toBe("Connection laps is disabled.\n");
  expect((await run(["connections", "enable", "laps"])).out).toBe("Connection laps is pending.\n");
  expect(await run(["connections", "update", "laps", "--label", "team=b"])).toMatchObject({ exitCode: 0 });
  expect((await run(["connections", "show", "laps"])).out).toMatch(/^labels: +team=b$/m);
  expect(await run(["connections", "update", "laps", "--no-labels"])).toMatchObject({ exitCode: 0 });
  expect((await run(["connections", "show", "laps"])).out).toMatch(/^labels: +-$/m);
  expect((await run(["connections", "events", "laps"])).out).toMatch(/ enabled .*\n.* disabled [^]* created /);
  expect((await run(["connections", "show", "lapps"])).err).toMatch(
    /Did you mean "laps"\? \(connection_not_found\)\n$/,
  );
  expect((await run(["connections", "add", "x", "--provider", "boll"])).err).toMatch(
    /Did you mean "bol"\? \(not_found\)/,
  );
});

test("a key for other connections is told no name that it may not see", async () => {
  await run(["connections", "add", "own-a", "--provider", "sandbox", "--client", "sandbox"]);
  const created = await run(["keys", "add", "narrow", "--ability", "connections", "--connection", "other-*", "--json"]);
  const { key }: { key: string } = JSON.parse(created.out);
  const { err } = await run(["connections", "show", "own-b"], { env: { FRESHET_KEY: key } });
  expect(err).toBe("freshet: There is no connection of this name for this key. (connection_not_found)\n");
  const add = ["connections", "add", "other-a", "--provider", "boll", "--client", "sandbox"];
  expect((await run(add, { env: { FRESHET_KEY: key } })).err).toMatch(
    /"boll" is not known; known are .* Did you mean "bol"\? \(invalid_request\)\n$/,
  );
});

test("a refresh token that another connection holds: its name is told to a key that may see it, and to no other", async () => {
  await run(["clients", "add", "held", "--provider", "long", "--client-id", "i", "--connections", "held-*"], {
    env: { FRESHET_CLIENT_SECRET: "s" },
  });
  for (const name of ["held-a", "held-b"]) {
    await run(["connections", "add", name, "--provider", "long", "--client", "held", "--grant", "import"]);
  }
  const tokens = { FRESHET_REFRESH_TOKEN: "rt-of-one", FRESHET_ACCESS_TOKEN: "at-of-one" };
  expect(await run(["import", "held-a"], { env: tokens })).toMatchObject({ exitCode: 0 });
  expect((await run(["import", "held-b"], { env: tokens })).err).toMatch(
    /^freshet: The connection "held-a" holds the same refresh token; .* \(duplicate_grant\)\n$/,
  );
  const add = ["keys", "add", "narrow", "--ability", "connections", "--connection", "held-b", "--json"];
  const { key }: { key: string } = JSON.parse((await run(add)).out);
  expect((await run(["import", "held-b"], { env: { ...tokens, FRESHET_KEY: key } })).err).toBe(
    "freshet: Another connection of this client holds the same refresh token; two would invalidate each other's. (duplicate_grant)\n",
  );
});

test("an address that this broker does not reach is its own refusal, with what allows it, not the provider's", async () => {
  const { out } = await run(["connections", "add", "inside", "--provider", "inside", "--client", "inside"]);
  const said = /10\.9\.8\.7 may not be reached: the egress rules of this broker .*put 10\.9\.8\.7\/32 into `networks`/;
  expect(out).toMatch(said);
  const { err } = await run(["token", "inside"]);
  expect(err).toMatch(said);
  expect(err).toMatch(/^freshet: This broker refuses to ask the provider: .* \(provider_unavailable\)\n$/);
  expect(err).not.toContain("answer");
});

test("a code that a person copied from the provider's page is handed in", async () => {
  const { kitchen } = systems;
  await run(["clients", "add", "copied", "--provider", "apicbase", "--client-id", kitchen.client.id], {
    env: { FRESHET_CLIENT_SECRET: kitchen.client.secret },
  });
  await run(["connections", "add", "copied", "--provider", "apicbase", "--client", "copied", "--scope", "accounts"]);
  const address = `${kitchen.origin}/oauth/authorize/?response_type=code&client_id=${kitchen.client.id}&scope=accounts`;
  const code = (await approve(address)).searchParams.get("code") ?? "";
  expect(await run(["connections", "code", "copied", "--code-file", "-"], { stdin: `${code}\n` })).toMatchObject({
    exitCode: 0,
    out: "Connection copied is connected.\n",
  });
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
  await expect.poll(async () => (await run(["token", "svc-a"], { env })).err, patience).toContain("(unauthenticated)");
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
  expect(added).toMatchObject({
    exitCode: 0,
    err: expect.stringContaining("clients update mine --connections PATTERN"),
  });
  const shown = await run(["clients", "show", "mine", "--json"]);
  const listed = await run(["clients", "list"]);
  expect(listed.out).toMatch(/^mine +sandbox +my-id +true /m);
  expect(added.out + shown.out + listed.out).not.toContain(secret);

  await run(["connections", "add", "given", "--provider", "sandbox", "--client", "mine", "--grant", "import"]);
  const set = JSON.stringify({ access_token: "at-by-hand", expires_in: 3600, token_type: "bearer" });
  expect(await run(["import", "given", "--file", "-"], { stdin: set })).toEqual({
    exitCode: 0,
    out: "Connection given is connected.\n",
    err: expect.stringMatching(/^freshet: warning: There is no refresh token: .* \(no_refresh_token\)\n$/),
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

test("a device_code connection is connected with a code, and another account waits for a word", async () => {
  const client = ["clients", "add", "able", "--provider", "able", "--client-id", able.client.id];
  await run(client, { env: { FRESHET_CLIENT_SECRET: able.client.secret } });
  const add = ["connections", "add", "tv", "--provider", "able", "--client", "able", "--grant", "device_code"];
  expect((await run(add)).out).toContain("Connect it with: freshet connect tv");
  const connectAs = async (account: string) => {
    able.account = account;
    const waiting = freshet(["connect", "tv"]);
    const [userCode = "", address] = (await waiting.firstLine()).split("  ");
    expect(address).toBe(`${able.origin}/activate`);
    expect(waiting.isRunning()).toBe(true);
    able.devices.answer(userCode, "approved");
    return await waiting.result();
  };
  expect(await connectAs("ada")).toMatchObject({ exitCode: 0, out: expect.stringContaining("tv is connected.\n") });
  expect(await connectAs("bob")).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/freshet connections confirm tv --accept, or --decline \(account_changed\)\n$/),
  });
  expect((await run(["connections", "show", "tv"])).out).toMatch(/^account: +ada$/m);
  expect(await run(["connections", "confirm", "tv", "--accept"])).toEqual({
    exitCode: 0,
    out: "Connection tv has the other account from now on.\n",
    err: "",
  });
  expect((await run(["connections", "show", "tv"])).out).toMatch(/^account: +bob$/m);
  expect(await run(["connections", "confirm", "tv", "--decline"])).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/\(not_found\)\n$/),
  });
});

test("a definition is tried against a real server without the broker, and no secret is said", async () => {
  const url = `${broker.publicUrl}/sandbox`;
  const file = join((await temporaryFolder("try")).path, "own.yaml");
  const definition = {
    id: "own",
    authorization: { url: `${url}/authorize`, scope: { default: ["read"] } },
    token: { url: `${url}/token` },
    refresh: { rotation: "always" },
    revocation: { url: `${url}/revoke` },
    after_connect: [{ request: { url: `${url}/api/me` }, pointer: "/account" }],
  };
  await writeFile(file, JSON.stringify(definition)); // JSON is YAML
  const secret = createKeyring([{ id: "k1", key: encryptionKey }]).sign("sandbox client", "sandbox");
  const env = { FRESHET_CLIENT_SECRET: secret, FRESHET_KEY: "", PROVIDER_NETWORKS: "127.0.0.0/8,::1/128" };
  const args = ["--client-id", "sandbox", "--redirect-uri", broker.redirectUri("sandbox"), "--revoke"];
  const trying = freshet(["providers", "try", file, ...args], { stdin: null, env });
  const address = () => /^http\S+\/authorize\?\S+$/m.exec(trying.said.out)?.[0];
  await expect.poll(address, patience).toBeDefined();
  const callback = await approve(address() ?? "");
  trying.type(callback.href);
  const { exitCode, out, err } = await trying.result();
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: expect.stringContaining("Paste the whole address") });
  expect(out).toContain("expires in 90 s");
  expect(out).toContain("= the refresh token that was sent: replaced by a new one");
  expect(out).toMatch(/^= account: sandbox$/m);
  expect(out).toMatch(/revocation of the refresh_token answer\n< 200/);
  const code = callback.searchParams.get("code") ?? "none";
  for (const hidden of [secret, code, Buffer.from(`sandbox:${secret}`).toString("base64")]) {
    expect(out + err).not.toContain(hidden);
  }
  expect(out.split("\n").filter((line) => /eyJ|frt_|[\w-]{60,}/.test(line) && !line.startsWith("http"))).toEqual([]);
});

test("on the broker's own machine its key file is enough, which its log names without the key", async () => {
  const given = { FRESHET_URL: broker.url, DATA_DIR: broker.dataDir };
  const env = { ...given, NODE_COMPILE_CACHE: compileCache };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [entry, "clients", "list"], { env });
  expect([stdout, stderr]).toEqual([expect.stringMatching(/^sandbox +sandbox /m), ""]);
  expect(broker.stdout).toContain(join(broker.dataDir, "admin-key"));
  expect(broker.stdout + broker.stderr).not.toContain(adminKey);
});
