import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer as createWebServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readConfig } from "../../src/config.ts";
import { StartupError } from "../../src/errors.ts";
import { openProviders, openStorage } from "../../src/start/outside.ts";
import { applyMigrationsTo } from "../../src/store/migrate.ts";
import { readDump } from "../contract/upgrade/dump.ts";
import { type BrokerOptions, type BrokerProcess, prepareBroker, startBroker } from "../support/broker-process.ts";
import { isSaid, readStartupTable } from "../support/error-table.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { noAlarms } from "../support/unasked.ts";

type Folder = Awaited<ReturnType<typeof temporaryFolder>>;
type Environment = Record<string, string | undefined>;

const newKey = (id: string) => `${id}:${randomBytes(32).toString("base64")}`;
const encryptionKeys = newKey("k1");

/** A secret of every start in this file. No line of theirs may hold it. */
const canaries = {
  adminKey: `canary-admin-${randomBytes(16).toString("hex")}`,
  metricsKey: `canary-metrics-${randomBytes(8).toString("hex")}`,
  password: "canary-password",
  encryptionKey: encryptionKeys.slice("k1:".length),
};
const secrets = { METRICS_KEY: canaries.metricsKey, REDIS_URL: `redis://:${canaries.password}@127.0.0.1:1` };
const databaseAt = (port: number) => `postgresql://canary-user:${canaries.password}@127.0.0.1:${port}/freshet`;

const rows = readStartupTable();
const tried = new Set<string>();
let folder: Folder;

beforeAll(async () => {
  folder = await temporaryFolder("start-up");
});

afterAll(async () => {
  await folder.remove();
});

/** What docs/errors.md has for what was wrong, with `place` in it, and no secret. */
function expectSaid(text: string, wrong: string, place = ""): void {
  tried.add(wrong);
  expect(isSaid(rows.get(wrong) ?? "no such row", text), text).toBe(true);
  expect(text).toContain(place);
  for (const canary of Object.values(canaries)) expect(text).not.toContain(canary);
}

/** As far as a start goes before it listens, in this process. */
async function open(env: Environment) {
  const usual = { ADMIN_KEY: canaries.adminKey, ENCRYPTION_KEYS: encryptionKeys, ...secrets };
  const config = readConfig({ ...usual, DATA_DIR: join(folder.path, randomUUID()), ...env });
  const log = { info: () => undefined, warn: () => undefined };
  return await openStorage(config, { ...openProviders(config, log), alarms: noAlarms, log });
}

async function openAndClose(env: Environment): Promise<void> {
  const { database, dataDir } = await open(env);
  await database.close();
  dataDir.release();
}

/** What a start is refused with. A process has started for one refusal of each kind, by `expectEnd`. */
async function expectRefused(env: Environment, wrong: string, place?: string): Promise<void> {
  const error: unknown = await open(env).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(StartupError);
  expectSaid((error as StartupError).message, wrong, place);
}

/** Starts a process: one line on stderr, and nothing else. */
async function expectEnd(options: BrokerOptions, wrong: string, place?: string): Promise<void> {
  const env = { ...secrets, ...options.env };
  await using broker = await prepareBroker({ adminKey: canaries.adminKey, encryptionKeys, ...options, env });
  broker.launch();
  const code = await broker.ended();
  expect(broker.stderr).toMatch(/^freshet: [^\n]+\n$/);
  expectSaid(broker.stderr, wrong, place);
  // stdout may hold the line that says what starts.
  expect({ code, stdout: broker.stdout.replace(/^Freshet .* …\n/, "") }).toEqual({ code: 2, stdout: "" });
}

async function write(name: string, text: string): Promise<string> {
  const path = join(folder.path, name);
  await writeFile(path, text);
  return path;
}

async function newFolder(name: string, files: Record<string, string> = {}): Promise<string> {
  const path = join(folder.path, name);
  await mkdir(path);
  for (const [file, text] of Object.entries(files)) await writeFile(join(path, file), text);
  return path;
}

async function listening<S extends Server>(server: S): Promise<S & AsyncDisposable & { port: number }> {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  // Not awaited: the client may keep its end open.
  return Object.assign(server, { port, [Symbol.asyncDispose]: async () => void server.close() });
}

