import { fileURLToPath } from "node:url";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { findFailpoints } from "../../support/faults/failpoints.ts";
import { type FaultProxy, startFaultProxy } from "../../support/faults/tcp-proxy.ts";
import { useDatabase, useRedis } from "../../support/services/index.ts";
import {
  countedLosses,
  isSame,
  lostOnes,
  readRegardless,
  readUntilSettled,
  type Stored,
  spooledAnswers,
  storedRows,
  until,
  untilKilled,
} from "../crash-tools.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany } from "../tools.ts";

/** What a kill leaves behind, and what comes of it: the protocol's table. */
type Expected = {
  left: "nothing" | "a permit" | "a new generation" | "an answer";
  /** How often the provider had refreshed by then. */
  refreshed: 0 | 1;
  after: "as before" | "one replay" | "lost" | "drained" | "stored";
};

/** In this order one process after the other is killed; where permits are left behind comes last. */
const expected: Readonly<Record<string, Expected>> = {
  "before permit": { left: "nothing", refreshed: 0, after: "as before" },
  // Where Postgres takes longer than 200 ms, the first durable copy is a spooled one.
  durable: { left: "an answer", refreshed: 1, after: "stored" },
  committed: { left: "a new generation", refreshed: 1, after: "stored" },
  announced: { left: "an answer", refreshed: 1, after: "stored" },
  spooled: { left: "a permit", refreshed: 1, after: "drained" },
  "permit taken": { left: "a permit", refreshed: 0, after: "one replay" },
  answered: { left: "a permit", refreshed: 1, after: "lost" },
  "before send": { left: "a permit", refreshed: 0, after: "one replay" },
};

/** The last of all before undici writes: no two requests stand there at once, so that each needs a kill of its own. */
const oneByOne = "before send";
/** A lock in Redis stops others for a second; with a permit left behind it would be forty. */
const asBeforeLimitMs = 10_000;

export const row: Row = {
  number: 13,
  title: "kill -9 at each failpoint × 20",
  promised: "the outcome that the protocol's table names",
  waits: true,
  async run(given) {
    const found = new Set(
      findFailpoints(fileURLToPath(new URL("../../../src", import.meta.url))).map(({ name }) => name),
    );
    if (!isSame([...found], Object.keys(expected))) {
      return { ok: false, figure: `cases and failpoints differ: in src/ there are ${[...found].join(", ")}` };
    }
    const scenes = await Promise.all([new TogetherScene(given).play(), playOneByOne(given)]);
    const wrongs = scenes.flatMap(({ wrong }) => wrong);
    const kills = scenes.flatMap(({ figures }) => figures);
    return { ok: wrongs.length === 0, figure: wrongs[0] ?? `as named: ${kills.join(", ")}`, notes: wrongs };
  },
};

type Result = { wrong: string[]; figures: string[] };

/** All failpoints but one: many connections stand at each when the process is killed. */
class TogetherScene {
  readonly #given: Given;
  readonly #count: number;
  readonly #result: Result = { wrong: [], figures: [] };
  #stage!: ConnectedStage;
  #toPostgres!: FaultProxy;
  #databaseUrl = "";
  #redisUrl = "";

  constructor(given: Given) {
    this.#given = given;
    this.#count = given.scale === "full" ? 50 : 10;
  }

