import { setTimeout as sleep } from "node:timers/promises";
import { startBrokers } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import type { DefinitionFile } from "../../support/providers/strict-server.ts";
import { useDatabase, useRedis } from "../../support/services/index.ts";
import { answerBytes, bodyOf, type Cut, CuttingServer, type Framing } from "../cutting-server.ts";
import { queryRows } from "../query-rows.ts";
import type { Row } from "../row.ts";
import { type Connected, connectMany, inBatches } from "../tools.ts";

/** Short runs try every so many bytes, and wait for no permit to run out. */
const sizes = { full: { step: 1, waitsOut: true }, short: { step: 13, waitsOut: false } } as const;
const framings: readonly Framing[] = ["length", "chunked", "close"];
/** Lease and quiet period of a provider with a grace window, in which a replay does no harm. */
const leaseAndQuietMs = 32_000;
const waitOutMs = 120_000;

type Case = Connected & Cut & { isWhole: boolean };

export const row: Row = {
  number: 25,
  title: "answer cut at every byte offset",
  promised: "0 crashes, all unknown, no send outside the rules",
  async run({ scale, log }) {
    const { step, waitsOut } = sizes[scale];
    const databaseUrl = await useDatabase();
    await using provider = await new GenericProvider({ switches: { reuse: "grace", graceSeconds: 600 } }).start();
    await using server = await CuttingServer.start(provider);
    await using stage = await startStage(databaseUrl, provider, server);
    const cases = await prepareCases(stage, step);
    for (const one of cases) server.cuts.set(one.refreshToken, one);
    const read = async (index: number) => await stage.first.api.token(cases[index]?.name ?? "", { wait: 10 });
    const statuses = (await inBatches(cases.length, 10, read)).map(({ status }) => status);
    const permits = await readPermits(databaseUrl);
    const problems = cases.flatMap((one, index) => {
      const isAsExpected = one.isWhole
        ? statuses[index] === 200 && !permits.has(one.name)
        : statuses[index] === 503 && permits.get(one.name)?.outcome === "unknown";
      return isAsExpected
        ? []
        : [`${one.framing}, ${one.bytes} bytes: ${statuses[index]} ${permits.get(one.name)?.outcome}`];
    });
    log(`${cases.length} answers sent, ${permits.size} outcomes unknown`);
    await sleep(1500);
    if (waitsOut) await untilSettled(databaseUrl);
    const early = cases.filter(
      (one) => !isByTheRules(provider, one, { permittedAt: permits.get(one.name)?.at, waitsOut }),
    ).length;
    const { exitCode, stderr } = stage.first;
    const crashes = exitCode === null && stderr === "" ? 0 : 1;
    const whole = cases.filter(({ isWhole }) => isWhole).length;
    return {
      ok:
        problems.length + early + crashes + provider.ledger.reuses.length === 0 &&
        permits.size === cases.length - whole,
      figure: `${crashes} crashes, ${permits.size} of ${cases.length - whole} cut answers unknown and ${whole} whole ones kept, ${early} sends outside the rules`,
      notes: [...problems.slice(0, 10), stderr],
    };
  },
};

/** One broker, whose token endpoint is the cutting server. */
async function startStage(
  databaseUrl: string,
  provider: GenericProvider,
  server: CuttingServer,
): Promise<ConnectedStage> {
  const definitions = () => provider.definitions().map((one) => withTokenUrl(one, `${server.url}/token`));
  const providersDir = await providersFolder({ definitions });
  const brokers = await startBrokers(1, { databaseUrl, redisUrl: await useRedis(), providersDir });
  const stage = new ConnectedStage(provider, brokers);
  const { id: client_id, secret: client_secret } = provider.client;
  await stage.first.api.createClient({ name: "app", provider: provider.id, client_id, client_secret });
  return stage;
}

function withTokenUrl(definition: DefinitionFile, url: string): DefinitionFile {
  return { ...definition, token: { ...(definition["token"] as object), url } };
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

async function readPermits(databaseUrl: string): Promise<Map<string, StandingPermit>> {
  const rows = await queryRows<{ name: string; at: Date; outcome: string | null }>(
    databaseUrl,
    "SELECT name, attempt_started_at AS at, attempt_outcome AS outcome FROM connections WHERE attempt_id IS NOT NULL",
  );
  return new Map(rows.map(({ name, at, outcome }) => [name, { at: at.getTime(), outcome }]));
}

/** The sweeper sends again by itself where the provider lets it. @throws when it does not */
async function untilSettled(databaseUrl: string): Promise<void> {
  const endMs = performance.now() + waitOutMs;
  while ((await readPermits(databaseUrl)).size > 0) {
    if (performance.now() > endMs) throw new Error("permits are still there, long after they have run out");
    await sleep(500);
  }
}

type Since = { permittedAt: number | undefined; waitsOut: boolean };

/** What was kept is sent no more; what was cut once more, and not before the permit has run out. */
function isByTheRules({ ledger }: GenericProvider, one: Case, { permittedAt, waitsOut }: Since): boolean {
  const [, ...again] = ledger.requestsTo("token").filter(({ fields }) => fields["refresh_token"] === one.refreshToken);
  if (one.isWhole || !waitsOut) return again.length === 0;
  return again.length === 1 && (again[0]?.inAt ?? 0) - (permittedAt ?? Infinity) >= leaseAndQuietMs;
}