describe("a wrong environment ends the start", () => {
  it.for<[string, Environment]>([
    ["a port that is none", { PORT: "http" }],
    ["a proxy that is none", { TRUST_PROXY: "everyone" }],
    ["a network that is none", { PROVIDER_NETWORKS: "10.0.0.0" }],
    ["a proxy to providers that is none", { HTTPS_PROXY: "socks5://u:canary-password@proxy:1080" }],
    ["a host for NO_PROXY that is none", { NO_PROXY: "https://a.example" }],
    ["an admin key that is short", { ADMIN_KEY: "canary-password" }],
    ["an address of Redis that is none", { REDIS_URL: "redis+cluster://:canary-password@a:1,b:x" }],
    ["an encryption key that is short", { ENCRYPTION_KEYS: "k1:Y2FuYXJ5LXBhc3N3b3Jk" }],
    ["a secret's file that is not there", { METRICS_KEY: "", METRICS_KEY_FILE: "/nowhere/key" }],
    ["a database without a key to encrypt with", { DATABASE_URL: databaseAt(1), ENCRYPTION_KEYS: undefined }],
  ])("%s", async ([wrong, env]) => {
    await expectRefused(env, wrong);
  });

  it("a secret's file that is empty", async () => {
    const path = await write("empty", "\n");
    await expectRefused({ ADMIN_KEY: undefined, ADMIN_KEY_FILE: path }, "a secret's file that is empty", path);
  });

  it("a file of workloads that is not there", async () => {
    await expectEnd({ env: { WORKLOADS_FILE: "/nowhere/workloads.yaml" } }, "a file of workloads that is not there");
  });

  it("in one line on stderr, whatever is in the value", async () => {
    await expectEnd({ env: { LOG_LEVEL: "loud\nlouder" } }, "a value of two lines");
  });
});

describe("a wrong provider file ends the start with its line", () => {
  it.for<[string, string]>([
    ["a provider file that is no YAML", "id: acme\nname: [A\n"],
    ["a setting that is not known", "id: acme\nname: A\nextends: oauth2\nbanana: 1\n"],
    [
      "a setting's value that is not allowed",
      "id: acme\nextends: oauth2\ntoken:\n  url: https://a.example\n  encoding: xml\n",
    ],
    ["the id of another provider", "id: bol\nname: A\n"],
    ["a former id that is another provider's", "id: acme\nextends: oauth2\nformerly:\n  - bol\n"],
  ])("%s", async ([wrong, yaml]) => {
    const PROVIDERS_DIR = await newFolder(wrong, { "acme.yaml": yaml });
    await expectRefused({ PROVIDERS_DIR }, wrong, join(PROVIDERS_DIR, "acme.yaml"));
  });

  it("or with the folder that is missing, in one line whatever it is called", async () => {
    const providersDir = join(folder.path, "no such\nfolder");
    const place = join(folder.path, "no such folder");
    await expectEnd({ providersDir }, "a folder of provider files that is not there", place);
  });
});

describe("a folder that cannot serve ends the start", () => {
  it("one that is a file", async () => {
    const file = await write("a file", "");
    await expectRefused({ DATA_DIR: file }, "a data folder that is a file", file);
    const below = join(file, "below");
    await expectRefused({ DATA_DIR: below }, "a data folder that cannot be made", below);
  });

  it("one without room for the lock", async () => {
    const locked = await newFolder("locked");
    await mkdir(join(locked, "lock"));
    await expectRefused({ DATA_DIR: locked }, "a data folder that cannot be written", locked);
  });

  it("one whose database is damaged", async () => {
    const damaged = await newFolder("damaged");
    await newFolder("damaged/database", { PG_VERSION: "9.1\n" });
    await expectRefused({ DATA_DIR: damaged }, "a data folder whose database is damaged", damaged);
  });

  it("one whose kept secrets are damaged", async () => {
    const sealing = await newFolder("sealing", { "encryption-key": "canary-password" });
    const ofKey = { DATA_DIR: sealing, ENCRYPTION_KEYS: undefined };
    await expectRefused(ofKey, "a kept encryption key that is damaged", sealing);
    const ruling = await newFolder("ruling", { "admin-key": "canary-password" });
    await expectRefused({ DATA_DIR: ruling, ADMIN_KEY: undefined }, "a kept admin key that is damaged", ruling);
  });
});

