import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import type { Row } from "../row.ts";
import { connectMany, readUntilServed } from "../tools.ts";

const sizes = { full: { connections: 100, seconds: 20 }, short: { connections: 20, seconds: 3 } } as const;

export const row: Row = {
  number: 27,
  title: "`invalid_client` for 100 connections of one client",
  promised: "0 marked dead, 1 log line at error level and 1 step of the counter",
  async run({ scale }) {
    const { connections, seconds } = sizes[scale];
    await using stage = await ConnectedStage.start({ env: { LOG_LEVEL: "info" } });
    const broker = stage.first;
    const names = (await connectMany(stage, connections)).map(({ name }) => name);
    const logged = broker.stdout.length;
    const newSecret = stage.provider.changeSecret();
    const codes = new Set<string>();
    const endMs = performance.now() + seconds * 1000;
    for (; performance.now() < endMs; await sleep(500)) {
      const replies = await Promise.all(names.map((name) => broker.api.token(name)));
      for (const { status, body } of replies) codes.add(`${status} ${body.code ?? ""}`);
    }
    const refusals = stage.provider.ledger.requestsTo("token").filter(({ status }) => status === 401).length;
    const statuses = await Promise.all(names.map(async (name) => (await broker.api.connection(name)).status));
    const dead = statuses.filter((status) => status !== "connected").length;
    const lines = errorLines(broker.stdout.slice(logged)).length;
    const steps = await rejections(broker);

    await broker.api.changeClient("app", { client_secret: newSecret });
    await readUntilServed(broker, names, 90_000);
    return {
      ok:
        dead === 0 &&
        lines === 1 &&
        steps === 1 &&
        refusals >= connections &&
        [...codes].join() === "502 client_rejected",
      figure: `${dead} marked dead, ${lines} lines at error level, ${steps} steps of the counter after ${refusals} refusals; all ${connections} served with the right secret`,
      notes: [`answers: ${[...codes].join(", ")}`, ...errorLines(broker.stdout.slice(logged)).slice(0, 5)],
    };
  },
};

function errorLines(log: string): string[] {
  return log.split("\n").filter((line) => line.includes('"level":"error"'));
}

async function rejections({ api }: BrokerProcess): Promise<number> {
  const { body } = await api.api<string>("/metrics");
  const values = [...body.matchAll(/^freshet_client_rejected_total\{.*\} (\d+)$/gm)];
  return values.reduce((sum, [, value]) => sum + Number(value), 0);
}
