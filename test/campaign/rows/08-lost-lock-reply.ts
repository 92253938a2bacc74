import { ConnectedStage } from "../../support/connected-stage.ts";
import { type FaultProxy, startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { until } from "../../support/patience.ts";
import { useRedis } from "../../support/services/index.ts";
import type { Row } from "../row.ts";
import { connectMany, offences } from "../tools.ts";

const endings = ["silence", "reset"] as const;

export const row: Row = {
  number: 8,
  title: "lock's SET applied, its reply dropped",
  promised: "no stall over 1 s",
  alone: true,
  onlyFull: "its figure is a time",
  async run({ scale, log }) {
    const redisUrl = await useRedis();
    await using toRedis = await startFaultProxy(redisUrl);
    const each = (replica: number) => ({ redisUrl: replica === 0 ? toRedis.url : redisUrl });
    await using stage = await ConnectedStage.start({ replicas: 2, redisUrl, each });
    const connections = await connectMany(stage, scale === "full" ? 200 : 6);
    const [beside] = await connectMany(stage, 1, "beside");
    const stallsMs: number[] = [];
    const usualMs: number[] = [];
    for (const [index, { name }] of connections.entries()) {
      usualMs.push(await refreshUndisturbed(stage, beside?.name ?? ""));
      stallsMs.push(...(await readWithoutReply({ stage, toRedis, name, ending: endings[index % 2] ?? "silence" })));
      if (index % 50 === 49) log(`${index + 1} locks taken without a reply`);
    }
    const { reuses, overlaps } = offences(stage.provider.ledger);
    const longestMs = Math.round(Math.max(...stallsMs));
    const usualLongestMs = Math.round(Math.max(...usualMs));
    const { lostAnswers } = toRedis.counts;
    return {
      ok: longestMs <= 1000 + usualLongestMs && lostAnswers === connections.length && reuses + overlaps === 0,
      figure: `longest read ${longestMs} ms, of ${lostAnswers} lost replies (a refresh without one took at most ${usualLongestMs} ms); ${reuses + overlaps} duplicate sends`,
    };
  },
};

type Scene = { stage: ConnectedStage; toRedis: FaultProxy; name: string; ending: (typeof endings)[number] };

/** The replica that gets no reply to its SET reads, and so does its peer. @returns how long each took */
async function readWithoutReply({ stage, toRedis, name, ending }: Scene): Promise<number[]> {
  await untilConnected(stage, toRedis);
  const before = toRedis.counts.lostAnswers;
  toRedis.faults.lostAnswers = { from: "refresh:", times: 1, ending };
  const first = timed(stage, 0, name);
  // The lock is there before the peer asks for it.
  await until("the reply to be lost", () => toRedis.counts.lostAnswers > before, { everyMs: 1 });
  const tookMs = await Promise.all([first, timed(stage, 1, name)]);
  toRedis.faults.lostAnswers = null;
  toRedis.reset();
  return tookMs;
}

/** How long the same takes on this machine, with every reply. */
async function refreshUndisturbed({ first }: ConnectedStage, name: string): Promise<number> {
  const startedMs = performance.now();
  await first.api.api(`/connections/${name}/refresh`, { method: "POST" });
  return performance.now() - startedMs;
}

async function timed(stage: ConnectedStage, replica: number, name: string): Promise<number> {
  const startedMs = performance.now();
  const reply = await stage.brokers[replica]?.api.token(name);
  if (reply?.status !== 200) throw new Error(`${name} was answered with ${reply?.status} ${reply?.body.code}`);
  return performance.now() - startedMs;
}

/** Both of the replica's connections to Redis, for commands and for messages. */
async function untilConnected(stage: ConnectedStage, toRedis: FaultProxy): Promise<void> {
  const isReady = async () => {
    const { body } = await stage.first.api.api<{ checks: { redis: string } }>("/readyz");
    return body.checks.redis === "ok" && toRedis.open >= 2;
  };
  await until("Redis to be connected", isReady);
}
