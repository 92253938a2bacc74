import {
  type Bindings,
  type ChildLoggerOptions,
  type DestinationStream,
  type LogFn,
  type Logger,
  type LoggerOptions,
  pino,
} from "pino";
import { BrokerError } from "../errors.ts";
import { withoutControls } from "../text.ts";

/** Fields that may be logged. This is an allow-list: a new field is not logged until somebody adds it here. */
const allowedFields = new Set([
  "reqId",
  "method",
  "route",
  "status",
  "ms",
  "key",
  "connection",
  "provider",
  "client",
  "outcome",
  "code",
  "generation",
  "replay",
  "seconds",
  "port",
  "publicUrl",
  "database",
  "redis",
  "path",
  "place",
  "table",
  "rowId",
  "column",
  "keyId",
  "kind",
  "signal",
  "host",
  "said",
  "issuer",
  "refused",
  "refusals",
  "variable",
  "version",
  "providers",
  "settings",
  "audit",
]);

/** The one field with fields of its own: `freshet audit verify` reads it. */
const auditHead = "audit_head";

/** JSON lines on stdout, without secrets: only the listed fields, with plain values, and errors without their message. */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options: LoggerOptions = {
    level,
    base: null,
    serializers: { err: describeError },
    formatters: { level: (label) => ({ level: label }), log: allowed },
    hooks: { logMethod: withText },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
  };
  return filterChildren(destination === undefined ? pino(options) : pino(options, destination));
}

/** pino writes the bindings of a child logger without the formatters, so they are filtered here. */
function filterChildren(log: Logger): Logger {
  const child = log.child.bind(log);
  const filtered = (bindings: Bindings, options: ChildLoggerOptions = {}) =>
    filterChildren(child(allowed(bindings), options));
  return Object.assign(log, { child: filtered });
}

function allowed(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(
      ([name, value]) => name === "err" || name === auditHead || (allowedFields.has(name) && isPlain(value)),
    ),
  );
}

function isPlain(value: unknown): boolean {
  return value === null || typeof value !== "object";
}

/** If a line has no text, pino would use the error's message. */
function withText(this: Logger, given: Parameters<LogFn>, method: LogFn): void {
  const [first, text] = given as [unknown, string?];
  if (typeof first === "object" && text === undefined) method.apply(this, [first, "no text"]);
  else method.apply(this, given);
}

/**
 * Messages are left out, since drivers and libraries put values into them. The place in the code is enough to find the cause; if the cause lies
 * in a network, a disk or a database, the code of the error says it.
 */
function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { name: typeof error };
  const { code, message, name, stack = "" } = error as Error & { code?: unknown };
  const told = { name, ...(typeof code === "string" ? { code } : {}) };
  if (liesOutside(error)) return told;
  const place = stack.slice(stack.indexOf(message) + message.length);
  const frames = place.split("\n").filter((line) => line.startsWith("    at "));
  return { ...told, stack: frames.slice(0, 12).join("\n") };
}

/** Error codes of Node's system calls, SQLite and the Redis client, and the codes that callers get. */
function liesOutside(error: Error): boolean {
  return error instanceof BrokerError || "syscall" in error || "errstr" in error || outsideNames.has(error.name);
}

const outsideNames = new Set(["ReplyError", "MaxRetriesPerRequestError", "AbortError", "ClusterAllFailedError"]);

/** Where lines for a person go. */
type Terminal = { write(text: string): unknown };

/** Fields that are in the text already, or that do not help a person. */
const left = new Set(["level", "time", "msg", "reqId", "settings"]);

/** Writes the log's JSON lines as text, for a person at a terminal. Other lines stay as they are. */
export function plainLines(terminal: Terminal): Terminal {
  return { write: (line) => terminal.write(readLine(line) ?? line) };
}

function readLine(line: string): string | null {
  try {
    const fields = JSON.parse(line) as Record<string, unknown>;
    if (auditHead in fields) return ""; // for programs
    const text = String(fields["msg"]);
    const more = Object.entries(fields)
      .filter(
        ([name, value]) => !left.has(name) && !text.includes(typeof value === "string" ? value : JSON.stringify(value)),
      )
      .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
    const level = fields["level"] === "info" ? "" : `${String(fields["level"])}: `;
    return `${withoutControls([`${level}${text}`, ...more].join(" "))}\n`; // on one line, since values may come from outside
  } catch {
    return null;
  }
}
