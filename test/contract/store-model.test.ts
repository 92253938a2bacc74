import { afterAll, beforeAll, expect, it } from "vitest";
import { Prisma as Sql } from "../../src/generated/prisma/client.ts";
import { createConnections } from "../../src/store/connections.ts";
import { type Database, deafHealth, openPostgres } from "../../src/store/database.ts";
import { createTombstones } from "../../src/store/token-sets.ts";
import { createRequestLimits } from "../../src/store/request-limits.ts";
import { tokenColumns } from "../../src/store/token-row.ts";
import { createTokenStatements } from "../../src/store/token-statements.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { Scheduler } from "../support/simulation/scheduler.ts";
import { SimDatabase } from "../support/simulation/sim-database.ts";
import { ModelCalls, type StoreCall } from "./store/model-calls.ts";
import { ModelLimits } from "./store/model-limits.ts";
import { setClock, simulateClock } from "./store/simulated-clock.ts";
import { freely, vault } from "./store/stage.ts";

const names = ["c1", "c2", "c3"];
const steps = 260;
const limitSteps = 200;
const startMs = Date.UTC(2026, 10, 20, 12);
const limitPauses = [0, 0, 1, 7, 500, 500, 3000, 3000, 3000, 11_000, 11_000, 31_000, 90_000, 600_000, 25 * 3_600_000];
const pauses = [1, 7, 500, 3000, 11_000, 31_000, 45_000, 90_000, 600_000, 13 * 3_600_000];

let database: Database;

/** Both databases side by side. They get the same statements in the same order. */
class Twins {
  readonly model: SimDatabase;
  readonly calls: ModelCalls;
  /** How often each statement found its row, and how often it did not. */
  readonly met = new Map<string, { something: number; nothing: number }>();
  readonly #dice: Scheduler;
  readonly #rows = createTokenStatements(database);
  readonly #connections = createConnections(database, vault);
  #nowMs = startMs;

