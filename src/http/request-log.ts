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
        connection,
      },
      "answered",
    );
  });
}
