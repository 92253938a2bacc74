import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { chown, mkdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "pg";
import { freePort } from "../free-port.ts";
import { hangMs } from "../patience.ts";
import { temporaryFolder } from "./guardian.ts";
import { startProgramServer } from "./program-server.ts";
import type { PostgresOptions, PrivatePostgres } from "./postgres.ts";

const run = promisify(execFile);
const clusters = fileURLToPath(new URL("../../../node_modules/.cache/postgres", import.meta.url));

/** Postgres from the programs in `binFolder`, with its data in a temporary folder; as user postgres when run as root. */
export async function startPostgresProgram(binFolder: string, options: PostgresOptions): Promise<PrivatePostgres> {
  const owner = await serverOwner();
  const folder = await temporaryFolder("postgres");
  if (owner.uid !== undefined && owner.gid !== undefined) await chown(folder.path, owner.uid, owner.gid);
  const data = join(folder.path, "data");
  await makeCluster(data, { binFolder, owner });
  const port = await freePort();
  const url = `postgresql://postgres@127.0.0.1:${port}/postgres`;
  const logFile = join(folder.path, "log");
  const server = await startProgramServer({
    url,
    command: join(binFolder, "postgres"),
    args: ["-D", data, "-p", String(port), "-k", "", ...serverSettings(options)],
    folder,
    logFile,
    owner,
    stopSignal: "SIGINT",
    ping: () => pingPostgres(url),
  });
  return { ...server, log: () => readFile(logFile, "utf8") };
}

type Owner = { uid?: number; gid?: number };

/** The first data folder of this version and owner is kept. Later ones are copies of it, a tenth of the work. */
async function makeCluster(data: string, { binFolder, owner }: { binFolder: string; owner: Owner }): Promise<void> {
  const initdb = join(binFolder, "initdb");
  const options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
  const { stdout: version } = await run(initdb, ["--version"]);
  const made = JSON.stringify([version, options, owner.uid ?? process.getuid?.()]);
  const kept = join(clusters, createHash("sha256").update(made).digest("hex").slice(0, 16));
  if (existsSync(kept)) {
    await run("cp", ["-a", kept, data]);
    // If somebody has copied node_modules, it may belong to another user.
    if (owner.uid !== undefined) await run("chown", ["-R", `${owner.uid}:${owner.gid}`, data]);
    return;
  }
  await run(initdb, ["-D", data, ...options], { ...owner, cwd: dirname(data) });
  const draft = `${kept}.${randomUUID()}`;
  await mkdir(clusters, { recursive: true });
  await run("cp", ["-a", data, draft]);
  await rename(draft, kept).catch(async () => await rm(draft, { recursive: true })); // another process was first
}

/**
 * The settings of every test server, as arguments: fast, on loopback, with room for several brokers' pools. No
 * database lives long enough for a vacuum, and each would get a process every minute.
 */
export function serverSettings({
  logStatements = false,
  vacuums = false,
  listen = "127.0.0.1",
}: PostgresOptions): string[] {
  const settings = [
    `listen_addresses=${listen}`,
    "fsync=off",
    "full_page_writes=off",
    ...(vacuums ? ["autovacuum_naptime=1"] : ["autovacuum=off"]),
    "max_connections=300",
    "log_line_prefix=@@",
    ...(logStatements ? ["log_statement=all", "log_min_duration_statement=-1"] : []),
  ];
  return settings.flatMap((setting) => ["-c", setting]);
}

/** @throws while the server takes no queries. */
export async function pingPostgres(url: string): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: hangMs });
  client.on("error", () => {
    // A server that is only starting cuts connections; the caller asks again.
  });
  try {
    await client.connect();
    await client.query("SELECT 1");
  } finally {
    await client.end().catch(() => {
      // Never connected.
    });
  }
}

/** Postgres refuses to run as root, and so does PgBouncer. */
export async function serverOwner(): Promise<Owner> {
  if (process.getuid?.() !== 0) return {};
  const [uid, gid] = await Promise.all([run("id", ["-u", "postgres"]), run("id", ["-g", "postgres"])]);
  return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
}
