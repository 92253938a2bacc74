import { chown, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "vitest";
import { freePort } from "../free-port.ts";
import { temporaryFolder } from "./guardian.ts";
import { pingPostgres, serverOwner } from "./postgres-program.ts";
import type { PrivateServer } from "./private-server.ts";
import { startProgramServer } from "./program-server.ts";
import { findOnPath, isProgram } from "./surroundings.ts";
import { describeWithServices } from "./index.ts";

const debianProgram = "/usr/sbin/pgbouncer";
const program = (await findOnPath("pgbouncer")) ?? ((await isProgram(debianProgram)) ? debianProgram : undefined);

/** `describe` for what needs a Postgres and PgBouncer before it; skipped, with the reason, where one of them is missing. */
export function describeWithPooler(name: string, body: () => void): void {
  if (program === undefined) describe.skip(`${name} (to run: install the Debian package pgbouncer)`, body);
  else describeWithServices(["postgres"], name, body);
}

/**
 * PgBouncer in transaction mode before a Postgres, with its own defaults for all that `settings` do not name.
 * @param databaseUrl leads to one of the server's databases, as the URL of the pooler will
 */
export async function startPooler(
  databaseUrl: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<PrivateServer> {
  if (program === undefined) throw new Error("this machine has no pgbouncer; put the test into describeWithPooler");
  const owner = await serverOwner();
  const folder = await temporaryFolder("pgbouncer");
  const { hostname, port, username, password, pathname, search } = new URL(databaseUrl);
  const listenPort = await freePort();
  const login = password === "" ? `user=${username}` : `user=${username} password=${decodeURIComponent(password)}`;
  const own = {
    listen_addr: "127.0.0.1",
    listen_port: String(listenPort),
    unix_socket_dir: "",
    auth_type: "any",
    pool_mode: "transaction",
    ...settings,
  };
  const lines = Object.entries(own).map(([name, value]) => `${name} = ${value}`);
  const text = `[databases]\n* = host=${hostname} port=${port || 5432} ${login}\n[pgbouncer]\n${lines.join("\n")}\n`;
  const file = join(folder.path, "pgbouncer.ini");
  await writeFile(file, text);
  if (owner.uid !== undefined && owner.gid !== undefined) await chown(folder.path, owner.uid, owner.gid);
  const url = `postgresql://${username}@127.0.0.1:${listenPort}${pathname}${search}`;
  return await startProgramServer({
    url,
    command: program,
    args: [file],
    folder,
    logFile: join(folder.path, "log"),
    owner,
    stopSignal: "SIGINT",
    ping: async () => await pingPostgres(url),
  });
}
