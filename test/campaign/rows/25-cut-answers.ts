import { setTimeout as sleep } from "node:timers/promises";
import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import type { Ledger } from "../../support/providers/ledger.ts";
import { answerBytes, bodyOf, type Cut, CuttingProvider, type Framing } from "../cutting-server.ts";
import { openGround } from "../fleets.ts";
import { queryRows, seldom } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { type Connected, connectMany, wasSent } from "../tools.ts";

/** Short runs cut only at some offsets, and do not wait until a permit ends. */
const sizes = { full: { step: 1, waitsOut: true }, short: { step: 37, waitsOut: false } } as const;
const framings: readonly Framing[] = ["length", "chunked", "close"];
/** Lease and quiet period of a provider with a grace window, in which a replay does no harm. */
const leaseAndQuietMs = 32_000;
const width = 10;
const switches = { reuse: "grace", graceSeconds: 600 } as const;

type Case = Connected & Cut & { isWhole: boolean };

export const row: Row = {
  number: 25,
  title: "answer cut at every byte offset",
  promised: "0 crashes, all unknown, no send outside the rules",
  plays: { how: "beside", provider: ({ id }) => new CuttingProvider({ id, switches }) },
  async run(given) {
    const { step, waitsOut } = sizes[given.scale];
    await using ground = await openGround(given, row, { replicas: 1 });
    const { stage, databaseUrl } = ground;
    const { ledger } = stage.provider;
    const toldBefore = stage.first.stderr.length;
    const cases = await prepareCases(stage, step);
    for (const one of cases) (stage.provider as CuttingProvider).cuts.set(one.refreshToken, one);
    const permitsNow = async () => await readPermits(stage, databaseUrl);
    const statuses: number[] = [];
    const permits = new Map<string, StandingPermit>();
    for (let from = 0; from < cases.length; from += width) {
      statuses.push(...(await Promise.all(cases.slice(from, from + width).map((one) => readOnce(stage, one)))));
      // The permits still stand here. After the last batch the first ones may have ended.
      for (const [name, permit] of await untilKnown(permitsNow)) permits.set(name, permits.get(name) ?? permit);
    }
    const problems = cases.flatMap((one, index) => {
      const isAsExpected = one.isWhole
        ? statuses[index] === 200 && !permits.has(one.name)
        : statuses[index] === 503 && permits.get(one.name)?.outcome === "unknown";
      return isAsExpected
        ? []
        : [`${one.framing}, ${one.bytes} bytes: ${statuses[index]} ${permits.get(one.name)?.outcome}`];
    });
    given.log(`${cases.length} answers sent, ${permits.size} outcomes unknown`);
    await sleep(1500);
    // The sweeper sends again by itself where the provider lets it.
    if (waitsOut) await until("the permits to run out", async () => (await permitsNow()).size === 0, seldom);
    const early = cases.filter(
      (one) => !isByTheRules(ledger, one, { permittedAt: permits.get(one.name)?.at, waitsOut }),
    ).length;
    const told = stage.first.stderr.slice(toldBefore);
    const crashes = stage.first.isRunning && told === "" ? 0 : 1;
    const whole = cases.filter(({ isWhole }) => isWhole).length;
    return {
      ok: problems.length + early + crashes + ledger.reuses.length === 0 && permits.size === cases.length - whole,
      figure: `${crashes} crashes, ${permits.size} of ${cases.length - whole} cut answers unknown and ${whole} whole ones kept, ${early} sends outside the rules`,
      notes: [...problems.slice(0, 10), told],
    };
  },
};

/** Reads until a whole answer is served; for a cut answer, until its token was sent. @returns the status of the last read */
async function readOnce({ first, provider }: ConnectedStage, { name, isWhole, refreshToken }: Case): Promise<number> {
  return await until(`an answer for ${name}`, async () => {
    const { status } = await first.api.token(name, { wait: 30 });
    const isOver = isWhole ? status === 200 : wasSent(provider.ledger, refreshToken);
    return isOver && status;
  });
}

/** A connection for each cut. All token sets are of the same length. */
async function prepareCases(stage: ConnectedStage, step: number): Promise<Case[]> {
  const body = bodyOf(stage.provider.issueTokenSet());
  const cuts = framings.flatMap((framing) => {
    const answer = answerBytes(body, framing);
    const wholeFrom = answer.indexOf(body) + body.length;
    const lengths = new Set(
      Array.from({ length: answer.length + 1 }, (_, bytes) => bytes).filter((bytes) => bytes % step === 0),
    );
    for (const bytes of [wholeFrom - 1, wholeFrom, answer.length]) lengths.add(bytes);
    return [...lengths].map((bytes) => ({ framing, bytes, isWhole: bytes >= wholeFrom }));
  });
  const connections = await connectMany(stage, cuts.length);
  return cuts.map((cut, index) => Object.assign(cut, connections[index] as Connected));
}

type StandingPermit = { at: number; outcome: string | null };

async function readPermits({ provider }: ConnectedStage, databaseUrl: string): Promise<Map<string, StandingPermit>> {
  const rows = await queryRows<{ name: string; at: Date; outcome: string | null }>(
    databaseUrl,
    `SELECT name, attempt_started_at AS at, attempt_outcome AS outcome FROM connections
      WHERE provider = '${provider.id}' AND attempt_id IS NOT NULL`,
  );
  return new Map(rows.map(({ name, at, outcome }) => [name, { at: at.getTime(), outcome }]));
}

/** The permits that stand, once none of them waits for its outcome. */
async function untilKnown(read: () => Promise<Map<string, StandingPermit>>): Promise<Map<string, StandingPermit>> {
  return await until(
    "the outcome of each",
    async () => {
      const permits = await read();
      return [...permits.values()].every(({ outcome }) => outcome !== null) && permits;
    },
    seldom,
  );
}

type Since = { permittedAt: number | undefined; waitsOut: boolean };

/** A token whose answer was kept is not sent again. One whose answer was cut is sent once more, and not before the permit has ended. */
function isByTheRules(ledger: Ledger, one: Case, { permittedAt, waitsOut }: Since): boolean {
  const [, ...again] = ledger.requestsTo("token").filter(({ fields }) => fields["refresh_token"] === one.refreshToken);
  if (one.isWhole || (!waitsOut && again.length === 0)) return again.length === 0;
  return again.length === 1 && (again[0]?.inAt ?? 0) - (permittedAt ?? Infinity) >= leaseAndQuietMs;
}
