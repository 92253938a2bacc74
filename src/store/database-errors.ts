type DriverCause = { originalCode?: string; code?: string; kind?: string };
type PrismaError = Error & { code?: string; meta?: { driverAdapterError?: { cause?: DriverCause } } };

/** SQLSTATE classes of a server that is there but takes no work: connection, resources, operator, time-out, lock, system, read-only. */
const unavailableStates = /^(08|53|57P|57014|55P03|40001|40P01|58|XX|25006|3D000|55000|42P01)/;
const unavailableKinds = new Set(["DatabaseNotReachable", "ConnectionClosed", "SocketTimeout", "TooManyConnections"]);
const unavailablePrismaCodes = new Set(["P1001", "P1002", "P1008", "P1017", "P2024", "P2028", "P2037"]);

/** True when a query failed because of the database's absence, false when the query itself is at fault. */
export function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, meta, name } = error as PrismaError;
  const cause = meta?.driverAdapterError?.cause;
  if (unavailablePrismaCodes.has(code ?? "") || unavailableKinds.has(cause?.kind ?? "")) return true;
  const state = cause?.originalCode ?? cause?.code;
  if (state !== undefined) return unavailableStates.test(state);
  // The driver's own errors (timeouts, resets) reach us as plain errors; Prisma's and the language's have names.
  return name === "Error" || name === "AggregateError" || name === "DriverAdapterError";
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
