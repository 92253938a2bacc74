import { setTimeout as sleep } from "node:timers/promises";
import type { Reply, TokenBody } from "../../support/broker-api.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import type { Row } from "../row.ts";
import { connectMany, offences } from "../tools.ts";

const sizes = { full: { connections: 50, replicas: 4 }, short: { connections: 10, replicas: 2 } } as const;
const delayMs = 20_000;
/** Callers that stay to the end, that use the default, and that hardly wait. */
const waits = [30, 10, 1] as const;
const callEveryMs = 2500;

export const row: Row = {
  number: 3,
  title: "provider takes 20 s",
  promised: "1 refresh; callers 200, or 503 with Retry-After; 0 double sends",
  waits: true,
  async run({ scale }) {
    const { connections, replicas } = sizes[scale];
    await using stage = await ConnectedStage.start({ replicas, provider: { switches: { delayMs } } });
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const replies: Promise<Reply<TokenBody>>[] = [];
    const endMs = performance.now() + delayMs + callEveryMs;
    for (; performance.now() < endMs; await sleep(callEveryMs)) {
      for (const { api } of stage.brokers) {
        for (const name of names) for (const wait of waits) replies.push(api.token(name, { wait }));
      }
    }
    const answers = await Promise.all(replies);
    const served = answers.filter(({ status }) => status === 200).length;
    const told = answers.filter(isToldToRetry).length;
    const other = answers.length - served - told;
    const { ledger } = stage.provider;
    const sent = ledger.requestsTo("token").length;
    const { reuses, overlaps, sentTwice } = offences(ledger);
    const doubles = reuses + overlaps + sentTwice;
    return {
      ok: sent === connections && ledger.refreshes() === connections && doubles + other === 0 && served > 0,
      figure: `${ledger.refreshes()} refreshes of ${connections} connections by ${sent} requests, ${doubles} double sends; callers: ${served} × 200, ${told} × 503 with Retry-After, ${other} otherwise`,
    };
  },
};

function isToldToRetry({ status, headers }: Reply<TokenBody>): boolean {
  return status === 503 && Number(headers["retry-after"]) >= 1;
}
