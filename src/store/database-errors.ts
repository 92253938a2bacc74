type DriverCause = { originalCode?: string; code?: string; kind?: string };
type PrismaError = Error & { code?: string; meta?: { driverAdapterError?: { cause?: DriverCause } } };

/** SQLSTATE classes of a server that is there but takes no work: connection, resources, operator, system, read-only. */
const unavailableStates = /^(08|53|57P|58|XX|25006)/;
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

/** One line for the operator: what the driver said, without the URL. */
export function causeOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(causeOf).join("; ");
  return error instanceof Error ? error.message.replaceAll(/\s+/g, " ").trim() : "unknown error";
}
