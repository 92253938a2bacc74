import { setTimeout as sleep } from "node:timers/promises";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { useDatabase } from "../../support/services/index.ts";
import { queryRows } from "../query-rows.ts";
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
      // Served out of the spool, perhaps, while the statement still waits for a connection.
      await until(() => toPostgres.counts.lostAnswers > lost, `an acknowledgement for ${name}`);
    };
    for (const name of names.slice(silent)) await refresh(name, "reset");
    log(`${count - silent} refreshed, each over a line that was reset`);
    for (const name of names.slice(0, silent)) await refresh(name, "silence");
    toPostgres.heal();
    const moved = await movesSince(before, databaseUrl);
    const wrong = moved.filter((by) => by !== 1).length;
    const stale = (await readAll(stage, names)).filter((token) => !isNewest(stage, token)).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    const { lostAnswers } = toPostgres.counts;
    return {
      ok: wrong + stale + reuses + overlaps + sentTwice === 0 && lostAnswers === count,
      figure: `${lostAnswers} acknowledgements dropped, ${wrong} generations moved otherwise, ${stale} wrong tokens, ${reuses + overlaps + sentTwice} duplicate sends`,
      notes: wrong === 0 ? [] : [`generations moved by ${moved.join(" ")}`],
    };
  },
};

/** @throws when it is not so within a minute */
async function until(isSo: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const endMs = performance.now() + 60_000;
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`waited in vain for ${what}`);
    await sleep(20);
  }
}

/** By how much each generation has moved, once all have, and a second commit of the same answer would have come. */
async function movesSince(before: ReadonlyMap<string, number>, databaseUrl: string): Promise<number[]> {
  const moves = async () => {
    const after = await generations(databaseUrl);
    return [...before].map(([name, generation]) => (after.get(name) ?? 0) - generation);
  };
  const haveAllMoved = async () => (await moves()).every((by) => by > 0);
  await until(haveAllMoved, "every generation to move").catch(() => {}); // the figure says which did not
  await sleep(1000);
  return await moves();
}

async function readAll({ first }: ConnectedStage, names: readonly string[]): Promise<string[]> {
  return await inBatches(names.length, 10, async (index) => {
    return (await first.api.token(names[index] ?? "")).body.access_token;
  });
}

/** The last access token of its family. */
function isNewest({ provider }: ConnectedStage, accessToken: string): boolean {
  const { ledger } = provider;
  const family = ledger.familyOf(accessToken);
  const newest = ledger.tokens.findLast((token) => token.kind === "access" && token.family === family);
  return newest?.value === accessToken;
}

async function generations(databaseUrl: string): Promise<Map<string, number>> {
  const text = "SELECT name, generation FROM connections";
  const rows = await queryRows<{ name: string; generation: number }>(databaseUrl, text);
  return new Map(rows.map(({ name, generation }) => [name, generation]));
}
