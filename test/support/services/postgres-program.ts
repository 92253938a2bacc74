import { execFile } from "node:child_process";
import { chown, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { freePort } from "../free-port.ts";
import { hangMs } from "../patience.ts";
import { temporaryFolder } from "./guardian.ts";
import { startProgramServer } from "./program-server.ts";
import type { PostgresOptions, PrivatePostgres } from "./postgres.ts";

const run = promisify(execFile);

/** Postgres from the programs in `binFolder`, with its data in a temporary folder; as user postgres when run as root. */
export async function startPostgresProgram(binFolder: string, options: PostgresOptions): Promise<PrivatePostgres> {
  const owner = await serverOwner();
  const folder = await temporaryFolder("postgres");
  if (owner.uid !== undefined && owner.gid !== undefined) await chown(folder.path, owner.uid, owner.gid);
  const data = join(folder.path, "data");
  const initdb = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
  await run(join(binFolder, "initdb"), initdb, { ...owner, cwd: folder.path });
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

/** The settings of every test server, as arguments: fast, on loopback, with room for several brokers' pools. */
export function serverSettings({ logStatements = false, listen = "127.0.0.1" }: PostgresOptions): string[] {
  const settings = [
    `listen_addresses=${listen}`,
    "fsync=off",
    "full_page_writes=off",
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
export async function serverOwner(): Promise<{ uid?: number; gid?: number }> {
  if (process.getuid?.() !== 0) return {};
  const [uid, gid] = await Promise.all([run("id", ["-u", "postgres"]), run("id", ["-g", "postgres"])]);
  return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
}
