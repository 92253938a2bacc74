import { execFile } from "node:child_process";
import { generateKeyPairSync, randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer as createWebServer } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readConfig, type Variables } from "../../src/config.ts";
import { debuggerWarnings } from "../../src/start/first-warnings.ts";
import { findSecrets, openProviders, openShared, openStorage, type Storage } from "../../src/start/outside.ts";
import { createApiKeys } from "../../src/store/api-keys.ts";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import { holdDataDir } from "../../src/store/data-dir.ts";
import { applyMigrationsTo } from "../../src/store/migrate.ts";
import { createKeyList, createKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault } from "../../src/vault/vault.ts";
import { prepareBroker } from "../support/broker-process.ts";
import { selfSigned } from "../support/certificate.ts";
import { isLine, readFirstHour } from "../support/error-table.ts";
import { startFaultProxy } from "../support/faults/tcp-proxy.ts";
import { canary, type Cases, expectTold, refusalOf, rowsOf, type Told } from "../support/first-hour.ts";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, startPrivateRedis, useDatabase, useRole } from "../support/services/index.ts";
import { withRedis } from "../support/services/redis.ts";
import { noAlarms } from "../support/unasked.ts";

const project = fileURLToPath(new URL("../../", import.meta.url));
const newKey = (id: string) => `${id}:${randomBytes(32).toString("base64")}`;
const encryptionKeys = newKey("k1");
const open: (() => unknown)[] = [];
let folder = "";

beforeAll(async () => {
  folder = (await temporaryFolder("first-hour")).path;
});

afterAll(async () => {
  for (const close of open.toReversed()) await close();
});

