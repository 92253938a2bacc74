import type { Logger } from "pino";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { processTimes } from "../time.ts";
import type { Alarms, RefreshObserver } from "../tokens/core.ts";

export type Metrics = ReturnType<typeof createMetrics>;

/** What this process counts, in Prometheus's terms. Labels come from closed sets and provider ids: never from callers. */
export function createMetrics() {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // Plain numbers, since each read counts. The registry takes them when the metrics are scraped.
  const reads = new Map<string, { count: number }>();
  const readsWith = (result: string): { count: number } => {
    const known = reads.get(result) ?? { count: 0 };
    reads.set(result, known);
    return known;
  };
  void new Counter({
    name: "freshet_token_reads_total",
    help: "Answers of GET /tokens by result: ok, stale (served although its refresh is failing), or the error's code",
    labelNames: ["result"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [result, { count }] of reads) if (count > 0) this.inc({ result }, count);
    },
  });
  const refreshes = new Counter({
    name: "freshet_refreshes_total",
    help: "Requests to token endpoints by provider and outcome: stored, or the class of the failure",
    labelNames: ["provider", "outcome"],
    registers: [registry],
  });
  const refreshSeconds = new Histogram({
    name: "freshet_refresh_seconds",
    help: "From sending a token request to the stored answer or the failure",
    labelNames: ["provider"],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 25],
    registers: [registry],
  });
  const lostRotations = new Counter({
    name: "freshet_lost_rotation_total",
    help: "Grants that have ended because the answer to a rotation never reached the store",
    labelNames: ["provider"],
    registers: [registry],
  });
  const uncertain = new Counter({
    name: "freshet_refresh_uncertain_total",
    help: "Attempts whose outcome was unknown, by how they ended: replayed, drained, promoted, candidate, lost",
    labelNames: ["provider", "resolution"],
    registers: [registry],
  });
  const exposure = new Histogram({
    name: "freshet_refresh_exposure_seconds",
    help: "From a token endpoint's answer to its first durable copy: the window in which a crash can lose it",
    labelNames: ["provider"],
    buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5],
    registers: [registry],
  });
  const spoolFailures = new Counter({
    name: "freshet_spool_failures_total",
    help: "Times that DATA_DIR or Redis did not take, give or remove a spooled answer",
    labelNames: ["place"],
    registers: [registry],
  });
  const clientTrouble = new Counter({
    name: "freshet_client_rejected_total",
    help: "Times a client that had worked was refused by its provider",
    labelNames: ["provider"],
    registers: [registry],
  });
  const probablyDead = new Counter({
    name: "freshet_probably_dead_total",
    help: "Connections whose provider refused them again and again without saying why, after their access token had run out",
    labelNames: ["provider"],
    registers: [registry],
  });
  const oldSecrets = new Counter({
    name: "freshet_old_secret_used_total",
    help: "Clients whose newest secret was refused while the one before worked",
    labelNames: ["provider"],
    registers: [registry],
  });
  const delayedCommits = new Counter({
    name: "freshet_commit_delays_total",
    help: "Tries to store an answer that the database did not take at once",
    registers: [registry],
  });
  const unreadableSecrets = new Counter({
    name: "freshet_unreadable_secrets_total",
    help: "Times that a sealed value of the database or of a spool did not open",
    registers: [registry],
  });
  const redisRejected = new Counter({
    name: "freshet_redis_rejected_total",
    help: "What was read from Redis and not written by this broker, by kind: mark, spool, news, end. It counted as absent",
    labelNames: ["kind"],
    registers: [registry],
  });
  return {
    registry,
    readsWith,
    refreshes,
    refreshSeconds,
    lostRotations,
    uncertain,
    exposure,
    spoolFailures,
    clientTrouble,
    probablyDead,
    oldSecrets,
    delayedCommits,
    unreadableSecrets,
    redisRejected,
  };
}

/** Ages of permits that stand in Postgres, read by one query when the metrics are scraped. */
export function measurePermits(
  { registry }: Metrics,
  readAges: () => Promise<{ count: number; oldestSeconds: number }>,
): void {
  let reading: Promise<{ count: number; oldestSeconds: number } | null> | null = null;
  // Without Postgres the last figures stay: a scrape must not fail.
  const read = () => (reading ??= readAges().catch(() => null)).finally(() => (reading = null));
  const measure = (name: string, help: string, figure: "count" | "oldestSeconds") =>
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const ages = await read();
        if (ages !== null) this.set(ages[figure]);
      },
    });
  measure("freshet_permits", "Permits to send that stand in Postgres", "count");
  const ageHelp = "Age of the oldest permit; above 30 its sender is gone, or the outcome is unknown";
  measure("freshet_permit_age_seconds", ageHelp, "oldestSeconds");
}

