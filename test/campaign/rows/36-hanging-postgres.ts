import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { startPrivatePostgres } from "../../support/services/index.ts";
import type { Row } from "../row.ts";
import { connectMany, percentile } from "../tools.ts";

const connections = 20;
const rounds = 25;
/** Longer than the broker trusts what it knows (4 s), so that every read asks Postgres. */
const trustMs = 4200;
/** Half of what the broker waits for a Postgres that hangs. */
const waitedMs = 250;
/** The two reads that may wait: one for the key, one for the connection. */
const mostWaiting = 2;

export const row: Row = {
  number: 36,
  title: "Postgres hangs: by SIGSTOP, by a locked table",
  promised: "one read waits for the key's and the connection's half second, the others none",
  alone: true,
  onlyFull:
    "its figure is a time; test/unit/store/read-cache counts who waits, and test/integration/fresh-read has a Postgres that hangs",
  async run({ log }) {
    await using postgres = await startPrivatePostgres();
    await using stage = await ConnectedStage.start({ databaseUrl: postgres.url });
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const key = await stage.first.api.createKey({ name: "reader", abilities: ["tokens"], connections: ["*"] });
    const read = async (name: string) => {
      const startedMs = performance.now();
      const { status } = await stage.first.api.token(name, { key });
      return { status, tookMs: performance.now() - startedMs };
    };
    const readAll = async () => {
      const samples: Awaited<ReturnType<typeof read>>[] = [];
      for (let round = 0; round < rounds; round++) for (const name of names) samples.push(await read(name));
      return samples;
    };
    await readAll();
    await sleep(trustMs);
    const healthy = await readAll();

    await sleep(trustMs);
    await postgres.pause();
    const frozen = await readAll();
    await postgres.resume();
    log("resumed");

    await readAll();
    await sleep(trustMs);
    const other = new Client({ connectionString: postgres.url });
    await other.connect();
    await other.query("BEGIN");
    await other.query("LOCK TABLE connections, api_keys IN ACCESS EXCLUSIVE MODE");
    const locked = await readAll();
    await other.query("ROLLBACK");
    await other.end();

    const told = (samples: typeof healthy) => {
      const times = samples.map(({ tookMs }) => tookMs);
      return {
        refused: samples.filter(({ status }) => status !== 200).length,
        waited: times.filter((ms) => ms > waitedMs).length,
        text: `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms, longest ${Math.round(Math.max(...times))} ms`,
      };
    };
    const [calm, ...hanging] = [healthy, frozen, locked].map(told);
    const [stopped, table] = hanging;
    if (calm === undefined || stopped === undefined || table === undefined) throw new Error("nothing was measured");
    return {
      // If reads take as long on this machine with a healthy Postgres, the row can say nothing about waiting.
      ok:
        [calm, stopped, table].every(({ refused }) => refused === 0) &&
        hanging.every(({ waited }) => waited <= mostWaiting + calm.waited),
      figure: `of ${rounds * connections} reads each: healthy ${calm.text}; stopped ${stopped.text}, ${stopped.waited} waited; table locked ${table.text}, ${table.waited} waited`,
    };
  },
};