  constructor(seed: number) {
    this.#dice = new Scheduler(seededRandom(seed));
    this.model = new SimDatabase(() => this.#nowMs);
    this.calls = new ModelCalls(this.#dice, this.model);
  }

  async step(): Promise<string> {
    this.#nowMs += this.#dice.pick(pauses);
    await setClock(database, new Date(this.#nowMs));
    if (this.#dice.chance(0.12)) return await this.#act();
    const call = this.calls.next();
    if (call === null) return await this.#act();
    await this.#compare(call);
    // The same read with the client beside it.
    if (call.name === "readById") await this.#compare({ ...call, name: "readWithClient" });
    return call.name;
  }

  async #compare(call: StoreCall): Promise<void> {
    const [modelled, real] = [this.#callModel(call), await this.#callReal(call)];
    expect(real, `what ${call.name} returns`).toEqual(modelled);
    this.#note(call.name, modelled);
  }

  #callModel({ name, given }: StoreCall): unknown {
    const statement = this.model.statements[name] as (...all: unknown[]) => unknown;
    return plain(statement(...given));
  }

  async #callReal({ name, given }: StoreCall): Promise<unknown> {
    const statement = this.#rows[name] as (...all: unknown[]) => Promise<unknown>;
    return plain(await statement(...given));
  }

  #note(name: string, result: unknown): void {
    const counts = this.met.get(name) ?? { something: 0, nothing: 0 };
    const isEmpty = Array.isArray(result) && result.length === 0;
    const isUnknown = name === "readForAnswer" && !(result as { wasStored: boolean }).wasStored;
    const isNothing = result === null || result === false || isEmpty || isUnknown;
    counts[isNothing ? "nothing" : "something"] += 1;
    this.met.set(name, counts);
  }

  /** What people do. */
  async #act(): Promise<string> {
    const name = this.#dice.pick(names);
    const row = this.model.tables.byName(name);
    if (row === undefined) return await this.#create(name);
    if (this.#dice.chance(0.4)) {
      const [deleted = null] = await this.#connections.delete(row.id);
      const [modelled, real] = [this.model.delete(row.id), deleted];
      expect(plain(real), "what delete returns").toEqual(plain(modelled));
      const [kept, found] = [this.model.findTombstone(row.id), await createTombstones(database).find(row.id)];
      expect(found, "the tombstone").toEqual(kept);
      return "delete";
    }
    const disabled = row.status !== "disabled" && this.#dice.chance(0.4);
    const modelled = this.model.disable(row.id, disabled);
    const { mac = null } = (await this.#connections.findById(row.id)) ?? {};
    const real = await this.#connections.update({ ...row, mac }, { disabled }, freely);
    expect(plain(real), "what disable returns").toEqual(plain(modelled));
    return "disable";
  }

  async #create(name: string): Promise<string> {
    const grant = this.#dice.chance(0.3) ? "client_credentials" : "authorization_code";
    const given = { id: this.calls.newId(), name, provider: this.#dice.pick(["own", "other"]), clientRef: null, grant };
    const account = this.#dice.pick([null, "a1", "a1"]);
    const labels = { team: "a" };
    this.model.insert({ ...given, account, labels });
    await this.#connections.insert({ ...given, client: null, scopes: [], inputs: {}, labels, credentials: null });
    await database.prisma.$executeRaw`UPDATE connections SET account = ${account} WHERE id = ${given.id}::uuid`;
    return "insert";
  }

  async compareRows(step: string): Promise<void> {
    const { tables } = this.model;
    const rows = Array.from(tables.rows.values(), (row) => ({ ...row, now: tables.now }));
    expect(plain(await storedRows()), `the connections after ${step}`).toEqual(plain(rows));
  }

  async compareRest(step: string): Promise<void> {
    const { tables } = this.model;
    const candidates = Array.from(tables.candidates.values(), (kept) => ({ ...kept, order: undefined }));
    const tombstones = [...tables.tombstones.values()];
    expect(plain(await storedRest()), `the rest after ${step}`).toEqual(plain({ candidates, tombstones }));
  }
}

const ms = (column: string) => Sql.raw(`(extract(epoch FROM ${column}) * 1000)::float8`);

/** The limits on both sides. They get the same requests in the same order. */
class TwinLimits {
  readonly met = { admitted: 0, heldBack: 0, settled: 0 };
  readonly #dice: Scheduler;
  readonly #calls: ModelLimits;
  readonly #model: SimDatabase;
  readonly #real = createRequestLimits(database);
  #nowMs = startMs;

  constructor(seed: number) {
    this.#dice = new Scheduler(seededRandom(seed));
    this.#calls = new ModelLimits(this.#dice);
    this.#model = new SimDatabase(() => this.#nowMs);
  }

  async step(): Promise<string> {
    this.#nowMs += this.#dice.chance(0.02) ? -this.#dice.pick(pauses) : this.#dice.pick(limitPauses);
    await setClock(database, new Date(this.#nowMs));
    if (this.#dice.chance(0.05)) {
      this.#model.statements.tidy();
      await createTokenStatements(database).tidy();
      return "tidy";
    }
    const { name, given } = this.#calls.next();
    if (name === "closeAdmission") {
      this.#model.limits.closeAdmission(...given);
      await this.#real.closeAdmission(...given);
      this.met.settled += 1;
      return name;
    }
    const [modelled, real] = [this.#model.limits.admit(...given), await this.#real.admit(...given)];
    expect(plain(real), `what is admitted of ${asText(given)}`).toEqual(plain(modelled));
    if (modelled.admitted !== null) this.#calls.learn(modelled.admitted);
    this.met[modelled.admitted === null ? "heldBack" : "admitted"] += 1;
    return name;
  }

  async compare(step: string): Promise<void> {
    const rows = Array.from(this.#model.tables.limits, ([key, { seen, clients, ...limit }]) => ({
      key,
      ...limit,
      seenBy: seen.map(({ at }) => at),
      seenOf: seen.map(({ client }) => client),
      clients: clients.map(({ client }) => client),
      clientsAsked: clients.map(({ asked }) => asked),
      waitsSince: clients.map(({ since }) => since),
      waitsDue: clients.map(({ due }) => due),
    }));
    const list = (column: string) => Sql.sql`ARRAY(SELECT ${ms("at")} FROM unnest(${Sql.raw(column)}) AS u(at))`;
    const stored = await database.prisma
      .$queryRaw`SELECT key, ${list("seen_by")} AS "seenBy", ${list("running")} AS running,
      keep_seconds AS "ttlSeconds", ${ms("closed_until")} AS "closedUntil", ${ms("asked_at")} AS "askedAt",
      wait_seconds AS "waitSeconds", seen_of AS "seenOf", clients,
      ${list("clients_asked")} AS "clientsAsked", ${list("waits_since")} AS "waitsSince", ${list("waits_due")} AS "waitsDue"
      FROM request_limits`;
    expect(plain(stored), `the limits after ${step}`).toEqual(plain(rows));
  }
}

async function storedRows(): Promise<unknown[]> {
  const hidden = Sql.sql`c.enabled_status AS "enabledStatus", c.refresh_fingerprint AS "refreshFingerprint",
    c.next_refresh_at AS "nextRefreshAt", c.refresh_due_at AS "refreshDueAt", c.refusal, c.refused_since AS "refusedSince"`;
  return await database.prisma.$queryRaw`SELECT ${tokenColumns}, ${hidden} FROM connections c`;
}

async function storedRest(): Promise<unknown> {
  const { prisma } = database;
  const candidates = await prisma.$queryRaw<unknown[]>`SELECT attempt_id::text AS "attemptId",
    connection_id::text AS "connectionId", authorization_seq AS "authorization", base_generation AS "baseGeneration",
    record_sealed AS record FROM candidates`;
  const tombstones = await prisma.$queryRaw<unknown[]>`SELECT name, connection_id::text AS "connectionId", version,
    authorization_seq AS "authorization", provider, client_ref::text AS "clientRef", inputs, captured,
    (extract(epoch FROM deleted_at) * 1000)::float8 AS "deletedMs" FROM tombstones`;
  return { candidates, tombstones };
}

/** Lists and keys in one order, bytes and times readable, without what is undefined. */
function plain(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("latin1");
  if (Array.isArray(value)) return value.map(plain).sort((one, other) => (asText(one) < asText(other) ? -1 : 1));
  if (typeof value === "number") return Math.round(value * 1000) / 1000;
  if (typeof value !== "object" || value === null) return value ?? null;
  // The simulation proves no rows, and numbers their versions in its own way.
  const entries = Object.entries(value).filter(
    ([name, inner]) => inner !== undefined && name !== "mac" && name !== "asOf",
  );
  entries.sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([name, inner]) => [name, plain(inner)]));
}

function asText(value: unknown): string {
  return JSON.stringify(value);
}

describeWithServices(["postgres"], "the simulated store", () => {
  beforeAll(async () => {
    const databaseUrl = await useDatabase();
    await simulateClock(databaseUrl);
    database = await openPostgres(databaseUrl, deafHealth);
  });

  afterAll(async () => await database.close());

  const met = new Map<string, { something: number; nothing: number }>();

  it.each([1, 2, 3])("answers and stores what the database does, over random calls of seed %i", async (seed) => {
    await database.prisma.$executeRawUnsafe("TRUNCATE connections, tombstones CASCADE");
    const twins = new Twins(seed);
    for (let index = 0; index < steps; index++) {
      const step = `step ${index}, ${await twins.step()}`;
      if (index % 4 === 3) await twins.compareRows(step);
      if (index % 8 === 7) await twins.compareRest(step);
    }
    for (const [name, { something, nothing }] of twins.met) {
      const sum = met.get(name) ?? { something: 0, nothing: 0 };
      met.set(name, { something: sum.something + something, nothing: sum.nothing + nothing });
    }
  });

  it.each([1, 2, 3])("keeps limits as the database does, over random calls of seed %i", async (seed) => {
    await database.prisma.$executeRawUnsafe("TRUNCATE request_limits");
    const twins = new TwinLimits(seed);
    for (let index = 0; index < limitSteps; index++) {
      const step = `step ${index}, ${await twins.step()}`;
      if (index % 4 === 3) await twins.compare(step);
    }
    expect(Math.min(...Object.values(twins.met))).toBeGreaterThan(10);
  });

  it("was asked for everything, and each statement that may find nothing has done both", () => {
    const rows = createTokenStatements(database);
    const silent = new Set(["dropPermit", "postpone", "hasten", "markInUse", "tidy"]);
    const unmodelled = new Set(["noteUnprepared"]); // writes what people read, and moves nothing
    const sure = new Set(["permitAges", "generationsAfter", "readByIds", "readByName", "changedSince", "hasLabels"]);
    const missed = Object.keys(rows).filter((name) => {
      if (unmodelled.has(name)) return false;
      const { something, nothing } = met.get(name) ?? { something: 0, nothing: 0 };
      return silent.has(name) ? something + nothing === 0 : something === 0 || (nothing === 0 && !sure.has(name));
    });
    expect(missed).toEqual([]);
  });
});
