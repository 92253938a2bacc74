import { fileURLToPath } from "node:url";
import type { BrokerProcess } from "../../support/broker-process.ts";
import { ConnectedStage } from "../../support/connected-stage.ts";
import { findFailpoints } from "../../support/faults/failpoints.ts";
import { until } from "../../support/patience.ts";
import { useDatabase } from "../../support/services/index.ts";
import {
  countedLosses,
  isSame,
  lostOnes,
  pretendPermitsRanOut,
  readRegardless,
  readUntilSettled,
  type Stored,
  spooledAnswers,
  storedRows,
  untilKilled,
} from "../crash-tools.ts";
import { type Ground, openGround } from "../fleets.ts";
import type { Given, Row } from "../row.ts";
import { type Connected, connectMany, readUntilServed } from "../tools.ts";

/** What a kill leaves behind, and how that ends: the table of the protocol. */
type Expected = {
  left: "nothing" | "a permit" | "a new generation" | "an answer";
  /** How often the provider had refreshed by then. */
  refreshed: 0 | 1;
  after: "as before" | "one replay" | "lost" | "drained" | "stored";
};

/** One process after the other is killed in this order. The points at which permits are left behind come last. */
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

/** The last point before undici writes. Two requests are never there at the same time, so each needs a kill of its own. */
const oneByOne = "before send";

/**
 * Kills in the middle of the upgrade and of a rotation of keys: test/integration/upgrade and rotation, and row 37. They touch no refresh, and neither
 * does a plain read.
 */
const isOfRefreshes = ({ file }: { file: string }): boolean =>
  file !== "upgrade.ts" && !/^(encryption|http)\//.test(file);

export const row: Row = {
  number: 13,
  title: "kill -9 at each failpoint × 20",
  promised: "the outcome that the protocol's table names",
  plays: { how: "in turn" },
  async run(given) {
    const failpoints = findFailpoints(fileURLToPath(new URL("../../../src", import.meta.url)));
    const found = new Set(failpoints.filter(isOfRefreshes).map(({ name }) => name));
    if (!isSame([...found], Object.keys(expected))) {
      return { ok: false, figure: `cases and failpoints differ: in src/ there are ${[...found].join(", ")}` };
    }
    const scenes = given.scale === "full" ? await playBoth(given) : await playInTurn(given);
    const wrongs = scenes.flatMap(({ wrong }) => wrong);
    const kills = scenes.flatMap(({ figures }) => figures);
    return { ok: wrongs.length === 0, figure: wrongs[0] ?? `as named: ${kills.join(", ")}`, notes: wrongs };
  },
};

type Result = { wrong: string[]; figures: string[] };

async function playBoth(given: Given): Promise<Result[]> {
  const playTogether = async () => {
    await using ground = await openGround(given, row);
    return await new TogetherScene(given, ground).play();
  };
  const playOthers = async () => {
    const databaseUrl = await useDatabase();
    await using stage = await ConnectedStage.start({ databaseUrl, each: () => ({ failpoints: {} }) });
    return await playOneByOne(given, { stage, databaseUrl });
  };
  return await Promise.all([playTogether(), playOthers()]);
}

async function playInTurn(given: Given): Promise<Result[]> {
  await using ground = await openGround(given, row);
  return [await new TogetherScene(given, ground).play(), await playOneByOne(given, ground)];
}

/** All failpoints but one: many connections stand at each when the process is killed. */
class TogetherScene {
  readonly #given: Given;
  readonly #count: number;
  readonly #result: Result = { wrong: [], figures: [] };
  readonly #ground: Ground;
  readonly #stage: ConnectedStage;

  constructor(given: Given, ground: Ground) {
    this.#given = given;
    this.#count = given.scale === "full" ? 50 : 3;
    this.#ground = ground;
    this.#stage = ground.stage;
  }

