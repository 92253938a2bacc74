import { url as debuggerAddress } from "node:inspector";
import { pino } from "pino";
import { type Broker, createBroker } from "../broker.ts";
import { systemClock, withDeadline } from "../clock.ts";
import type { Config, Environment } from "../config.ts";
import { cannotListen, isStorageUnavailable } from "../errors.ts";
import { startMetricsServer } from "../http/routes/health.ts";
import { createLogger, plainLines } from "../telemetry/logger.ts";
import { processTimes } from "../time.ts";
import { firstSteps, tellStart } from "./first-steps.ts";
import { addressWarnings, debuggerWarnings, firstWarnings, roleWarnings } from "./first-warnings.ts";
import { withPrintedKeyring } from "./keys-command.ts";

/** The life of the process: broker → listen → drain. @throws StartupError for what the operator must mend */
export async function serve(configured: Config, given: Environment): Promise<void> {
  const output = process.stdout.isTTY ? plainLines(process.stdout) : pino.destination(1);
  const log = createLogger(configured.logLevel, output);
  const debugged = debuggerWarnings(configured, debuggerAddress());
  for (const { text, ...about } of [...firstWarnings(given), ...addressWarnings(configured, given.file), ...debugged]) {
    log.warn(about, text);
  }
  const config = await withPrintedKeyring(configured, { env: given.env, log, clock: systemClock });
  const broker = await createBroker(config, log);
  // Only now: a start that is refused says nothing else.
  for (const { text, ...about } of roleWarnings(config)) log.warn(about, text);
  const closeMetrics = await startMetricsServer(config, broker.metricsRoute);
  await listen(broker, config);
  // Before the replica says that it is ready. If this fails or takes long, callers are served all the same.
  const recovered = broker.core.recover().catch((err: unknown) => {
    if (!isStorageUnavailable(err)) log.warn({ err }, "recovery at the start failed"); // an outage is logged once, elsewhere
  });
  await withDeadline(recovered, processTimes.recoveryPatienceMs, systemClock);
  broker.core.sweeper.start();
  broker.lifecycle.ready = true;
  if (config.providerNetworks.length > 0) {
    log.info("PROVIDER_NETWORKS counts for every provider; `networks` in a definition's file counts for it alone");
  }
  await tellStart(broker, { config, given, log });
  const signals = listenForSignals();
  // Through the log's own stream, so that a person reads it last. Nothing waits for it.
  if (broker.sandbox !== null) void firstSteps(broker, { config, given, log }).then((text) => output.write(text));
  const first = await signals.next();
  await stop(broker, config, { first, signals });
  await closeMetrics();
  log.info("stopped");
  // After the grace period the process ends, even if an answer is still not stored.
  process.exit(0);
}

async function listen({ app }: Broker, { host, port }: Config): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw cannotListen("PORT", { host, port }, error);
  }
}

type Signals = { next(): Promise<NodeJS.Signals> };

/**
 * Handled for good. A terminal's Ctrl-C comes twice, from the terminal and passed on by npm, so that a SIGINT right after
 * another is the same one.
 */
function listenForSignals(): Signals {
  const waiting: ((signal: NodeJS.Signals) => void)[] = [];
  let lastMs = -Infinity;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      const isEcho = signal === "SIGINT" && systemClock.monotonicMs() - lastMs < processTimes.interruptEchoMs;
      lastMs = systemClock.monotonicMs();
      if (!isEcho) waiting.shift()?.(signal);
    });
  }
  return { next: () => new Promise((resolve) => void waiting.push(resolve)) };
}

type Ending = { first: NodeJS.Signals; signals: Signals };

/**
 * Drains: it takes no new permits at once, and no new readers after a load balancer has had time to see that it is not ready. It waits for
 * requests in flight, since their answers must be stored. After a second signal, or the grace period, it spools every unstored answer.
 */
async function stop(broker: Broker, { shutdownGraceSeconds }: Config, { first, signals }: Ending): Promise<void> {
  broker.lifecycle.ready = false;
  broker.core.drain();
  const impatient = signals.next();
  const finish = async () => {
    // A process that ends by Ctrl-C has no load balancer in front of it.
    if (first === "SIGTERM") await Promise.race([systemClock.sleep(processTimes.lameDuckMs), impatient]);
    await broker.app.close();
    await broker.core.idle();
  };
  await withDeadline(Promise.race([finish(), impatient]), shutdownGraceSeconds * 1000, systemClock);
  await withDeadline(broker.core.spoolAll(), processTimes.lastWordMs, systemClock);
  await broker.close();
}
