import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { pretendPermitsRanOut, readRegardless, readUntilSettled } from "../crash-tools.ts";
import { openGround } from "../fleets.ts";
import { queryRows, seldom } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

const switches = { reuse: "grace", graceSeconds: 600 } as const;

export const row: Row = {
  number: 6,
  title: "SIGSTOP after the answer while a peer replays in a grace window",
  promised: "both sets kept, connection usable",
  plays: { how: "in turn", provider: ({ id }) => new GenericProvider({ id, switches }) },
  async run(given) {
    const count = given.scale === "full" ? 50 : 4;
    await using ground = await openGround(given, row);
    const { stage, databaseUrl } = ground;
    const setsNow = async () => await setsOf(stage, databaseUrl);
    const peer = stage.brokers[1] ?? stage.first;
    const names = (await connectMany(stage, count)).map(({ name }) => name);

    stage.first.setFailpoints({ answered: { action: "stop", after: count } });
    const reading = readRegardless(stage.first, names);
    await stage.first.untilFrozen();
    given.log(`${count} answers in the hands of a frozen process`);
    if (given.scale === "short") await pretendPermitsRanOut(databaseUrl);
    await readUntilSettled(peer, names);
    // A caller may have its token from the spool while the statement that stores it is still on its way.
    const replayed = await until(
      "every replay to be stored",
      async () => {
        const sets = await setsNow();
        return sets.stored === count && sets;
      },
      seldom,
    );
    stage.first.thaw();
    await reading;
    await until("every late answer to be kept", async () => (await setsNow()).candidates === count, seldom);

    const works = async (name: string) => await tryBothSets(stage, name);
    const usable = (await inBatches(count, 1, (index) => works(names[index] ?? ""))).filter(Boolean).length;
    const { reuses, overlaps } = offences(stage.provider.ledger);
    const left = await setsNow();
    return {
      ok: replayed.candidates === 0 && usable === count && reuses + overlaps + left.candidates === 0,
      figure: `${replayed.stored} replayed sets in their rows, ${count} late ones kept beside them, every caller of the frozen process had a token in the end, ${usable} connections work with either set, ${reuses} reuses`,
    };
  },
};

/** Rows whose replay was stored, and late answers beside them. */
async function setsOf(
  { provider: { id } }: ConnectedStage,
  databaseUrl: string,
): Promise<{ stored: number; candidates: number }> {
  const [sets] = await queryRows<{ stored: number; candidates: number }>(
    databaseUrl,
    `SELECT count(*) FILTER (WHERE generation = 2 AND status = 'connected')::int AS stored,
        coalesce(sum((SELECT count(*) FROM candidates l WHERE l.connection_id = c.id AND l.base_generation = 1)), 0)::int AS candidates
      FROM connections c WHERE provider = '${id}'`,
  );
  return sets ?? { stored: 0, candidates: 0 };
}

/** The provider refuses the set of the row, so that the late one is tried. Then the result of that is refreshed once more. */
async function tryBothSets({ provider: server, brokers }: ConnectedStage, name: string): Promise<boolean> {
  const refresh = async () => {
    const reply = await brokers[1]?.api.api(`/connections/${name}/refresh`, { method: "POST" });
    return reply?.status === 200;
  };
  server.failNext({ status: 400, body: { error: "invalid_grant" } });
  return (await refresh()) && (await refresh());
}
