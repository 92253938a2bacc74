import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer as createWebServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { StartupError } from "../../src/errors.ts";
import { applyMigrationsTo } from "../../src/store/migrate.ts";
import { isSaid, readStartupTable } from "../support/error-table.ts";
import { type BrokerOptions, type BrokerProcess, prepareBroker, startBroker } from "../support/broker-process.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { temporaryFolder } from "../support/services/guardian.ts";

type Folder = Awaited<ReturnType<typeof temporaryFolder>>;
type Ended = { code: number | null; stdout: string; stderr: string };

const endDeadlineMs = 60_000;
const newKey = (id: string) => `${id}:${randomBytes(32).toString("base64")}`;
const encryptionKeys = newKey("k1");

/** In every start of this file, and in no line that any of them writes. */
const canaries = {
  adminKey: `canary-admin-${randomBytes(16).toString("hex")}`,
  metricsKey: `canary-metrics-${randomBytes(8).toString("hex")}`,
  password: "canary-password",
  encryptionKey: encryptionKeys.slice("k1:".length),
};
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

/** Starts a broker that is expected not to get far, and waits for its end. */
async function start(options: BrokerOptions): Promise<Ended> {
  const secrets = { METRICS_KEY: canaries.metricsKey, REDIS_URL: `redis://:${canaries.password}@127.0.0.1:1` };
  await using broker = await prepareBroker({
    adminKey: canaries.adminKey,
    encryptionKeys,
    ...options,
    env: { ...secrets, ...options.env },
  });
  const child = broker.launch();
  const late = setTimeout(() => child.kill("SIGKILL"), endDeadlineMs);
  const code = await broker.ended();
  clearTimeout(late);
  return { code, stdout: broker.stdout, stderr: broker.stderr };
}

/** One line on stderr, as docs/errors.md has it for what was wrong, with `place` in it; and nothing else. */
function expectRefusal({ code, stdout, stderr }: Ended, wrong: string, place = ""): void {
  tried.add(wrong);
  expect(stderr).toMatch(/^freshet: [^\n]+\n$/);
  expect(isSaid(rows.get(wrong) ?? "no such row", stderr), stderr).toBe(true);
  expect(stderr).toContain(place);
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  for (const canary of Object.values(canaries)) expect(stderr).not.toContain(canary);
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
  // Without waiting: the client may hold its end open.
  return Object.assign(server, { port, [Symbol.asyncDispose]: async () => void server.close() });
}

describe.concurrent("a wrong environment ends the start", () => {
  it.for<[string, Record<string, string>]>([
    ["a port that is none", { PORT: "http" }],
    ["a value of two lines", { LOG_LEVEL: "loud\nlouder" }],
    ["a proxy that is none", { TRUST_PROXY: "everyone" }],
    ["a network that is none", { PROVIDER_NETWORKS: "10.0.0.0" }],
    ["an admin key that is short", { ADMIN_KEY: "canary-password" }],
    ["an address of Redis that is none", { REDIS_URL: "redis+cluster://:canary-password@a:1,b:x" }],
    ["an encryption key that is short", { ENCRYPTION_KEYS: "k1:Y2FuYXJ5LXBhc3N3b3Jk" }],
    ["a secret's file that is not there", { METRICS_KEY: "", METRICS_KEY_FILE: "/nowhere/key" }],
  ])("%s", async ([wrong, env]) => {
    expectRefusal(await start({ env }), wrong);
  });

  it("a secret's file that is empty", async () => {
    const path = await write("empty", "\n");
    const ended = await start({ env: { ADMIN_KEY: undefined, ADMIN_KEY_FILE: path } });
    expectRefusal(ended, "a secret's file that is empty", path);
  });

  it("a database without a key to encrypt with", async () => {
    const ended = await start({ databaseUrl: databaseAt(1), env: { ENCRYPTION_KEYS: undefined } });
    expectRefusal(ended, "a database without a key to encrypt with");
  });
});

describe.concurrent("a wrong provider file ends the start with its line", () => {
  it.for<[string, string]>([
    ["a provider file that is no YAML", "id: acme\nname: [A\n"],
    ["a knob that is not known", "id: acme\nname: A\nextends: oauth2\nbanana: 1\n"],
    [
      "a knob's value that is not allowed",
      "id: acme\nextends: oauth2\ntoken:\n  url: https://a.example\n  encoding: xml\n",
    ],
    ["the id of another provider", "id: bol\nname: A\n"],
  ])("%s", async ([wrong, yaml]) => {
    const providersDir = await newFolder(wrong, { "acme.yaml": yaml });
    expectRefusal(await start({ providersDir }), wrong, join(providersDir, "acme.yaml"));
  });

  it("or with the folder that is missing", async () => {
    const providersDir = join(folder.path, "no such\nfolder");
    const place = join(folder.path, "no such folder");
    expectRefusal(await start({ providersDir }), "a folder of provider files that is not there", place);
  });
});

