import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify } from "fastify";
import type { Config } from "../config.ts";
import { cannotListen } from "../errors.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { installErrorHandler, serverOptions } from "./error-handler.ts";
import { metricsRoute } from "./routes/health.ts";

/** Serves `/metrics` on METRICS_PORT, if there is one. Returns how to stop it. */
export async function startMetricsServer(
  { host, metricsPort, metricsKey }: Config,
  { registry }: Metrics,
): Promise<() => Promise<void>> {
  if (metricsPort === null) return async () => {};
  const app = fastify(serverOptions).withTypeProvider<TypeBoxTypeProvider>();
  installErrorHandler(app);
  await metricsRoute(app, { render: async () => await registry.metrics(), metricsKey });
  try {
    await app.listen({ host, port: metricsPort });
  } catch (error) {
    throw cannotListen("METRICS_PORT", { host, port: metricsPort }, error);
  }
  return async () => await app.close();
}
