import type { FastifyInstance } from "fastify";

/** One line for each answer: the route's pattern, never the URL, whose query may hold codes and states. */
export function installRequestLog(app: FastifyInstance): void {
  app.addHook("onResponse", async (request, reply) => {
    const { method, routeOptions, principal, params } = request;
    const { connection } = (params ?? {}) as { connection?: string };
    request.log.info(
      {
        method,
        route: routeOptions.url ?? "unknown",
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime * 10) / 10,
        key: principal?.keyId,
        connection: isKnown(reply.statusCode) ? connection : undefined,
      },
      "answered",
    );
  });
}

/** A path that names no connection may name anything: a key that was pasted into it, say. */
function isKnown(status: number): boolean {
  return status < 400 || status === 409 || status >= 500;
}