describe.concurrent("a folder that cannot serve ends the start", () => {
  it("one that is a file", async () => {
    const dataDir = await write("a file", "");
    expectRefusal(await start({ dataDir }), "a data folder that is a file", dataDir);
    const below = join(dataDir, "below");
    expectRefusal(await start({ dataDir: below }), "a data folder that cannot be made", below);
  });

  it("one without room for the lock", async () => {
    const dataDir = await newFolder("locked");
    await mkdir(join(dataDir, "lock"));
    expectRefusal(await start({ dataDir }), "a data folder that cannot be written", dataDir);
  });

  it("one whose database is damaged", async () => {
    const dataDir = await newFolder("damaged");
    await newFolder("damaged/database", { PG_VERSION: "9.1\n" });
    expectRefusal(await start({ dataDir }), "a data folder whose database is damaged", dataDir);
  });

  it("one whose kept secrets are damaged", async () => {
    const dataDir = await newFolder("kept", { "encryption-key": "canary-password" });
    expectRefusal(await start({ dataDir }), "a kept encryption key that is damaged", dataDir);
    await writeFile(join(dataDir, "encryption-key"), newKey("k1"));
    await writeFile(join(dataDir, "admin-key"), "canary-password");
    const ended = await start({ dataDir, env: { ADMIN_KEY: undefined } });
    expectRefusal(ended, "a kept admin key that is damaged", dataDir);
  });
});

describe.concurrent("a database that cannot serve ends the start", () => {
  it("one that nobody serves, at a known and at an unknown host", async () => {
    const nobody = databaseAt(1);
    expectRefusal(await start({ databaseUrl: nobody }), "a database that nobody serves");
    const databaseUrl = nobody.replace("127.0.0.1", "database.invalid");
    expectRefusal(await start({ databaseUrl }), "a database at a host that is not known");
  });

  it("a password that holds a slash is not told as if it were a host", async () => {
    const databaseUrl = "postgresql://user:p@canary-password/rest@127.0.0.1:1/freshet";
    expectRefusal(await start({ databaseUrl }), "a database at a host that is not known");
  });

  it("one that refuses the password", async () => {
    const refuse = createServer((socket) => void socket.once("data", () => socket.end(wrongPassword)));
    await using server = await listening(refuse);
    expectRefusal(await start({ databaseUrl: databaseAt(server.port) }), "a database's password that is wrong");
  });

  it("one that is no Postgres", async () => {
    await using web = await listening(createWebServer((_request, response) => void response.end("hello")));
    expectRefusal(await start({ databaseUrl: databaseAt(web.port) }), "a server that is no Postgres");
  });

  it("one that says nothing", async () => {
    await using silent = await listening(createServer(() => {}));
    expectRefusal(await start({ databaseUrl: databaseAt(silent.port) }), "a server that says nothing");
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
    expectRefusal(await start({ databaseUrl: url.href }), "a database that there is not");
  });
});

describe("beside a broker that is there", () => {
  let first: BrokerProcess;

  beforeAll(async () => {
    const env = { ENCRYPTION_KEYS: encryptionKeys, REDIS_URL: `redis://:${canaries.password}@127.0.0.1:1` };
    first = await startBroker({ adminKey: canaries.adminKey, env });
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

  it("its folder is refused to a second one, and it goes on", async () => {
    const { dataDir } = first;
    expectRefusal(await start({ dataDir }), "a data folder that another broker holds", dataDir);
    expect((await first.api.api("/connections")).status).toBe(200);
  });

  it("keys that did not seal its data are refused, and so is a port that is taken; then it starts again", async () => {
    const { dataDir } = first;
    expect(await first.stop("SIGINT")).toBe(0);
    expect(first.stderr).toBe("");
    for (const canary of Object.values(canaries)) expect(first.stdout).not.toContain(canary);

    const unknown = await start({ dataDir, env: { ENCRYPTION_KEYS: newKey("k2") } });
    expectRefusal(unknown, "an encryption key that is missing");
    const other = await start({ dataDir, env: { ENCRYPTION_KEYS: newKey("k1") } });
    expectRefusal(other, "an encryption key that was exchanged under its id");

    await using server = await listening(createServer());
    const taken = await start({ dataDir, port: server.port, env: { ENCRYPTION_KEYS: encryptionKeys } });
    expectRefusal(taken, "a port that is taken", String(server.port));
    await first.start();
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
