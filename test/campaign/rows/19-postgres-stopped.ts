import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startPrivatePostgres } from "../../support/services/index.ts";
import { refusalsIn, type Sample, startLoad } from "../load.ts";
import type { Row } from "../row.ts";
import { connectMany } from "../tools.ts";

/** Postgres stops before the tokens are due, at 75 % of their life. The reads end before the tokens do. */
const sizes = {
  full: { lifeSeconds: 110, stopAfterSeconds: 70, connections: 50, perSecond: 200 },
  short: { lifeSeconds: 18, stopAfterSeconds: 11.5, connections: 20, perSecond: 100 },
} as const;
const endOfReads = 0.93;
/** A part of the life. Before it, no token is due. */
const earliestDue = 0.7;
const tooSlow = "this machine took so long to stop Postgres that the tokens were due before: nothing was measured";

export const row: Row = {
  number: 19,
  title: "Postgres stopped 30 s, cached tokens",
  promised: "0 failed reads, 0 refreshes started",
  alone: "full",
  onlyFull:
    "it lives through a token's life; test/unit/store/read-cache and test/integration/fresh-read prove that cached tokens are served",
  async run({ scale, log }) {
    const size = sizes[scale];
    await using postgres = await startPrivatePostgres();
    const provider = { switches: { accessLifeSeconds: size.lifeSeconds } };
    await using stage = await ConnectedStage.start({ replicas: 2, databaseUrl: postgres.url, provider });
    const names = (await connectMany(stage, size.connections)).map(({ name }) => name);
    const readAll = async () => {
      for (const { api } of stage.brokers) await Promise.all(names.map((name) => api.token(name, { min_ttl: 0 })));
    };
    const issuedMs = performance.now();
    await readAll();
    await sleep(issuedMs + size.stopAfterSeconds * 1000 - performance.now());
    await readAll();
    await postgres.stop();
    const sentBefore = stage.provider.ledger.requestsTo("token").length;
    const endMs = issuedMs + size.lifeSeconds * 1000;
    if (performance.now() > issuedMs + earliestDue * size.lifeSeconds * 1000) return { ok: true, figure: tooSlow };
    log("Postgres stopped");
    const load = startLoad(size.perSecond, async (index) => {
      const { api } = stage.brokers[index % 2] ?? stage.first;
      return (await api.token(names[Math.floor(index / 2) % names.length] ?? "", { min_ttl: 0 })).status;
    });
    const stoppedMs = performance.now();
    await sleep(issuedMs + endOfReads * size.lifeSeconds * 1000 - stoppedMs);
    await load.stop();
    const stoppedSeconds = Math.round((performance.now() - stoppedMs) / 1000);
    const sent = stage.provider.ledger.requestsTo("token").length - sentBefore;
    await postgres.restart();
    // An answer that comes after the token's end, on a slow machine, says nothing.
    const isInTime = ({ startedMs, tookMs }: Sample) => startedMs + tookMs < endMs;
    const failed = load.samples.filter((sample) => sample.status !== 200 && isInTime(sample)).length;
    return {
      ok: failed === 0 && sent === 0 && sentBefore >= names.length && load.samples.length > 0,
      figure: `${failed} of ${load.samples.length} reads failed in ${stoppedSeconds} s, ${sent} refreshes started, tokens up to ${endOfReads * 100} % of their life`,
      notes: refusalsIn(load),
    };
  },
};
