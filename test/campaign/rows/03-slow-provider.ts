import { setTimeout as sleep } from "node:timers/promises";
import type { Reply, TokenBody } from "../../support/broker-api.ts";
import { openGround } from "../fleets.ts";
import type { Row } from "../row.ts";
import { connectMany, offences } from "../tools.ts";

const sizes = { full: { connections: 50, replicas: 4 }, short: { connections: 4, replicas: 2 } } as const;
const providerMs = 20_000;
/** The waits of callers: one waits to the end, one uses the default, one hardly waits. */
const waits = [30, 10, 1] as const;
const callEveryMs = 2500;

export const row: Row = {
  number: 3,
  title: "provider takes 20 s",
  promised: "1 refresh; callers 200, or 503 with Retry-After; 0 double sends",
  plays: { how: "beside" },
  async run(given) {
    const { connections, replicas } = sizes[given.scale];
    await using ground = await openGround(given, row, { replicas });
    const { stage } = ground;
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const release = stage.provider.holdTokens();
    const replies: Promise<Reply<TokenBody>>[] = [];
    const callAll = async () => {
      const calls = stage.brokers.flatMap(({ api }) =>
        names.flatMap((name) => waits.map((wait) => ({ wait, reply: api.token(name, { wait }) }))),
      );
      replies.push(...calls.map(({ reply }) => reply));
      await Promise.all(calls.filter(({ wait }) => wait === 1).map(({ reply }) => reply));
    };
    // In the short size, for as long as the callers with the shortest wait.
    if (given.scale === "short") await callAll();
    for (let passedMs = 0; given.scale === "full" && passedMs < providerMs; passedMs += callEveryMs) {
      void callAll();
      await sleep(callEveryMs);
    }
    release();
    await callAll();
    const answers = await Promise.all(replies);
    const served = answers.filter(({ status }) => status === 200).length;
    const told = answers.filter(isToldToRetry).length;
    const other = answers.length - served - told;
    const { ledger } = stage.provider;
    const sent = ledger.requestsTo("token").length;
    const { reuses, overlaps, sentTwice } = offences(ledger);
    const doubles = reuses + overlaps + sentTwice;
    return {
      ok: sent === connections && ledger.refreshes() === connections && doubles + other === 0 && served > 0 && told > 0,
      figure: `${ledger.refreshes()} refreshes of ${connections} connections by ${sent} requests, ${doubles} double sends; callers: ${served} × 200, ${told} × 503 with Retry-After, ${other} otherwise`,
    };
  },
};

function isToldToRetry({ status, headers }: Reply<TokenBody>): boolean {
  return status === 503 && Number(headers["retry-after"]) >= 1;
}
