import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify } from "fastify";
import type { Config } from "../config.ts";
import { cannotListen } from "../errors.ts";
import { installErrorHandler, serverOptions } from "./error-handler.ts";
import { metricsRoute, type MetricsRouteOptions } from "./routes/health.ts";

/** Serves `/metrics` on METRICS_PORT, if there is one. Returns how to stop it. */
export async function startMetricsServer(
  { host, metricsPort }: Config,
  options: MetricsRouteOptions,
): Promise<() => Promise<void>> {
  if (metricsPort === null) return async () => {};
  const app = fastify(serverOptions(null)).withTypeProvider<TypeBoxTypeProvider>();
  installErrorHandler(app);
  await metricsRoute(app, options);
  try {
    await app.listen({ host, port: metricsPort });
  } catch (error) {
    throw cannotListen("METRICS_PORT", { host, port: metricsPort }, error);
  }
  return async () => await app.close();
}
