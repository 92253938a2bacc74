import type { Source } from "./choice.ts";
import { startPostgresProgram } from "./postgres-program.ts";
import type { PrivateServer } from "./private-server.ts";

export type PostgresOptions = {
  /** Every statement goes to the log, for tests that count them. */
  logStatements?: boolean;
  /** Tables are vacuumed as in production, but looked at every second. */
  vacuums?: boolean;
  /** Address to listen on; only a container needs another than loopback. */
  listen?: string;
};

export type PrivatePostgres = PrivateServer & {
  /** What the server has logged so far; `statementsIn` reads the statements out of it. */
  log(): Promise<string>;
};

/** Starts a Postgres from a container or from programs. @throws where the source offers neither. */
export async function startPostgres(source: Source, options: PostgresOptions = {}): Promise<PrivatePostgres> {
  if (source.from === "programs") return await startPostgresProgram(source.folder, options);
  if (source.from !== "docker") throw new Error(`no private Postgres from ${source.from}`);
  const { startPostgresContainer } = await import("./containers.ts");
  return await startPostgresContainer(options);
}

/** The SQL of every statement in a log written with `logStatements`, in order. */
export function statementsIn(log: string): string[] {
  const entries = log.split(/^@@/m);
  return entries.flatMap((entry) => {
    const match = /^LOG: {2}(?:statement|execute [^:]*): ([\s\S]*)$/.exec(entry);
    return match?.[1] === undefined ? [] : [match[1].trim()];
  });
}
