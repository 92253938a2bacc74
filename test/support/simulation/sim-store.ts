import { BrokerError, isStorageUnavailable } from "../../../src/errors.ts";
import type { DatabaseHealth } from "../../../src/store/database.ts";
import type { Tombstones } from "../../../src/store/token-sets.ts";
import type { RequestLimits } from "../../../src/store/request-limits.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { call, LostReply, type Moments, type Remote } from "./remote.ts";
import type { Actor, Scheduler } from "./scheduler.ts";
import type { SimDatabase } from "./sim-database.ts";

/** What is wrong with Postgres, and with the replicas' connections to it. */
export class StoreFaults {
  isUp = true;
  isReadOnly = false;
  isSlow = false;
  /** When it was slow last. */
  slowMs = -Infinity;
  /** Names of replicas. */
  readonly cutOff = new Set<string>();
  readonly repliesToLose = new Map<string, number>();

  losesReply(actor: string): boolean {
    const left = this.repliesToLose.get(actor) ?? 0;
    if (left > 0) this.repliesToLose.set(actor, left - 1);
    return left > 0;
  }

  isReachable(actor: string): boolean {
    return this.isUp && !this.cutOff.has(actor);
  }
}

type Options = { scheduler: Scheduler; moments: Moments; database: SimDatabase; faults: StoreFaults };

const reading = new Set([
  "readByName",
  "changedSince",
  "hasLabels",
  "readByIds",
  "readById",
  "readForAnswer",
  "holdersElsewhere",
  "newestCandidate",
  "goneBack",
  "generationsAfter",
  "permitAges",
]);

/** The line of each replica to the one database. */
export function createSimStore({ scheduler, moments, database, faults }: Options) {
  const remote: Remote = {
    scheduler,
    moments,
    latencyMs: () => (faults.isSlow ? scheduler.magnitude(20, 900) : scheduler.between(0.5, 4)),
    refuses({ name }, { writes }) {
      if (faults.isReachable(name) && !(faults.isReadOnly && writes)) return null;
      return { afterMs: scheduler.magnitude(1, 300), error: unavailable() };
    },
    losesReply: ({ name }) => faults.losesReply(name),
  };

  /** Any transaction of one replica. */
  const transact = async <Result>(
    { actor, health }: { actor: Actor; health: DatabaseHealth },
    given: { name: string; effect: () => Result },
  ): Promise<Result> => {
    const writes = !reading.has(given.name);
    try {
      const result = await call(remote, actor, { ...given, writes });
      health.answered();
      return result;
    } catch (error) {
      const known = error instanceof LostReply ? unavailable() : error;
      if (isStorageUnavailable(known)) health.lost();
      throw known;
    }
  };

  return {
    transact,
    rowsOf(replica: { actor: Actor; health: DatabaseHealth }): TokenStatements {
      const statements = Object.entries(database.statements).map(([name, statement]) => [
        name,
        async (...given: unknown[]) =>
          await transact(replica, { name, effect: () => (statement as (...all: unknown[]) => unknown)(...given) }),
      ]);
      return Object.fromEntries(statements) as TokenStatements;
    },
    limitsOf: (replica: { actor: Actor; health: DatabaseHealth }): RequestLimits => ({
      admit: async (request) =>
        await transact(replica, { name: "admit", effect: () => database.limits.admit(request) }),
      closeAdmission: async (admitted, given) =>
        await transact(replica, {
          name: "closeAdmission",
          effect: () => database.limits.closeAdmission(admitted, given),
        }),
    }),
    tombstonesOf: (replica: { actor: Actor; health: DatabaseHealth }): Tombstones => ({
      find: async (id) => await transact(replica, { name: "readById", effect: () => database.findTombstone(id) }),
    }),
  };
}

export type SimStore = ReturnType<typeof createSimStore>;

function unavailable(): BrokerError {
  return new BrokerError("storage_unavailable", "The broker's database cannot be reached right now.", {
    retryAfterSeconds: 2,
  });
}
