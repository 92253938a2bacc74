import { setTimeout as sleep } from "node:timers/promises";
import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { openGround } from "../fleets.ts";
import { queryRows, seldom } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

/** The name of the statement that stores an answer. The text is sent once for a session, the name each time. */
const commit = "commit_refreshes";

/** `silent`: how many connections go silent, and end when the statement's time is over. The others are reset at once. */
const sizes = { full: { connections: 100, silent: 20 }, short: { connections: 5, silent: 0 } } as const;

export const row: Row = {
  number: 21,
  title: "COMMIT's acknowledgement dropped × 100",
  promised: "generation moves by exactly 1 each",
  plays: { how: "in turn" },
  async run(given) {
    const { connections: count, silent } = sizes[given.scale];
    await using ground = await openGround(given, row, { replicas: 1 });
    const { stage, toPostgres, databaseUrl } = ground;
    const lostBefore = toPostgres.counts.lostAnswers;
    const connections = await connectMany(stage, count);
    const names = connections.map(({ name }) => name);
    const before = await generations(stage, databaseUrl);
    const refresh = async (name: string, ending: "silence" | "reset") => {
      const lost = toPostgres.counts.lostAnswers;
      toPostgres.faults.lostAnswers = { from: commit, times: 1, ending };
      // A caller may get its token from the spool while the statement still waits for a connection.
      await until(`an acknowledgement for ${name} to be lost`, async () => {
        await stage.first.api.token(name, { wait: 30 });
        return toPostgres.counts.lostAnswers > lost;
      });
    };
    for (const name of names.slice(silent)) await refresh(name, "reset");
    given.log(`${count - silent} refreshed, each over a line that was reset`);
    for (const name of names.slice(0, silent)) await refresh(name, "silence");
    toPostgres.heal();
    const moved = await movesSince(before, () => generations(stage, databaseUrl));
    const wrong = moved.filter((by) => by !== 1).length;
    const stale = (await readAll(stage, names)).filter((token) => !isNewest(stage, token)).length;
    const { reuses, overlaps, sentTwice } = offences(stage.provider.ledger);
    const lostAnswers = toPostgres.counts.lostAnswers - lostBefore;
    return {
      ok: wrong + stale + reuses + overlaps + sentTwice === 0 && lostAnswers === count,
      figure: `${lostAnswers} acknowledgements dropped, ${wrong} generations moved otherwise, ${stale} wrong tokens, ${reuses + overlaps + sentTwice} duplicate sends`,
      notes: wrong === 0 ? [] : [`generations moved by ${moved.join(" ")}`],
    };
  },
};

/** By how much each generation has moved, when all have moved and a second commit of the same answer would have come. */
async function movesSince(before: Generations, read: () => Promise<Generations>): Promise<number[]> {
  const moves = async () => {
    const after = await read();
    return [...before].map(([name, generation]) => (after.get(name) ?? 0) - generation);
  };
  await until("every generation to move", async () => (await moves()).every((by) => by > 0), seldom);
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

type Generations = ReadonlyMap<string, number>;

async function generations({ provider }: ConnectedStage, databaseUrl: string): Promise<Generations> {
  const text = `SELECT name, generation FROM connections WHERE provider = '${provider.id}'`;
  const rows = await queryRows<{ name: string; generation: number }>(databaseUrl, text);
  return new Map(rows.map(({ name, generation }) => [name, generation]));
}
