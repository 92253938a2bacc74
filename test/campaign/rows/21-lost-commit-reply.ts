import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { useDatabase } from "../../support/services/index.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

/** Stands in the statement that stores an answer, and in no other. */
const commit = "last_attempt_id = c.attempt_id";

/** `silent`: of these the line goes dead, and ends when the statement's time is over; of the others it is reset at once. */
const sizes = { full: { connections: 100, silent: 20 }, short: { connections: 12, silent: 0 } } as const;

export const row: Row = {
  number: 21,
  title: "COMMIT's acknowledgement dropped × 100",
  promised: "generation moves by exactly 1 each",
  async run({ scale, log }) {
    const { connections: count, silent } = sizes[scale];
    const databaseUrl = await useDatabase();
    await using toPostgres = await startFaultProxy(databaseUrl);
    await using stage = await ConnectedStage.start({ databaseUrl: toPostgres.url });
    const connections = await connectMany(stage, count);
    const names = connections.map(({ name }) => name);
    const before = await generations(databaseUrl);
    const refresh = async (name: string, ending: "silence" | "reset") => {
      const lost = toPostgres.counts.lostAnswers;
      toPostgres.faults.lostAnswers = { from: commit, times: 1, ending };
      await stage.first.api.token(name, { wait: 30 });
      if (toPostgres.counts.lostAnswers !== lost + 1) throw new Error(`${name}: no acknowledgement was dropped`);
    };
    for (const name of names.slice(silent)) await refresh(name, "reset");
    log(`${count - silent} refreshed, each over a line that was reset`);
    for (const name of names.slice(0, silent)) await refresh(name, "silence");
    toPostgres.heal();
    await sleep(500);

    const after = await generations(databaseUrl);
    const moved = names.map((name) => (after.get(name) ?? 0) - (before.get(name) ?? 0));
    const wrong = moved.filter((by) => by !== 1).length;
    const versions = await inBatches(
      count,
      10,
      async (index) => (await stage.first.api.token(names[index] ?? "")).body,
    );
    const stale = versions.filter(({ access_token }) => !isNewest(stage, access_token)).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    const { lostAnswers } = toPostgres.counts;
    return {
      ok: wrong + stale + reuses + overlaps + sentTwice === 0 && lostAnswers === count,
      figure: `${lostAnswers} acknowledgements dropped, ${wrong} generations moved otherwise, ${stale} wrong tokens, ${reuses + overlaps + sentTwice} duplicate sends`,
      notes: wrong === 0 ? [] : [`generations moved by ${moved.join(" ")}`],
    };
  },
};

/** The last access token of its family. */
function isNewest({ provider }: ConnectedStage, accessToken: string): boolean {
  const { ledger } = provider;
  const family = ledger.familyOf(accessToken);
  const newest = ledger.tokens.findLast((token) => token.kind === "access" && token.family === family);
  return newest?.value === accessToken;
}

async function generations(databaseUrl: string): Promise<Map<string, number>> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  const { rows } = await client.query<{ name: string; generation: number }>("SELECT name, generation FROM connections");
  await client.end();
  return new Map(rows.map(({ name, generation }) => [name, generation]));
}
