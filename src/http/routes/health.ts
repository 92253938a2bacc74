import { createHash, timingSafeEqual } from "node:crypto";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify } from "fastify";
import { Type } from "typebox";
import type { Config } from "../../config.ts";
import { BrokerError, cannotListen } from "../../errors.ts";
import { countWrongKey } from "../auth.ts";
import { installErrorHandler, serverOptions } from "../error-handler.ts";
import { answerHeaders } from "../headers.ts";
import type { MinuteLimit } from "../limits.ts";
import { type ApiScope, literals, named } from "../schemas.ts";

type Check = "ok" | "unavailable" | "not_configured";

export type HealthRoutesOptions = {
  /** False before start-up ends and while draining. */
  isReady: () => boolean;
  check: () => Promise<{ database: Check; redis: Check }>;
};

const checkSchema = literals(["ok", "unavailable", "not_configured"], {
  title: "Check",
  description: "not_configured: this broker uses none",
});

const livenessSchema = named(
  "Liveness",
  { description: "The process runs", example: { status: "ok" } },
  { status: Type.Literal("ok", { description: "Always ok" }) },
);

const readinessSchema = named(
  "Readiness",
  {
    description: "Whether requests may be sent here",
    example: { status: "ok", checks: { database: "ok", redis: "ok" } },
  },
  {
    status: literals(["ok", "degraded", "unavailable"], {
      description: "degraded: cached tokens are served; unavailable: the broker starts or stops",
    }),
    checks: named(
      "Checks",
      { description: "What the broker needs", example: { database: "ok", redis: "not_configured" } },
      { database: checkSchema, redis: checkSchema },
    ),
  },
);

/** `/livez` and `/readyz`, for orchestrators and load balancers: no key. */
export async function healthRoutes(app: ApiScope, { isReady, check }: HealthRoutesOptions): Promise<void> {
  const tags = ["health"];
  const alive = {
    operationId: "getLiveness",
    summary: "The process runs",
    description: "For orchestrators: it asks neither Postgres nor Redis.",
    tags,
    security: [],
    response: { 200: livenessSchema },
  };
  app.get("/livez", { schema: alive, logLevel: "silent" }, async () => ({ status: "ok" as const }));

  // 200 also without Postgres or Redis: cached tokens are served, and if every replica were taken out, none would be.
  const ready = {
    operationId: "getReadiness",
    summary: "Requests may be sent here",
    description: "For load balancers: 503 only before start-up ends and while the broker stops.",
    tags,
    security: [],
    response: { 200: readinessSchema, 503: readinessSchema },
  };
  app.get("/readyz", { schema: ready, logLevel: "silent" }, async (_request, reply) => {
    const checks = await check();
    if (!isReady()) return await reply.code(503).send({ status: "unavailable", checks });
    const degraded = Object.values(checks).includes("unavailable");
    return await reply.code(200).send({ status: degraded ? "degraded" : "ok", checks });
  });
}

export type MetricsRouteOptions = { render: () => Promise<string>; metricsKey: string | null; wrongKeys: MinuteLimit };

/** `/metrics` in Prometheus text, to everybody or only to a bearer. */
export async function metricsRoute(
  app: ApiScope,
  { render, metricsKey, wrongKeys }: MetricsRouteOptions,
): Promise<void> {
  const schema = {
    operationId: "getMetrics",
    summary: "Prometheus text",
    description: "To everybody, or only to the bearer METRICS_KEY where one is set.",
    tags: ["health"],
    security: [],
    problems: ["unauthenticated", "rate_limited"] as const,
    response: {
      200: Type.String({ description: "Metrics in the Prometheus text format", example: "freshet_permits 0\n" }),
    },
  };
  app.get("/metrics", { schema, logLevel: "silent" }, async (request, reply) => {
    if (metricsKey !== null && !isSame(request.headers.authorization ?? "", `Bearer ${metricsKey}`)) {
      countWrongKey(request, wrongKeys);
      throw new BrokerError("unauthenticated", "Metrics need the bearer METRICS_KEY.");
    }
    return await reply.type("text/plain; version=0.0.4; charset=utf-8").send(await render());
  });
}

function isSame(given: string, expected: string): boolean {
  const [a, b] = [given, expected].map((text) => createHash("sha256").update(text).digest()) as [Buffer, Buffer];
  return timingSafeEqual(a, b);
}

/** Serves `/metrics` on METRICS_PORT, if there is one. Returns how to stop it. */
export async function startMetricsServer(
  { host, metricsPort, publicUrl }: Pick<Config, "host" | "metricsPort" | "publicUrl">,
  options: MetricsRouteOptions,
): Promise<() => Promise<void>> {
  if (metricsPort === null) return async () => {};
  const answering = { asker: null, headers: answerHeaders(publicUrl) };
  const app = fastify(serverOptions(answering)).withTypeProvider<TypeBoxTypeProvider>();
  installErrorHandler(app, answering);
  await metricsRoute(app, options);
  try {
    await app.listen({ host, port: metricsPort });
  } catch (error) {
    throw cannotListen("METRICS_PORT", { host, port: metricsPort }, error);
  }
  return async () => await app.close();
}