  async play(): Promise<Result> {
    const stage = this.#stage;
    const groups = new Map<string, Connected[]>();
    for (const name of Object.keys(expected).filter((failpoint) => failpoint !== oneByOne)) {
      groups.set(name, await connectMany(stage, this.#count, name.replaceAll(" ", "-")));
    }
    for (const [failpoint, group] of groups) await this.#killAt(failpoint, group);
    if (this.#given.scale === "short") await pretendPermitsRanOut(this.#ground.databaseUrl);
    for (const [failpoint, group] of groups) await this.#checkAfter(failpoint, group);
    const counted = await countedLosses(stage, stage.brokers);
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
    this.#ground.toPostgres.heal();
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
    await until("all answers", () => group.every(({ family }) => ledger.refreshes(family) === 1));
    const { toPostgres } = this.#ground;
    toPostgres.faults.newConnections = "reset";
    toPostgres.reset();
  }

  async #checkLeft(failpoint: string, group: readonly Connected[]): Promise<void> {
    const { left, refreshed } = expected[failpoint] as Expected;
    const spooled = await spooledAnswers(this.#stage.first, this.#ground.redisUrl); // before the rows: a peer may store it
    const rows = await storedRows(this.#stage, this.#ground.databaseUrl);
    const { ledger } = this.#stage.provider;
    const isLeft = ({ id = "", generation, hasPermit }: Partial<Stored> = {}): boolean => {
      if (left === "a permit") return generation === 1 && hasPermit === true;
      if (left === "an answer" && spooled.has(`${id}.1`)) return true;
      return generation === (left === "nothing" ? 1 : 2) && hasPermit === false;
    };
    const wrong = group.filter(({ name, family }) => !isLeft(rows.get(name)) || ledger.refreshes(family) !== refreshed);
    if (wrong.length > 0) this.#result.wrong.push(`"${failpoint}": ${wrong.length} did not leave ${left} behind`);
  }

  /** Nothing was left behind: the peer gets the next version. After a takeover it would get the one after that. */
  async #checkAsBefore(names: readonly string[]): Promise<void> {
    await readUntilServed(this.#peer, names);
    const replies = await Promise.all(names.map((name) => this.#peer.api.token(name)));
    const versions = [...new Set(replies.map(({ body }) => body.version))].join();
    if (versions !== "2") this.#result.wrong.push(`"before permit": a peer has version ${versions}`);
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
async function playOneByOne(
  { scale }: Given,
  { stage, databaseUrl }: Pick<Ground, "stage" | "databaseUrl">,
): Promise<Result> {
  const count = scale === "full" ? 20 : 1;
  const connections = await connectMany(stage, count, "before-send");
  for (const { name } of connections) {
    stage.first.setFailpoints({ [oneByOne]: { action: "kill" } });
    const reading = readRegardless(stage.first, [name]);
    await untilKilled(stage.first);
    await reading;
    stage.first.setFailpoints({});
    await stage.first.start();
  }
  const names = connections.map(({ name }) => name);
  if (scale === "short") await pretendPermitsRanOut(databaseUrl);
  await readUntilSettled(stage.first, names);
  const wrong = wronglyEnded(stage, connections, expected[oneByOne] as Expected);
  const lost = await lostOnes(stage.first, names);
  const isWrong = wrong + lost.length > 0;
  return {
    wrong: isWrong ? [`"${oneByOne}": ${wrong} sent otherwise than it should, ${lost.length} lost`] : [],
    figures: [`${oneByOne} × ${count} ${expected[oneByOne]?.after}`],
  };
}

/** How many tokens were sent more often, or less often, than the outcome allows. */
function wronglyEnded(
  { provider: { ledger } }: ConnectedStage,
  group: readonly Connected[],
  { after }: Expected,
): number {
  const reused = new Set(ledger.reuses.map(({ family }) => family));
  return group.filter(({ family }) => ledger.refreshes(family) !== 1 || reused.has(family) !== (after === "lost"))
    .length;
}
