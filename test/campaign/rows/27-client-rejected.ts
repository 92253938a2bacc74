import { setTimeout as sleep } from "node:timers/promises";
import { sumOfMetric } from "../crash-tools.ts";
import { openGround } from "../fleets.ts";
import type { Row } from "../row.ts";
import { connectMany, readUntilServed } from "../tools.ts";

const sizes = { full: { connections: 100, rounds: 40 }, short: { connections: 8, rounds: 4 } } as const;

export const row: Row = {
  number: 27,
  title: "`invalid_client` for 100 connections of one client",
  promised: "0 marked dead, 1 log line at error level and 1 step of the counter",
  plays: { how: "beside" },
  async run(given) {
    const { connections, rounds } = sizes[given.scale];
    await using ground = await openGround(given, row, { replicas: 1 });
    const { stage } = ground;
    const broker = stage.first;
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const newSecret = stage.provider.changeSecret();
    const codes = new Set<string>();
    for (let round = 0; round < rounds; round++, await sleep(500)) {
      const replies = await Promise.all(names.map((name) => broker.api.token(name, { wait: 30 })));
      for (const { status, body } of replies) codes.add(`${status} ${body.code ?? ""}`);
    }
    const refusals = stage.provider.ledger.requestsTo("token").filter(({ status }) => status === 401).length;
    const statuses = await Promise.all(names.map(async (name) => (await broker.api.connection(name)).status));
    const dead = statuses.filter((status) => status !== "connected").length;
    const errors = errorLines(broker.stdout, stage.client);
    const lines = errors.length;
    const steps = await sumOfMetric({ provider: stage.provider, brokers: [broker] }, "freshet_client_rejected_total");

    await broker.api.changeClient(stage.client, { client_secret: newSecret });
    await readUntilServed(broker, names);
    return {
      ok:
        dead === 0 &&
        lines === 1 &&
        steps === 1 &&
        refusals >= connections &&
        codes.has("502 client_rejected") &&
        // A slow machine may not have sent a request in time. The log then says so.
        [...codes].every((code) => code === "502 client_rejected" || code === "503 provider_unavailable"),
      figure: `${dead} marked dead, ${lines} lines at error level, ${steps} steps of the counter after ${refusals} refusals; all ${connections} served with the right secret`,
      notes: [`answers: ${[...codes].join(", ")}`, ...errors.slice(0, 5)],
    };
  },
};

/** What concerns this client, save that a slow machine's Postgres took its time to store something. */
function errorLines(log: string, client: string): string[] {
  return log
    .split("\n")
    .filter(
      (line) => line.includes('"level":"error"') && line.includes(client) && !line.includes("storage_unavailable"),
    );
}