describe("a database that cannot serve ends the start", () => {
  it("one that nobody serves", async () => {
    await expectEnd({ databaseUrl: databaseAt(1) }, "a database that nobody serves");
  });

  it("one at an unknown host; a password that holds a slash is not told as if it were a host", async () => {
    const unknown = databaseAt(1).replace("127.0.0.1", "database.invalid");
    await expectRefused({ DATABASE_URL: unknown }, "a database at a host that is not known");
    const slashed = "postgresql://user:p@canary-password/rest@127.0.0.1:1/freshet";
    await expectRefused({ DATABASE_URL: slashed }, "a database at a host that is not known");
  });

  it("one that refuses the password", async () => {
    const refuse = createServer((socket) => void socket.once("data", () => socket.end(wrongPassword)));
    await using server = await listening(refuse);
    await expectRefused({ DATABASE_URL: databaseAt(server.port) }, "a database's password that is wrong");
  });

  it("one that is no Postgres", async () => {
    await using web = await listening(createWebServer((_request, response) => void response.end("hello")));
    await expectRefused({ DATABASE_URL: databaseAt(web.port) }, "a server that is no Postgres");
  });

  it("one that says nothing", async () => {
    await using silent = await listening(createServer(() => {}));
    await expectRefused({ DATABASE_URL: databaseAt(silent.port) }, "a server that says nothing");
  });

  it("one that is too old", async () => {
    const session = { execute: async () => {}, query: async <Row>() => [{ version: "130014" }] as Row[] };
    const text = "DATABASE_URL leads to Postgres 13; 14 or later is needed";
    await expect(applyMigrationsTo(session)).rejects.toThrow(new StartupError(text));
  });
});

describeWithServices(["postgres"], "a real Postgres that cannot serve ends the start", () => {
  it("one without the database", async () => {
    const url = new URL(await useDatabase());
    url.pathname = "/no_such_database";
    await expectRefused({ DATABASE_URL: url.href }, "a database that there is not");
  });

  it("one whose data other keys have sealed; with the right ones it starts again", async () => {
    const DATABASE_URL = await useDatabase();
    await openAndClose({ DATABASE_URL });
    const missing = { DATABASE_URL, ENCRYPTION_KEYS: newKey("k2") };
    await expectRefused(missing, "an encryption key that is missing");
    const exchanged = { DATABASE_URL, ENCRYPTION_KEYS: newKey("k1") };
    await expectRefused(exchanged, "an encryption key that was exchanged under its id");
    await openAndClose({ DATABASE_URL });
  });

  it("one that has lost the mark of its sealed format", async () => {
    const DATABASE_URL = await useDatabase();
    await openAndClose({ DATABASE_URL });
    await query(
      DATABASE_URL,
      "INSERT INTO clients (id, name, provider, client_id) VALUES (gen_random_uuid(), 'a', 'a', 'a')",
    );
    await query(DATABASE_URL, "DELETE FROM encryption_keys");
    await expectRefused({ DATABASE_URL }, "a database that has lost its list of keys");
  });

  it("one of the version before, unless nothing of it is newer and all that waits can be sealed anew", async () => {
    const [DATABASE_URL, dump] = [await useDatabase({ empty: true }), await readDump()];
    await query(DATABASE_URL, dump.sql);
    const env = { DATABASE_URL, ENCRYPTION_KEYS: dump.encryptionKey };
    await expectRefused(env, "a Redis that is away while a database is sealed anew");
    const filed = { REDIS_URL: undefined, DATA_DIR: await newFolder("filed", { spool: "" }) };
    await expectRefused({ ...env, ...filed }, "a spool that is a file while a database is sealed anew");
    const DATA_DIR = await newFolder("knows better", { "sealed-format": "2\n" });
    await expectRefused({ ...env, REDIS_URL: undefined, DATA_DIR }, "an old database where a newer one was");
    await query(DATABASE_URL, "ALTER TABLE api_keys ADD COLUMN IF NOT EXISTS mac text");
    await query(DATABASE_URL, "UPDATE api_keys SET mac = 'k1.x'");
    await expectRefused({ ...env, REDIS_URL: undefined }, "a database whose list of keys is an old one");
  });

  it("and so does a port that is taken", async () => {
    await using server = await listening(createServer());
    const taken = { databaseUrl: await useDatabase(), port: server.port };
    await expectEnd(taken, "a port that is taken", String(server.port));
  });
});

describe("beside a broker that is there", () => {
  let first: BrokerProcess;

  beforeAll(async () => {
    first = await startBroker({ adminKey: canaries.adminKey, env: { ENCRYPTION_KEYS: encryptionKeys, ...secrets } });
  });

  afterAll(async () => {
    await first[Symbol.asyncDispose]();
  });

  it("Redis that is away does not end the start: the broker serves, degraded", async () => {
    const { status, body } = await first.api.api("/readyz");
    const checks = { database: "ok", redis: "unavailable" };
    expect({ status, body }).toEqual({ status: 200, body: { status: "degraded", checks } });
    expect((await first.api.api("/connections")).status).toBe(200);
  });

  it("it says that PROVIDER_NETWORKS counts for every provider, and shows it with each", async () => {
    expect(first.stdout).toContain("PROVIDER_NETWORKS counts for every provider");
    expect((await first.api.api("/providers/bol")).body["networks"]).toEqual(["127.0.0.0/8"]);
  });

  it("its folder is refused to a second one, and it goes on", async () => {
    const { dataDir } = first;
    await expectEnd({ dataDir }, "a data folder that another broker holds", dataDir);
    expect((await first.api.api("/connections")).status).toBe(200);
  });

  it("it ends in order, and what it has written holds no secret", async () => {
    expect(await first.stop("SIGINT")).toBe(0);
    expect(first.stderr).toBe("");
    for (const canary of Object.values(canaries)) expect(first.stdout).not.toContain(canary);
  });
});

