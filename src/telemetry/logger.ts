import { pino, type DestinationStream, type Logger } from "pino";

/** Fields that may be logged. An allow-list: a new field is silent until somebody has thought about it. */
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
  "signal",
  "err",
]);

/** JSON lines on stdout, without secrets: only listed fields, and of errors all but the message. */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    serializers: { err: describeError },
    formatters: {
      bindings: () => ({}),
      level: (label: string) => ({ level: label }),
      log: (fields: Record<string, unknown>) =>
        Object.fromEntries(Object.entries(fields).filter(([name]) => allowedFields.has(name))),
    },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
  };
  return destination === undefined ? pino(options) : pino(options, destination);
}

/** Messages are left out: drivers and libraries put values into them. The place in the code is enough to find the cause. */
function describeError(error: unknown): object {
  if (!(error instanceof Error)) return { name: typeof error };
  const frames = (error.stack ?? "").split("\n").filter((line) => line.startsWith("    at "));
  const { code } = error as { code?: unknown };
  return { name: error.name, ...(typeof code === "string" ? { code } : {}), stack: frames.slice(0, 12).join("\n") };
}