  async play(): Promise<Result> {
    [this.#databaseUrl, this.#redisUrl] = [await useDatabase(), await useRedis()];
    await using toPostgres = await startFaultProxy(this.#databaseUrl);
    this.#toPostgres = toPostgres;
    const each = (replica: number) => (replica === 0 ? { databaseUrl: toPostgres.url, failpoints: {} } : {});
    const stores = { databaseUrl: this.#databaseUrl, redisUrl: this.#redisUrl };
    await using stage = await ConnectedStage.start({ replicas: 2, ...stores, each });
    this.#stage = stage;
    const groups = new Map<string, Connected[]>();
    for (const name of Object.keys(expected).filter((failpoint) => failpoint !== oneByOne)) {
      groups.set(name, await connectMany(stage, this.#count, name.replaceAll(" ", "-")));
    }
    for (const [failpoint, group] of groups) await this.#killAt(failpoint, group);
    for (const [failpoint, group] of groups) await this.#checkAfter(failpoint, group);
    const counted = await countedLosses(stage.brokers);
    const isCounted = counted.every((count) => count === this.#count);
    if (!isCounted) this.#result.wrong.push(`losses counted: ${counted.join(", ")}`);
    return this.#result;
  }

  get #peer(): BrokerProcess {
    return this.#stage.brokers[1] ?? this.#stage.first;
  }

  async #killAt(failpoint: string, group: readonly Connected[]): Promise<void> {
    const { first } = this.#stage;
    const kill = { [failpoint]: { action: "kill", after: group.length } } as const;
    const isSpooled = failpoint === "spooled";
    first.setFailpoints(isSpooled ? { answered: { action: "hold" } } : kill);
    const names = group.map(({ name }) => name);
    const reading = readRegardless(first, names);
    if (isSpooled) {
      await this.#losePostgres(group);
      first.setFailpoints(kill);
    }
    await untilKilled(first);
    this.#toPostgres.heal();
    await reading;
    await this.#checkLeft(failpoint, group);
    if (failpoint === "before permit") await this.#checkAsBefore(names);
    first.setFailpoints({});
    await first.start();
    this.#given.log(`killed at "${failpoint}", ${group.length} connections there`);
  }

  /** When all answers have come, and none has been stored. */
  async #losePostgres(group: readonly Connected[]): Promise<void> {
    const { ledger } = this.#stage.provider;
    await until("all answers", 20_000, () => group.every(({ family }) => ledger.refreshes(family) === 1));
    this.#toPostgres.faults.newConnections = "reset";
    this.#toPostgres.reset();
  }

  async #checkLeft(failpoint: string, group: readonly Connected[]): Promise<void> {
    const { left, refreshed } = expected[failpoint] as Expected;
    const spooled = await spooledAnswers(this.#stage.first, this.#redisUrl); // before the rows: a peer may store it
    const rows = await storedRows(this.#databaseUrl);
    const { ledger } = this.#stage.provider;
    const isLeft = ({ id = "", generation, hasPermit }: Partial<Stored> = {}): boolean => {
      if (left === "a permit") return generation === 1 && hasPermit === true;
      if (left === "an answer" && spooled.has(`${id}.1`)) return true;
      return generation === (left === "nothing" ? 1 : 2) && hasPermit === false;
    };
    const wrong = group.filter(({ name, family }) => !isLeft(rows.get(name)) || ledger.refreshes(family) !== refreshed);
    if (wrong.length > 0) this.#result.wrong.push(`"${failpoint}": ${wrong.length} did not leave ${left} behind`);
  }

  async #checkAsBefore(names: readonly string[]): Promise<void> {
    const startedMs = performance.now();
    const statuses = await Promise.all(names.map(async (name) => (await this.#peer.api.token(name)).status));
    const tookMs = Math.round(performance.now() - startedMs);
    if (statuses.some((status) => status !== 200) || tookMs > asBeforeLimitMs) {
      this.#result.wrong.push(`"before permit": a peer answered ${[...new Set(statuses)].join()} after ${tookMs} ms`);
    }
  }

  async #checkAfter(failpoint: string, group: readonly Connected[]): Promise<void> {
    const names = group.map(({ name }) => name);
    await readUntilSettled(this.#peer, names);
    const wrong = wronglyEnded(this.#stage, group, expected[failpoint] as Expected);
    const lost = await lostOnes(this.#peer, names);
    const isLost = expected[failpoint]?.after === "lost";
    if (wrong > 0 || lost.length !== (isLost ? names.length : 0)) {
      this.#result.wrong.push(`"${failpoint}": ${wrong} sent otherwise than it should, ${lost.length} lost`);
    }
    this.#result.figures.push(`${failpoint} × ${names.length} ${expected[failpoint]?.after}`);
  }
}

/** Each kill hits one connection. The process that is started last serves them all. */
async function playOneByOne(given: Given): Promise<Result> {
  const count = given.scale === "full" ? 20 : 2;
  const databaseUrl = await useDatabase();
  await using stage = await ConnectedStage.start({ databaseUrl, each: () => ({ failpoints: {} }) });
  const connections = await connectMany(stage, count);
  for (const { name } of connections) {
    stage.first.setFailpoints({ [oneByOne]: { action: "kill" } });
    const reading = readRegardless(stage.first, [name]);
    await untilKilled(stage.first);
    await reading;
    stage.first.setFailpoints({});
    await stage.first.start();
  }
  const names = connections.map(({ name }) => name);
  await readUntilSettled(stage.first, names);
  const wrong = wronglyEnded(stage, connections, expected[oneByOne] as Expected);
  const lost = await lostOnes(stage.first, names);
  const isWrong = wrong + lost.length > 0;
  return {
    wrong: isWrong ? [`"${oneByOne}": ${wrong} sent otherwise than it should, ${lost.length} lost`] : [],
    figures: [`${oneByOne} × ${count} ${expected[oneByOne]?.after}`],
  };
}

/** How many have been sent more often, or less, than their outcome wants. */
function wronglyEnded(
  { provider: { ledger } }: ConnectedStage,
  group: readonly Connected[],
  { after }: Expected,
): number {
  const reused = new Set(ledger.reuses.map(({ family }) => family));
  return group.filter(({ family }) => ledger.refreshes(family) !== 1 || reused.has(family) !== (after === "lost"))
    .length;
}