describeWithServices(["postgres"], "what callers have put in the place of the sandbox", () => {
  const remedy = 'Delete the connection "sandbox" and the client "sandbox" and start again';

  it("keeps no broker from starting: it says what stands in the way, and serves", async () => {
    const databaseUrl = await useDatabase();
    const env = { SANDBOX: "true", LOG_LEVEL: "info" };
    await using broker = await startBroker({ databaseUrl, env });
    const { api } = broker;
    const startAgain = async (): Promise<string> => {
      await broker.stop("SIGINT"); // without the seconds in which a load balancer may notice
      broker.stdout = "";
      await broker.start();
      await until("the first steps", () => {
        if (!broker.isRunning) throw new Error(`the broker has ended: ${broker.stderr}`);
        return broker.stdout.includes("Freshet is ready at");
      });
      expect((await api.api("/connections")).status).toBe(200);
      return broker.stdout;
    };
    /** One line of the log and the first steps say `why` and what to do. */
    const expectSkipped = (said: string, why: string) => {
      const warnings = said.split("\n").filter((line) => line.includes('"level":"warn"') && line.includes("sandbox"));
      expect(warnings).toHaveLength(1);
      const { msg } = JSON.parse(warnings[0] ?? "") as { msg: string };
      expect(msg).toContain(why);
      expect(msg).toContain(remedy);
      expect(said.slice(said.indexOf("Freshet is ready at"))).toContain(`But ${msg}`);
      expect(said).not.toContain("/connect/");
      expect(broker.stderr).toBe("");
    };
    const remove = async (path: string) => expect((await api.api(path, { method: "DELETE" })).status).toBe(204);
    await until("the first steps", () => broker.stdout.includes("/connect/"));

    await query(databaseUrl, `UPDATE connections SET labels = '{"by":"hand"}' WHERE name = 'sandbox'`);
    expectSkipped(await startAgain(), "cannot be opened");
    await query(databaseUrl, `UPDATE connections SET labels = 'null' WHERE name = 'sandbox'`);
    expectSkipped(await startAgain(), "cannot be opened");

    // With a key for connections only: a connection of another provider, one that nobody connects by consent, and one that does not exist.
    const key = await api.createKey({ name: "team", abilities: ["connections"], connections: ["*"] });
    await remove("/connections/sandbox");
    const made = await api.api("/connections", {
      method: "POST",
      key,
      body: {
        name: "sandbox",
        provider: "shopware",
        grant: "password",
        inputs: { shop_url: "http://127.0.0.1:1" },
        credentials: { username: "x", password: canaries.password },
      },
    });
    expect(made.status, JSON.stringify(made.body)).toBe(201);
    expectSkipped(await startAgain(), 'The connection "sandbox" is one of the provider "shopware".');

    await remove("/connections/sandbox");
    await remove("/clients/sandbox");
    await api.createClient({ name: "sandbox", provider: "bol", client_id: "x", client_secret: "x" });
    expectSkipped(await startAgain(), "bol");

    await remove("/clients/sandbox");
    expect(await startAgain()).toContain("/connect/");
    expect(broker.stdout).not.toContain(canaries.password);
    expect(await broker.stop("SIGTERM")).toBe(0);
  });

  it("nor does a spool in DATA_DIR that is no folder", async () => {
    const dataDir = await newFolder("no spool", { spool: "" });
    await using broker = await startBroker({ databaseUrl: await useDatabase(), dataDir });
    expect((await broker.api.api("/connections")).status).toBe(200);
  });
});

describeWithServices(["postgres"], "docs/errors.md", () => {
  it("has no row about the start that was not tried", () => {
    expect([...rows.keys()].filter((wrong) => !tried.has(wrong))).toEqual([]);
  });
});

/** An ErrorResponse of Postgres's protocol. */
const wrongPassword = errorResponse({
  S: "FATAL",
  C: "28P01",
  M: 'password authentication failed for user "canary-user"',
});

function errorResponse(fields: Record<string, string>): Buffer {
  const text = `${Object.entries(fields)
    .map(([type, value]) => `${type}${value}\0`)
    .join("")}\0`;
  const head = Buffer.from("E\0\0\0\0", "latin1");
  head.writeInt32BE(Buffer.byteLength(text) + 4, 1);
  return Buffer.concat([head, Buffer.from(text)]);
}
