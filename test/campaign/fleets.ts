import { type BrokerProcess, startBrokers } from "../support/broker-process.ts";
import { ConnectedStage } from "../support/connected-stage.ts";
import { type FaultProxy, startFaultProxy } from "../support/faults/tcp-proxy.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { GenericProvider } from "../support/providers/generic.ts";
import { createDatabase } from "../support/services/databases.ts";
import { startPrivatePostgres, startPrivateRedis, useDatabase, useRedis } from "../support/services/index.ts";
import type { PrivateServer } from "../support/services/private-server.ts";
import { queryRows } from "./query-rows.ts";
import type { Given, Plays, Row } from "./row.ts";

/** What a row plays on. Take it with `await using`. */
export type Ground = AsyncDisposable & {
  stage: ConnectedStage;
  databaseUrl: string;
  redisUrl: string;
  /** For rows that play in turn: these servers are theirs. */
  postgres: PrivateServer;
  redis: PrivateServer;
  /** Between Postgres and the victims. */
  toPostgres: FaultProxy;
};

type Size = {
  replicas?: number;
  /** How many replicas have failpoints and reach Postgres through `toPostgres`, the first ones; for rows that play in turn. */
  victims?: number;
};

type How = Plays["how"];
type Player = Row & { plays: Plays };

/** In the full size a row gets servers and brokers of its own. In the short size it shares them with other rows. */
export async function openGround(given: Given, row: Row, size: Size = {}): Promise<Ground> {
  if (!isPlayer(row)) throw new Error(`row ${row.number} does not say how it plays`);
  if (given.scale === "short") return await given.fleets.lend(row);
  const fleet = await Fleet.start([row], { ...size, seed: given.seed });
  return Object.assign(fleet.groundOf(row), { [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose]() });
}

function isPlayer(row: Row): row is Player {
  return row.plays !== undefined;
}

/** The brokers of the short size: two replicas for all rows that play at the same time, two for the rows that play in turn. */
export class Fleets implements AsyncDisposable {
  readonly #rows: readonly Player[];
  readonly #seed: number;
  readonly #fleets = new Map<How, Promise<Fleet>>();

  constructor(rows: readonly Row[], seed: number) {
    this.#rows = rows.filter(isPlayer);
    this.#seed = seed;
  }

  async lend(row: Player): Promise<Ground> {
    const { how } = row.plays;
    const players = this.#rows.filter(({ plays }) => plays.how === how);
    const starting = this.#fleets.get(how) ?? Fleet.start(players, { seed: this.#seed });
    this.#fleets.set(how, starting);
    const fleet = await starting;
    if (how === "in turn") await fleet.restore();
    return fleet.groundOf(row);
  }

  /** Nobody knows what a failed row has left behind, so the next row in turn gets new brokers. */
  async discard(how: How): Promise<void> {
    const fleet = await this.#fleets.get(how)?.catch(() => undefined);
    this.#fleets.delete(how);
    await fleet?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.discard("beside");
    await this.discard("in turn");
  }
}

/** Replicas, with a provider for each row that plays on them. */
class Fleet implements AsyncDisposable {
  readonly #stages: ReadonlyMap<number, ConnectedStage>;
  readonly #brokers: readonly BrokerProcess[];
  readonly #outside: Outside;

  private constructor(stages: ReadonlyMap<number, ConnectedStage>, brokers: BrokerProcess[], outside: Outside) {
    this.#stages = stages;
    this.#brokers = brokers;
    this.#outside = outside;
  }

  static async start(players: readonly Player[], size: Size & { seed: number }): Promise<Fleet> {
    const { replicas = 2, victims = 1, seed } = size;
    const isShared = players[0]?.plays.how === "beside";
    const outside = isShared ? await sharedServers() : await privateServers();
    const make = ({ number, plays }: Player) => {
      const id = `row-${number}`;
      return plays.provider?.({ id, seed }) ?? new GenericProvider({ id });
    };
    const providers = await Promise.all(players.map((player) => make(player).start()));
    const victim = { databaseUrl: outside.toPostgres?.url ?? outside.databaseUrl, failpoints: {} };
    const brokers = await startBrokers(replicas, {
      databaseUrl: outside.databaseUrl,
      redisUrl: outside.redisUrl,
      providersDir: await providersFolder(...providers),
      env: { LOG_LEVEL: "warn" },
      each: (replica) => (isShared || replica >= victims ? {} : victim),
    });
    const stages = new Map<number, ConnectedStage>();
    for (const [index, provider] of providers.entries()) {
      const stage = await new ConnectedStage(provider, brokers, { client: provider.id }).register();
      stages.set(players[index]?.number ?? 0, stage);
    }
    return new Fleet(stages, brokers, outside);
  }

  groundOf({ number }: Row): Ground {
    const stage = this.#stages.get(number);
    if (stage === undefined) throw new Error(`row ${number} was not there when its fleet started`);
    const { databaseUrl, redisUrl, ...own } = this.#outside;
    const leave = async () => {
      stage.provider.behave();
      // Leaves nothing to refresh while other rows play.
      await queryRows(databaseUrl, `DELETE FROM connections WHERE provider = '${stage.provider.id}'`).catch(() => {});
    };
    return {
      stage,
      databaseUrl,
      redisUrl,
      get postgres() {
        return owned("Postgres", own.postgres);
      },
      get redis() {
        return owned("Redis", own.redis);
      },
      get toPostgres() {
        return owned("line to Postgres", own.toPostgres);
      },
      [Symbol.asyncDispose]: leave,
    };
  }

  /** Starts and heals what the row before has killed or cut off. */
  async restore(): Promise<void> {
    this.#outside.toPostgres?.heal();
    for (const broker of this.#brokers) if (!broker.isRunning) await broker.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#stages.values()].map((stage) => stage[Symbol.asyncDispose]()));
    const { toPostgres, postgres, redis } = this.#outside;
    for (const each of [toPostgres, postgres, redis]) await each?.[Symbol.asyncDispose]();
  }
}

type Outside = {
  databaseUrl: string;
  redisUrl: string;
  postgres?: PrivateServer;
  redis?: PrivateServer;
  toPostgres?: FaultProxy;
};

/** A row may stop these, and drop the database. */
async function privateServers(): Promise<Outside> {
  const [postgres, redis] = [await startPrivatePostgres(), await startPrivateRedis()];
  const databaseUrl = await createDatabase(postgres.url, "freshet");
  const toPostgres = await startFaultProxy(databaseUrl);
  return { databaseUrl, redisUrl: redis.url, postgres, redis, toPostgres };
}

async function sharedServers(): Promise<Outside> {
  return { databaseUrl: await useDatabase(), redisUrl: await useRedis() };
}

function owned<Thing>(what: string, thing: Thing | undefined): Thing {
  if (thing === undefined) throw new Error(`rows that play beside others have no ${what} of their own`);
  return thing;
}
