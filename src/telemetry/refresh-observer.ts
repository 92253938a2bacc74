import type { Logger } from "pino";
import type { RefreshObserver } from "../tokens/observer.ts";
import type { Metrics } from "./metrics.ts";

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
        // That limits hold is what they are for, and they may hold back thousands.
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
    cameLate({ name, provider, generation }, fate) {
      if (fate === "duplicate") {
        log.warn({ connection: name, provider }, "a grant was not stored: another connection holds its refresh token");
        return;
      }
      if (fate !== "unwanted") metrics.uncertain.inc({ provider, resolution: fate });
      log.warn({ connection: name, provider, generation, outcome: fate }, "an answer came after its row had moved on");
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
    heldAfterRestore({ name, provider, generation }) {
      log.error(
        { connection: name, provider, generation },
        "the database has gone back in time; this connection is not refreshed until an operator runs freshet recover; keys that were revoked since may work again, and are listed there",
      );
    },
  };
}
