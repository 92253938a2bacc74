import { ConnectedStage } from "../../support/connected-stage.ts";
import { useDatabase } from "../../support/services/index.ts";
import { firstHasFailpoints, readUntilSettled, until } from "../crash-tools.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

const provider = { switches: { reuse: "grace", graceSeconds: 600 } } as const;

export const row: Row = {
  number: 6,
  title: "SIGSTOP after the answer while a peer replays in a grace window",
  promised: "both sets kept, connection usable",
  waits: true,
  async run({ scale, log }) {
    const count = scale === "full" ? 50 : 10;
    const databaseUrl = await useDatabase();
    await using stage = await ConnectedStage.start({ replicas: 2, databaseUrl, provider, each: firstHasFailpoints });
    const peer = stage.brokers[1] ?? stage.first;
    const names = (await connectMany(stage, count)).map(({ name }) => name);

    stage.first.setFailpoints({ answered: { action: "stop", after: count } });
    const reading = Promise.all(names.map((name) => stage.first.api.token(name, { wait: 30 })));
    await stage.first.untilFrozen();
    log(`${count} answers in the hands of a frozen process`);
    await readUntilSettled(peer, names);
    const replayed = await setsOf(databaseUrl);
    stage.first.thaw();
    const woken = (await reading).filter(({ status }) => status === 200).length;
    await until("every late answer is kept", 20_000, async () => (await setsOf(databaseUrl)).candidates === count);

    const works = async (name: string) => await tryBothSets(stage, name);
    const usable = (await inBatches(count, 1, (index) => works(names[index] ?? ""))).filter(Boolean).length;
    const { reuses, overlaps } = offences(stage.provider.ledger);
    const left = await setsOf(databaseUrl);
    return {
      ok:
        replayed.stored === count &&
        replayed.candidates === 0 &&
        woken === count &&
        usable === count &&
        reuses + overlaps + left.candidates === 0,
      figure: `${replayed.stored} replayed sets in their rows, ${count} late ones kept beside them, ${woken} callers served after waking, ${usable} connections work with either set, ${reuses} reuses`,
    };
  },
};

/** Rows whose replay was stored, and late answers beside them. */
async function setsOf(databaseUrl: string): Promise<{ stored: number; candidates: number }> {
  const [sets] = await queryRows<{ stored: number; candidates: number }>(
    databaseUrl,
    `SELECT (SELECT count(*)::int FROM connections WHERE generation = 2 AND status = 'connected') AS stored,
      (SELECT count(*)::int FROM candidates WHERE base_generation = 1) AS candidates`,
  );
  return sets ?? { stored: 0, candidates: 0 };
}

/** The set of the row is refused, so that the late one is tried; and what came of that is refreshed once more. */
async function tryBothSets({ provider: server, brokers }: ConnectedStage, name: string): Promise<boolean> {
  const refresh = async () => {
    const reply = await brokers[1]?.api.api(`/connections/${name}/refresh`, { method: "POST" });
    return reply?.status === 200;
  };
  server.failNext({ status: 400, body: { error: "invalid_grant" } });
  return (await refresh()) && (await refresh());
}