/** A server of the test's own, on loopback. */
async function portOf(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  open.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

const talking = (talk: (socket: Socket) => void) =>
  createServer((socket) => {
    open.push(() => socket.destroy());
    socket.on("error", () => {}); // the client may be gone
    talk(socket);
  });
const answering = (answer: Buffer | string) => talking((socket) => void socket.on("data", () => socket.write(answer)));
const web = () => createWebServer((_request, response) => void response.end("hello"));

async function newFolder(files: Record<string, string> = {}): Promise<string> {
  const path = join(folder, randomUUID());
  await mkdir(path, { mode: 0o700 });
  for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
  return path;
}

type Running = { env?: Record<string, string>; cwd?: string };

/** Runs a program of the project to its end. */
async function run(args: string[], { env = {}, cwd = project }: Running = {}): Promise<Told> {
  const child = execFile(process.execPath, args, {
    cwd,
    env: { PATH: process.env["PATH"], DATA_DIR: join(folder, "never-made"), ...env },
  });
  let stderr = "";
  child.stderr?.on("data", (text: string) => (stderr += text));
  const [code] = (await once(child, "close")) as [number];
  const lines = stderr.split("\n").filter((line) => line !== "");
  expect(existsSync(join(folder, "never-made"))).toBe(false);
  return { lines: lines.map((line) => line.replace(/^freshet: /, "")), exit: code === 2 ? 2 : null };
}

/** As another version of Node would run it. */
async function underNode(version: string, entry: string): Promise<Told> {
  const fake = join(await newFolder({ "fake.cjs": fakeVersion(version) }), "fake.cjs");
  return await run(["--require", fake, entry]);
}

const fakeVersion = (version: string) =>
  `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } });`;

const folders: Cases = {
  "`DATA_DIR` that is a file": async () => {
    const path = join(await newFolder({ file: "" }), "file");
    return await refusalOf(() => holdDataDir(path));
  },
  "`DATA_DIR` below a file": async () => {
    const path = join(await newFolder({ file: "" }), "file", "below");
    return await refusalOf(() => holdDataDir(path));
  },
  "`DATA_DIR` that takes no lock": async () => {
    const path = await newFolder();
    await mkdir(join(path, "lock"));
    return await refusalOf(() => holdDataDir(path));
  },
  "`DATA_DIR` that another broker holds": async () => {
    const path = await newFolder();
    const held = await holdDataDir(path);
    open.push(() => held.release());
    return await refusalOf(() => holdDataDir(path));
  },
  "`DATA_DIR/admin-key` that is damaged": async () => await secretsIn({ "admin-key": canary }),
  "`DATA_DIR/encryption-key` that is damaged": async () => await secretsIn({ "encryption-key": canary }),
  "`DATA_DIR` that others can read": async () => {
    const path = await newFolder();
    await chmod(path, 0o755);
    return await openedIn(path);
  },
  "`DATA_DIR/admin-key` that others can read": async () => await openedIn(await newFolder({ "admin-key": "x" })),
  "`DATA_DIR/marks` that is a folder": async () => {
    const path = await newFolder();
    await mkdir(join(path, "marks"));
    return { lines: texts((await openOwn({}, path)).lines.join("")), exit: null };
  },
  "`DATA_DIR/spool` that is a file": async () => {
    const { lines } = await openOwn({}, await newFolder({ spool: "" }));
    return { lines: texts(lines.join("")), exit: null };
  },
  "`PROVIDERS_DIR` without a definition": async () => await providersIn({ "notes.txt": "" }),
  "`PROVIDERS_DIR` with another ending": async () =>
    await providersIn({
      "acme.yaml.txt": "",
      "acme.json": "{}",
      "kit.yml": "id: kit\nextends: bol\n",
      "schema.json": "{}",
    }),
  "`PORT` that is taken": async () => await run(["bin/broker.cjs"], { env: { PORT: String(await portOf(web())) } }),
  "`HOST` of another machine": async () =>
    await run(["bin/broker.cjs"], { env: { PORT: String(await freePort()), HOST: "192.0.2.1" } }),
  "an argument of `npm start`": async () => await run(["bin/broker.cjs", "--dotenv", "--port", "9000"]),
  "`--inspect`, for other machines": async () =>
    await run(["--inspect=127.0.0.1:0", "--inspect-publish-uid=http", "bin/broker.cjs"], {
      env: { PUBLIC_URL: "https://broker.example", PORT: String(await freePort()) },
    }),
  "`--inspect`, for this machine alone": () => {
    const warnings = debuggerWarnings({ publicUrl: "http://localhost:8080" }, "ws://127.0.0.1:9229/x");
    return { lines: warnings.map(({ text }) => text), exit: null };
  },
  "Node.js 20, `bin/broker.cjs`": async () => await underNode("20.20.2", "bin/broker.cjs"),
  "Node.js 20, `bin/freshet.cjs`": async () => await underNode("20.20.2", "bin/freshet.cjs"),
  "Node.js 22, `src/main.ts`": async () => await underNode("22.18.0", "src/main.ts"),
};

async function providersIn(files: Record<string, string>): Promise<Told> {
  const PROVIDERS_DIR = await newFolder(files);
  const { lines, log } = keptLog();
  const { catalog } = openProviders(readConfig({ PROVIDERS_DIR }), log);
  expect(catalog.count.own).toBe(Object.keys(files).filter((name) => name.endsWith(".yml")).length);
  return { lines: texts(lines.join("")), exit: null };
}

async function openedIn(path: string): Promise<Told> {
  const dataDir = await holdDataDir(path);
  open.push(() => dataDir.release());
  return { lines: [...dataDir.opened], exit: null };
}

async function secretsIn(files: Record<string, string>): Promise<Told> {
  const dataDir = await holdDataDir(await newFolder(files));
  open.push(() => dataDir.release());
  return await refusalOf(() => findSecrets(readConfig({}), dataDir));
}

const postgres = (databaseUrl: string, migrationUrl: string | null = null) =>
  refusalOf(() =>
    openPostgres(
      databaseUrl,
      createDatabaseHealth(() => 0),
      { migrationUrl },
    ),
  );
const at = (port: number) => `postgresql://canary-user:${canary}@127.0.0.1:${port}/freshet`;

/** One message of Postgres's protocol. */
function message(type: string, content: string): Buffer {
  const head = Buffer.from(`${type}\0\0\0\0`, "latin1");
  head.writeInt32BE(Buffer.byteLength(content, "latin1") + 4, 1);
  return Buffer.concat([head, Buffer.from(content, "latin1")]);
}

const databases: Cases = {
  "nobody listens": async () => await postgres(at(1)),
  "a socket that is not there": async () => await postgres(`postgresql://${canary}@localhost/freshet?host=${folder}`),
  "a host that is not known": async () => await postgres(at(1).replace("127.0.0.1", "database.invalid")),
  "a wrong password": async () => {
    const text = `SFATAL\0C28P01\0Mpassword authentication failed for user "${canary}"\0\0`;
    return await postgres(at(await portOf(answering(message("E", text)))));
  },
  "no password where one is wanted": async () => {
    const steps = [message("R", "\0\0\0\x0ASCRAM-SHA-256\0\0"), message("R", "\0\0\0\x0Br=x,s=x,i=1")];
    const port = await portOf(talking((socket) => void socket.on("data", () => socket.write(steps.shift() ?? ""))));
    return await postgres(`postgresql://someone@127.0.0.1:${port}/freshet`);
  },
  "a database that there is not": async () => {
    const url = new URL(await useDatabase({ empty: true }));
    url.pathname = "/no_such_database";
    return await postgres(url.href);
  },
  "a user who may not make tables": async () => {
    const [url, name] = [new URL(await useDatabase({ empty: true })), `nobody_${randomBytes(6).toString("hex")}`];
    await query(url.href, `CREATE ROLE ${name} LOGIN PASSWORD '${canary}'`);
    open.push(async () => await query(url.href, `DROP OWNED BY ${name}; DROP ROLE ${name}`));
    await query(url.href, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    const own = new URL(url);
    [own.username, own.password] = [name, canary];
    return await postgres(own.href);
  },
  "a server that takes no writes": async () => {
    const url = await useDatabase({ empty: true });
    await query(url, `ALTER DATABASE "${new URL(url).pathname.slice(1)}" SET default_transaction_read_only = on`);
    return await postgres(url);
  },
  "TLS that the server does not speak": async () =>
    await postgres(`${at(await portOf(answering("N")))}?sslmode=require`),
  "a server that is no Postgres": async () => await postgres(at(await portOf(web()))),
  "a Redis in the place of Postgres": async () => {
    await using server = await startPrivateRedis();
    return await postgres(at(Number(new URL(server.url).port)));
  },
  "Postgres 13": async () => {
    const session = { execute: async () => {}, query: async <Row>() => [{ version: "130014" }] as Row[] };
    return await refusalOf(() => applyMigrationsTo(session));
  },
  "a migration role that cannot log in": async () => await postgres(await useDatabase(), at(1)),
  "two roles of two databases": async () => await postgres(await useDatabase(), await useDatabase()),
  "a runtime role that is a superuser": async () => {
    const url = await useDatabase();
    return await postgres(await useRole(url, "SUPERUSER"), url);
  },
  "a runtime role that is the migration role": async () => {
    const url = await useDatabase();
    return await postgres(url, url);
  },
  "other `ENCRYPTION_KEYS` than before": async () => {
    const DATABASE_URL = await useDatabase();
    const storage = await storageOf({ DATABASE_URL, ENCRYPTION_KEYS: encryptionKeys });
    await storage.database.close();
    return await refusalOf(() => storageOf({ DATABASE_URL, ENCRYPTION_KEYS: newKey("k2") }));
  },
  "no `ADMIN_KEY`, and no key with `admin` that works": async () => {
    const lines = texts(broker.stdout).filter((text) => text.includes("nobody can administer"));
    return { lines, exit: broker.isRunning ? null : 2 };
  },
};

async function storageOf(env: Record<string, string>, log = keptLog().log): Promise<Storage> {
  const config = readConfig({ DATA_DIR: await newFolder(), ...env });
  const storage = await openStorage(config, { ...openProviders(config, log), alarms: noAlarms, log });
  open.push(() => storage.dataDir.release());
  return storage;
}

/** A log that keeps its lines. */
function keptLog() {
  const lines: string[] = [];
  return { lines, log: pino({}, { write: (line) => void lines.push(line) }) };
}

/** The texts of a log. */
function texts(log: string): string[] {
  const lines = log.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
}

let broker: Awaited<ReturnType<typeof prepareBroker>>;

/** A start without a key, without Redis and with a misspelt name, which serves all the same. */
async function startInVain(databaseUrl: string): Promise<void> {
  const env = { ADMIN_KEY: undefined, PROVIDER_DIR: canary, LOG_LEVEL: "info" };
  broker = await prepareBroker({
    databaseUrl,
    redisUrl: "redis://127.0.0.1:1",
    publicUrl: "http://localhost:3000",
    env,
  });
  open.push(async () => await broker[Symbol.asyncDispose]());
  broker.launch();
  await until("the start's last line", () => {
    if (!broker.isRunning) throw new Error(`the broker has ended: ${broker.stderr}`);
    return broker.stdout.includes('"msg":"ready: ');
  });
}

/** What else a broker has beside a database, which is not used here, and a log. */
async function openOwn(env: Variables, path: string) {
  const { lines, log } = keptLog();
  const keyring = createKeyring([{ id: "k1", key: randomBytes(32) }]);
  const keys = createKeyList(async () => ["k1"]);
  const vault = createTokenVault(keyring, { onForged: () => {}, isSilent: async () => false });
  const dataDir = await holdDataDir(path);
  open.push(() => dataDir.release());
  const storage = { self: { id: "own", name: "own" }, dataDir, keyring, keys, vault } as unknown as Storage;
  const shared = await openShared(readConfig(env), storage, { log, alarms: noAlarms });
  open.push(async () => await shared.close());
  return { lines, shared };
}

/** What such a broker logs, read when it has logged something about Redis. */
async function redisAt(redisUrl: string): Promise<Told> {
  const { lines, shared } = await openOwn({ REDIS_URL: redisUrl }, await newFolder());
  await until("a line on Redis", async () => {
    await shared.describeRedis();
    return lines.length > 0;
  });
  await shared.close();
  return { lines: texts(lines.join("")), exit: null };
}

const call = async (url: string, command: string) =>
  await withRedis(url, async (client) => void (await client.call(...(command.split(" ") as [string]))));

const redis = (port: number) => `redis://:${canary}@127.0.0.1:${port}`;

/** As far as a client asks before it is ready. */
function oldRedis(): Server {
  const info = "redis_version:5.0.7\r\nloading:0\r\n";
  const replyTo = (command: string): string => {
    if (command === "INFO") return `$${info.length}\r\n${info}\r\n`;
    return command === "CLIENT" || command === "HELLO"
      ? `-ERR unknown command \`${command}\`, with args beginning with: \r\n`
      : "+OK\r\n";
  };
  return talking((socket) => {
    socket.on("data", (data) => {
      for (const [, command = ""] of String(data).matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        socket.write(replyTo(command.toUpperCase()));
      }
    });
  });
}

function tlsServer(): Server {
  const keys = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const [key, cert] = [keys.privateKey.export({ format: "pem", type: "pkcs8" }), selfSigned(keys, ["127.0.0.1"])];
  return createTlsServer({ key, cert }, () => {}).on("tlsClientError", () => {});
}

/** The others change the server. */
const isAlone = ({ wrong }: { wrong: string }) => !/password|replica|full/.test(wrong);

describe("folders, ports, arguments, and an old Node", () => {
  it.for(rowsOf("Folders, ports and Node.js", folders))("$wrong", async (row) => {
    expectTold(row, await row.play());
  });
});

it("all variables that are wrong are told at once, a line each", async () => {
  const env = { PORT: "http", METRICS_PORT: "8080", DATABASE_URL: `postgresql://u:${canary}@db/f`, REDIS_URL: "db:1" };
  const { lines, exit } = await run(["bin/broker.cjs"], { env: { ...env, ENCRYPTION_KEYS_FILE: "/nowhere" } });
  expect(exit).toBe(2);
  expect(lines.map((line) => line.split(" ")[0])).toEqual(["PORT", "ENCRYPTION_KEYS_FILE", "REDIS_URL"]);
});

describeWithServices(["postgres", "redis"], "Postgres", () => {
  beforeAll(async () => {
    await startInVain(await useDatabase());
  });

  it.for(rowsOf("Postgres", databases))("$wrong", async (row) => {
    expectTold(row, await row.play());
  });

  it("a start that goes on tells each trouble once, without a stack, and ends with one line on all of it", async () => {
    const said = texts(broker.stdout);
    const rows = readFirstHour();
    for (const wrong of ["`PROVIDER_DIR`", "nobody listens at `REDIS_URL`"]) {
      expect(
        said.filter((text) => isLine(rows.find((row) => row.wrong === wrong)?.line ?? "no such row", text)),
      ).toHaveLength(1);
    }
    expect(said.filter((text) => text.startsWith("PUBLIC_URL leads to port 3000 of this machine"))).toHaveLength(1);
    expect(said.filter((text) => text.startsWith("ready: "))).toHaveLength(1);
    expect(said.at(-1)).toMatch(
      /^ready: Freshet \d+\.\d+\.\d+ at http:\/\/[^;]+; Postgres \d\S* at 127\.0\.0\.1:\d+\/\S+; Redis is away; \d+ providers; API and docs: http:\S+\/docs$/,
    );
    const ready = JSON.parse(broker.stdout.trim().split("\n").at(-1) ?? "") as object;
    expect(ready).toMatchObject({ version: expect.any(String), redis: "away", settings: "environment" });
    expect(broker.stdout + broker.stderr).not.toMatch(new RegExp(`${canary}| {4}at |"stack"`));
    expect(broker.stderr).toBe("");
  });

  it("that goes and comes back is told once each, without a stack", async () => {
    await using proxy = await startFaultProxy(await useDatabase());
    const { lines, log } = keptLog();
    const storage = await storageOf({ DATABASE_URL: proxy.url, ENCRYPTION_KEYS: encryptionKeys }, log);
    open.push(async () => await storage.database.close());
    const ask = async () => await storage.connections.findByName("acme");
    await ask();
    expect(lines).toEqual([]);
    proxy.faults.newConnections = "reset";
    proxy.reset();
    for (let times = 0; times < 3; times++) await expect(ask()).rejects.toThrow("cannot be reached right now");
    proxy.faults.newConnections = "served";
    await until("that it is back", async () => (await ask().catch(() => "away")) === null);
    expect(texts(lines.join(""))).toEqual([
      expect.stringMatching(/^Postgres is away: it [^.]+\. Freshet serves what it has in memory, and goes on trying$/),
      expect.stringMatching(/^Postgres is back after \d+ s$/),
    ]);
  });

  it("only a key with admin that works, and that this broker wrote, lets somebody administer it", async () => {
    const { database, vault } = await storageOf({ DATABASE_URL: await useDatabase(), ENCRYPTION_KEYS: encryptionKeys });
    open.push(async () => await database.close());
    const keys = createApiKeys(database, vault);
    const nowMs = Date.now();
    const add = async (ability: "tokens" | "admin", expiresAt: Date | null = null) => {
      const id = randomBytes(6).toString("hex");
      const key = { id, name: id, abilities: [ability], connections: ["*"], labels: {}, expiresAt };
      await keys.insert({ ...key, secretHash: new Uint8Array(randomBytes(32)) }, null);
      return id;
    };
    expect(await keys.hasAdmin(nowMs)).toBe(false);
    await add("tokens");
    await add("admin", new Date(nowMs + 60_000));
    expect([await keys.hasAdmin(nowMs), await keys.hasAdmin(nowMs + 60_001)]).toEqual([true, false]);
    const revoked = await add("admin");
    expect(await keys.hasAdmin(nowMs + 60_001)).toBe(true);
    await keys.revoke(revoked, { patterns: ["%"], labels: {} });
    expect(await keys.hasAdmin(nowMs + 60_001)).toBe(false);
    const foreign = await add("tokens");
    await database.prisma.$executeRaw`UPDATE api_keys SET abilities = '{admin}' WHERE id = ${foreign}`;
    expect(await keys.hasAdmin(nowMs + 60_001)).toBe(false);
  });
});

describeWithServices(["redis", "postgres"], "Redis", () => {
  let server: Awaited<ReturnType<typeof startPrivateRedis>>;
  beforeAll(async () => {
    server = await startPrivateRedis();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  const withPassword = (password: string) => server.url.replace("redis://", `redis://:${password}@`);
  /** Sets the server, asks, and sets it back. */
  const configured = async (set: string, back: string): Promise<Told> => {
    await call(server.url, set);
    const told = await redisAt(server.url);
    await call(server.url, back);
    return told;
  };
  const guarded = async (url: string) => {
    await call(server.url, "CONFIG SET requirepass right");
    const told = await redisAt(url);
    await withRedis(withPassword("right"), async (client) => void (await client.config("SET", "requirepass", "")));
    return told;
  };

  const cases: Cases = {
    "nobody listens at `REDIS_URL`": async () => await redisAt(redis(1)),
    "a host of Redis that is not known": async () => await redisAt(`redis://:${canary}@redis.invalid`),
    "a wrong password of Redis": async () => await guarded(withPassword(canary)),
    "no password where Redis wants one": async () => await guarded(server.url),
    "a server that is no Redis": async () => await redisAt(redis(await portOf(web()))),
    "a server that says nothing to Redis's client": async () => await redisAt(redis(await portOf(talking(() => {})))),
    "a Postgres in the place of Redis": async () =>
      await redisAt(redis(Number(new URL(await useDatabase({ empty: true })).port))),
    "`redis://` where TLS is wanted": async () =>
      await redisAt(redis(await portOf(talking((socket) => void socket.end())))),
    "a certificate of Redis that is signed by itself": async () =>
      await redisAt(redis(await portOf(tlsServer())).replace("redis:", "rediss:")),
    "`redis+cluster://` for a single Redis": async () => await redisAt(server.url.replace("redis:", "redis+cluster:")),
    "`redis+sentinel://` for a single Redis": async () =>
      await redisAt(`${server.url.replace("redis:", "redis+sentinel:")}/main`),
    "a number of a database that Redis does not have": async () => {
      const url = new URL(server.url);
      url.pathname = "/9999";
      return await redisAt(url.href);
    },
    "a Redis that is a replica": async () => await configured("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "a Redis that is full": async () => await configured("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "Redis 5": async () => await redisAt(`redis://127.0.0.1:${await portOf(oldRedis())}`),
  };

  const rows = rowsOf("Redis", cases);
  it.concurrent.for(rows.filter(isAlone))("$wrong", async (row) => {
    expectTold(row, await row.play());
  });

  it.for(rows.filter((row) => !isAlone(row)))("$wrong", async (row) => {
    expectTold(row, await row.play());
  });

  it("that resets the connection is told as one that closes it", async () => {
    const isFasterThanEnd = talking((socket) => void socket.resetAndDestroy());
    const { lines } = await redisAt(redis(await portOf(isFasterThanEnd)));
    expect(lines).toEqual([
      expect.stringMatching(/^Redis is away: it closes the connection at once; correct the port/),
    ]);
  });

  it("that goes and comes back is told once each, with the time that it was away", async () => {
    const { lines, shared } = await openOwn({ REDIS_URL: server.url }, await newFolder());
    expect(await shared.describeRedis()).toMatch(/^(Redis|Valkey) \d\S+ at 127\.0\.0\.1:\d+$/);
    await server.stop();
    await until("a line", () => lines.length > 0);
    await server.restart();
    await until("that it is back", () => lines.length > 1);
    expect(texts(lines.join(""))).toEqual([
      expect.stringMatching(/^Redis is away: /),
      expect.stringMatching(/^Redis is back after \d+ s$/),
    ]);
  });
});

/** Starts on an address that no machine here has. */
const startBeside = async (entry: string[], env: Record<string, string> = {}) => {
  const cwd = await newFolder({ ".env": "PORT=12345\nHOST=192.0.2.9\nDATA_DIR=from-file\nFRESHET_KEY=from-file\n" });
  return await run(
    entry.map((part) => part.replace("bin/", `${project}bin/`)),
    { env, cwd },
  );
};

describe("the file .env", () => {
  it("is read by `npm start` in the current folder, and the environment wins", async () => {
    const { scripts } = JSON.parse(await readFile(join(project, "package.json"), "utf8")) as {
      scripts: { start: string; test: string; freshet: string };
    };
    const node = "ulimit -c 0; exec node ";
    const flags = "--disable-sigusr1 --max-semi-space-size=16";
    expect(scripts).toMatchObject({ start: `${node}${flags} bin/broker.cjs --dotenv`, test: "vitest run" });
    const { lines } = await startBeside(scripts.start.slice(node.length).split(" "), { HOST: "192.0.2.1" });
    expect(lines).toEqual([
      expect.stringMatching(/^PORT 12345 on HOST 192\.0\.2\.1 cannot be listened on.*; PORT comes from \S+\/\.env$/),
    ]);
  });

  it("is not read by the broker alone, as in the image, nor by the command line", async () => {
    const alone = await startBeside(["bin/broker.cjs"], { HOST: "192.0.2.1", PORT: "12346" });
    expect(alone.lines).toEqual([expect.stringMatching(/^PORT 12346 on HOST 192\.0\.2\.1 cannot be listened on/)]);
    const command = await startBeside(["bin/freshet.cjs", "token", "sandbox"]);
    expect(command).toMatchObject({ lines: [expect.stringMatching(/^No key: set FRESHET_KEY/)], exit: 2 });
  });
});
