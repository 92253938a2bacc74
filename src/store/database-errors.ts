import { StartupError, whyUnreachable } from "../errors.ts";

type DriverCause = { originalCode?: string; code?: string; kind?: string };
type PrismaError = Error & {
  code?: string;
  severity?: string;
  meta?: { driverAdapterError?: { cause?: DriverCause } };
};

/** What the server said, by Prisma's client, or by the driver itself, whose errors of the server have a severity. */
const causeIn = ({ code, severity, meta }: PrismaError): DriverCause | undefined =>
  meta?.driverAdapterError?.cause ??
  (code !== undefined && severity !== undefined ? { originalCode: code } : undefined);

/**
 * SQLSTATEs of a server that accepts no work, or no writes, for any row: connection, resources, operator, log-in, read-only, and a
 * database or tables that do not exist. All other errors concern one statement.
 */
const awayStates = /^(08|28|53|57P|25006|3D000|55000|42P01)/;
/**
 * SQLSTATEs of one statement, one row or one session, from a server that serves all others: memory, a row that is locked or damaged, a
 * deadlock, a statement or session that somebody has cancelled.
 */
const busyStates = /^(40|53200|54|55|57014|57P05|25P0[34]|58|72|XX)/;
const awayKinds = new Set([
  "DatabaseNotReachable",
  "ConnectionClosed",
  "SocketTimeout",
  "TooManyConnections",
  "TlsConnectionError",
]);
const awayPrismaCodes = new Set(["P1001", "P1002", "P1008", "P1017", "P2037"]);
/** Prisma's own: 40001 or 40P01, no free connection in time, a transaction that took too long, such as one that waited for a lock. */
const busyPrismaCodes = new Set(["P2034", "P2024", "P2028"]);

/** All connections of this process's pool are in use: the database may well answer. */
export class PoolBusyError extends Error {
  override readonly name = "PoolBusyError";
}

/**
 * What a failed statement says about the database.
 * - `away`: the database accepts no work, so other statements would fail, too.
 * - `busy`: the database answers. This statement failed now, and may succeed later.
 * - `faulty`: the statement is wrong, and would fail again.
 */
export type Failing = { kind: "away" | "faulty" } | { kind: "busy"; state: string };

export function failingOf(error: unknown): Failing {
  if (!(error instanceof Error)) return { kind: "faulty" };
  if (error instanceof PoolBusyError) return { kind: "busy", state: "no connection of the pool became free" };
  const { code = "", name } = error as PrismaError;
  const cause = causeIn(error);
  if (busyPrismaCodes.has(code)) return { kind: "busy", state: cause?.originalCode ?? code };
  if (awayPrismaCodes.has(code) || awayKinds.has(cause?.kind ?? "")) return { kind: "away" };
  const state = cause?.originalCode ?? cause?.code;
  if (state === undefined) {
    // The driver's errors (timeouts, resets) arrive as plain errors. Those of Prisma and of JavaScript have names.
    const isDrivers = name === "Error" || name === "AggregateError" || name === "DriverAdapterError";
    return { kind: isDrivers ? "away" : "faulty" };
  }
  const isBusy = busyStates.test(state) && state !== "55000";
  if (isBusy) return { kind: "busy", state };
  return { kind: awayStates.test(state) ? "away" : "faulty" };
}

/** True if a row with the same unique value exists already. */
export function isUniqueViolation(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return (error as PrismaError).code === "P2002" || causeIn(error)?.originalCode === "23505";
}

/** What a server says by its SQLSTATE, and what to do. */
const causes: Readonly<Record<string, string>> = {
  "28P01": "the server refuses its user name or password (28P01); correct them, percent-encoded",
  "28000": "the server refuses its user name (28000); see its pg_hba.conf, and add ?sslmode=require if it wants TLS",
  "3D000": "the server has no database of its name (3D000); make it with createdb, or correct the name",
  "42501":
    "its user may not do this there (42501); make it the owner of its database, or set DATABASE_MIGRATION_URL to the address of the owner",
  "25006": "the server takes no writes (25006); name the primary, not a replica",
  "53300": "the server has no connection left (53300); raise max_connections there, or end other clients",
  "53100": "the server's disk is full (53100); make room there",
  "57P03": "the server is only starting, or ending (57P03); wait, and start again",
  "57P01": "the server is ending (57P01); start it again",
};

/** Errors of the driver that have only a text, and what to do. */
const sayings: readonly [said: RegExp, cause: string][] = [
  [
    /timeout expired|connection timeout/,
    "it does not answer in time; see to it, or correct host and port: a Redis may listen there",
  ],
  [/does not support SSL/, "it speaks no TLS; leave sslmode out of the URL, or turn TLS on there"],
  [
    /client password must be a string|empty password/,
    "it wants a password; write it into the URL, as user:password@host",
  ],
  [/terminated unexpectedly/, "it closes the connection at once; see its log, and correct host and port"],
  [/received invalid response|Received unexpected/i, "what answers there is no Postgres; correct the port"],
  [/startup parameter/, "a pooler there takes no session options: leave `options` out of the URL"],
];

/** True when a session cannot run what it has prepared: somebody has changed a table, or told the session to forget it. */
export function isStalePlan(error: unknown): boolean {
  const state = error instanceof Error ? causeIn(error)?.originalCode : undefined;
  return state === "0A000" || state === "26000";
}

/** The form that Prisma's adapter gives to errors without a code. */
const kinds: Readonly<Record<string, string>> = {
  DatabaseNotReachable: "nothing answers at its host and port; start it there",
  ConnectionClosed: "it closes the connection; see its log",
  SocketTimeout: "it does not answer in time; see to it",
  TooManyConnections: causes["53300"] as string,
  TlsConnectionError: "no TLS comes about with it; see its certificate",
};

/** True when the row itself, or one that it refers to, was deleted meanwhile. */
export function isGone(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as PrismaError;
  return code === "P2025" || code === "P2003" || causeIn(error)?.originalCode === "23503";
}

/** One line for the operator. It contains no part of the URL: if the URL is mistyped, its password may stand in place of the host. */
export function causeOf(error: unknown): string {
  if (error instanceof AggregateError) return [...new Set(error.errors.map(causeOf))].join("; or ");
  if (!(error instanceof Error)) return "unknown error";
  const { code, syscall } = error as NodeJS.ErrnoException;
  const known = causes[code ?? ""] ?? whyUnreachable(error);
  if (known !== null) return known;
  const text = error.message.replaceAll(/\s+/g, " ").trim();
  const said = sayings.find(([pattern]) => pattern.test(text))?.[1];
  return said ?? (syscall === undefined ? text : (code ?? syscall));
}

/** One line for the operator about the server that a variable leads to, with what to do. */
export function refused(error: unknown, variable: "DATABASE_URL" | "DATABASE_MIGRATION_URL"): StartupError {
  if (error instanceof StartupError) return error;
  return new StartupError(`${variable} must lead to a Postgres that takes this broker in: ${causeOf(error)}`);
}

/** The same of a statement that found the database away (`failingOf`). Prisma's errors say little. */
export function whyAway(error: unknown): string {
  const cause = error instanceof Error ? causeIn(error) : undefined;
  const known = causes[cause?.originalCode ?? cause?.code ?? ""] ?? kinds[cause?.kind ?? ""];
  if (known !== undefined) return known;
  const unreachable = whyUnreachable(error ?? {});
  return unreachable ?? (cause?.originalCode === undefined ? "it does not answer" : `it answers ${cause.originalCode}`);
}
