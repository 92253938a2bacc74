type DriverCause = { originalCode?: string; code?: string; kind?: string };
type PrismaError = Error & { code?: string; meta?: { driverAdapterError?: { cause?: DriverCause } } };

/**
 * SQLSTATEs of a server that takes no work from us, or no writes, whichever row they are for: connection, resources, operator,
 * log-in, read-only, and a database or its tables that are not there. Whatever else it answers concerns one statement.
 */
const awayStates = /^(08|28|53|57P|25006|3D000|55000|42P01)/;
/**
 * SQLSTATEs that one statement, one row or one session gets from a server that serves all others: memory, a row that is locked or
 * damaged, a deadlock, a statement or a session that somebody has cancelled.
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
 * What a failed statement tells of the database.
 * - `away`: it takes no work; nothing else would succeed either.
 * - `busy`: it is there. This statement could not be carried out now, and may be later.
 * - `faulty`: the statement is at fault, and would be again.
 */
export type Failing = { kind: "away" | "faulty" } | { kind: "busy"; state: string };

export function failingOf(error: unknown): Failing {
  if (!(error instanceof Error)) return { kind: "faulty" };
  if (error instanceof PoolBusyError) return { kind: "busy", state: "no connection of the pool became free" };
  const { code = "", meta, name } = error as PrismaError;
  const cause = meta?.driverAdapterError?.cause;
  if (busyPrismaCodes.has(code)) return { kind: "busy", state: cause?.originalCode ?? code };
  if (awayPrismaCodes.has(code) || awayKinds.has(cause?.kind ?? "")) return { kind: "away" };
  const state = cause?.originalCode ?? cause?.code;
  if (state === undefined) {
    // The driver's own errors (timeouts, resets) reach us as plain errors; Prisma's and the language's have names.
    const isDrivers = name === "Error" || name === "AggregateError" || name === "DriverAdapterError";
    return { kind: isDrivers ? "away" : "faulty" };
  }
  const isBusy = busyStates.test(state) && state !== "55000";
  if (isBusy) return { kind: "busy", state };
  return { kind: awayStates.test(state) ? "away" : "faulty" };
}

/** True when a row with the same unique value is there already. */
export function isUniqueViolation(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, meta } = error as PrismaError;
  return code === "P2002" || meta?.driverAdapterError?.cause?.originalCode === "23505";
}

const causes: Readonly<Record<string, string>> = {
  ENOTFOUND: "its host is not known",
  EAI_AGAIN: "its host cannot be looked up right now",
  ECONNREFUSED: "nothing listens at its host and port",
  "28P01": "the server refuses its user name or password",
  "28000": "the server refuses its user name",
  "3D000": "the server has no database of its name",
};

/** True when the row itself, or one that it refers to, was deleted meanwhile. */
export function isGone(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, meta } = error as PrismaError;
  return code === "P2025" || code === "P2003" || meta?.driverAdapterError?.cause?.originalCode === "23503";
}

/** One line for the operator. Never a part of the URL: where one is mistyped, its password may stand in place of the host. */
export function causeOf(error: unknown): string {
  if (error instanceof AggregateError) return [...new Set(error.errors.map(causeOf))].join("; ");
  if (!(error instanceof Error)) return "unknown error";
  const { code, syscall } = error as NodeJS.ErrnoException;
  const known = causes[code ?? ""];
  if (known !== undefined) return `${known} (${code})`;
  return syscall === undefined ? error.message.replaceAll(/\s+/g, " ").trim() : (code ?? syscall);
}
