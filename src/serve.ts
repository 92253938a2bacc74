import { pino } from "pino";
import { createBroker, type Broker } from "./broker.ts";
import { systemClock, withDeadline } from "./clock.ts";
import type { Config } from "./config.ts";
import { StartupError } from "./errors.ts";
import { firstSteps } from "./first-steps.ts";
import { startMetricsServer } from "./http/metrics-server.ts";
import { createLogger } from "./telemetry/logger.ts";

/** The life of the process: broker → listen → drain. @throws StartupError for what the operator must mend */
export async function serve(config: Config): Promise<void> {
  const output = pino.destination(1);
  const log = createLogger(config.logLevel, output);
  const broker = await createBroker(config, log);
  const closeMetrics = await startMetricsServer(config, broker.metrics);
  await listen(broker, config);
  broker.lifecycle.ready = true;
  log.info({ port: config.port, publicUrl: config.publicUrl }, "ready");
  // Through the log's own stream, so that what a person is to read comes last.
  if (broker.sandbox !== null) output.write(await firstSteps(broker, config));
  await nextSignal();
  await stop(broker, config);
  await closeMetrics();
  log.info("stopped");
  // After the grace period nothing may keep the process, not even an answer that still waits to be stored.
  process.exit(0);
}

async function listen({ app }: Broker, { host, port }: Config): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new StartupError(
      `PORT ${port} on HOST ${host} cannot be listened on (${(error as NodeJS.ErrnoException).code})`,
    );
  }
}

/** Handled for good: npm passes on the SIGINT that a terminal has sent already, and a second one must not cut the end short. */
async function nextSignal(): Promise<void> {
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => resolve());
  });
}

/** No new requests; refreshes in flight are awaited, since their answers must be stored. */
async function stop(broker: Broker, { shutdownGraceSeconds }: Config): Promise<void> {
  broker.lifecycle.ready = false;
  const finished = broker.app.close().then(() => broker.tokens.settled());
  await withDeadline(finished, shutdownGraceSeconds * 1000, systemClock);
  await broker.close();
}