/** Counts refreshes and logs what somebody should look at. A client in trouble is reported once, until it works again. */
export function createRefreshObserver(metrics: Metrics, log: Logger): RefreshObserver {
  const clientsInTrouble = new Set<string>();
  return {
    succeeded({ row, client }, { replay, seconds }) {
      if (client !== null) clientsInTrouble.delete(client.id);
      metrics.refreshes.inc({ provider: row.provider, outcome: "stored" });
      if (replay) metrics.uncertain.inc({ provider: row.provider, resolution: "replayed" });
      metrics.refreshSeconds.observe({ provider: row.provider }, seconds);
      log.debug(
        { connection: row.name, provider: row.provider, generation: row.generation + 1, replay, seconds },
        "refreshed",
      );
    },
    failed({ row, client }, { failure, replay, seconds }) {
      const { provider, name: connection } = row;
      metrics.refreshes.inc({ provider, outcome: failure.class });
      metrics.refreshSeconds.observe({ provider }, seconds);
      if (failure.class !== "client_rejected") {
        const told = { connection, provider, code: failure.code, status: failure.status, replay, seconds };
        // Requests that limits do not admit are normal, and there may be thousands of them.
        if (failure.code === "limit_reached") log.debug(told, "held back by the provider's limits");
        else log.warn(told, "refresh failed");
      } else if (client !== null && !clientsInTrouble.has(client.id)) {
        clientsInTrouble.add(client.id);
        metrics.clientTrouble.inc({ provider });
        log.error(
          { client: client.name, provider, code: failure.code },
          "the provider refuses this client: its id, its secret, or that it may use this grant",
        );
      }
    },
    commitDelayed({ name, provider }, error) {
      metrics.delayedCommits.inc();
      log.error(
        { connection: name, provider, err: error },
        "an answer could not be stored yet; it is kept and tried again",
      );
    },
    durable: ({ provider }, { seconds }) => metrics.exposure.observe({ provider }, seconds),
    cameLate({ name, provider, generation }, placement) {
      if (placement === "duplicate") {
        log.warn({ connection: name, provider }, "a grant was not stored: another connection holds its refresh token");
        return;
      }
      if (placement !== "unwanted") metrics.uncertain.inc({ provider, resolution: placement });
      log.warn(
        { connection: name, provider, generation, outcome: placement },
        "an answer came after its row had moved on",
      );
    },
    drained({ name, provider }) {
      metrics.uncertain.inc({ provider, resolution: "drained" });
      log.warn({ connection: name, provider }, "an answer that waited in the spool is stored");
    },
    lost({ name, provider }) {
      metrics.uncertain.inc({ provider, resolution: "lost" });
      metrics.lostRotations.inc({ provider });
      log.error({ connection: name, provider }, "a grant has ended: the answer to its last refresh never came in");
    },
    probablyDead({ name, provider, refusals }) {
      metrics.probablyDead.inc({ provider });
      log.warn(
        { connection: name, provider, refusals },
        "the provider refuses this connection again and again without saying why; its grant is probably dead",
      );
    },
    oldSecretUsed({ name, provider }, client) {
      metrics.oldSecrets.inc({ provider });
      log.warn(
        { connection: name, provider, client: client.name },
        "the provider refuses this client's newest secret; the one before it works still",
      );
    },
    suspendedAfterRestore({ name, provider, generation }) {
      log.error(
        { connection: name, provider, generation },
        "the database has gone back in time; this connection is not refreshed until an operator runs freshet recover; keys that were revoked since may work again, and are listed there",
      );
    },
  };
}

const mostRemembered = 10_000;

/** Counts each, and logs the same thing once a minute, so that somebody who writes garbage does not fill the log. */
export function createAlarms(metrics: Metrics, log: Logger, monotonicMs: () => number): Alarms {
  const toldAtMs = new Map<string, number>();
  const counted = new WeakSet<object>();
  const isNews = (what: string): boolean => {
    const nowMs = monotonicMs();
    if (nowMs - (toldAtMs.get(what) ?? -Infinity) < processTimes.logQuietMs) return false;
    if (toldAtMs.size >= mostRemembered) toldAtMs.clear();
    toldAtMs.set(what, nowMs);
    return true;
  };
  return {
    unreadable(error) {
      if (counted.has(error)) return; // the same error, counted when it was thrown
      counted.add(error);
      metrics.unreadableSecrets.inc();
      const { place, keyId, reason, context } = error;
      const { table, row: rowId, column } = place;
      const told = { connection: context.connection, table, rowId, column, keyId, code: reason };
      if (isNews(`${place.table} ${place.row} ${place.column}`)) log.error(told, "a stored secret does not open");
    },
    rejected(kind, rowId) {
      metrics.redisRejected.inc({ kind });
      if (isNews(kind)) log.error({ kind, rowId }, "what Redis holds is not ours; it counts as absent");
    },
  };
}
