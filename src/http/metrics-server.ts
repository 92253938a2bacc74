import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify } from "fastify";
import type { Config } from "../config.ts";
import { StartupError } from "../errors.ts";
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
    const { code } = error as NodeJS.ErrnoException;
    throw new StartupError(`METRICS_PORT ${metricsPort} on HOST ${host} cannot be listened on (${code})`);
  }
  return async () => await app.close();
}
