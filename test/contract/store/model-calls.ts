import type { ConnectionStatus } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import type { Scheduler } from "../../support/simulation/scheduler.ts";
import type { SimDatabase } from "../../support/simulation/sim-database.ts";
import type { SimRow } from "../../support/simulation/sim-row.ts";
import { RandomSeals } from "./random-seals.ts";

/** A statement and what it is given. */
export type StoreCall = {
  [Name in keyof TokenStatements]: { name: Name; given: Parameters<TokenStatements[Name]> };
}[keyof TokenStatements];

type Dice = Pick<Scheduler, "pick" | "chance">;

const ownersStatements = new Set<string>([
  "swapPermit",
  "returnPermit",
  "dropPermit",
  "leaveUnknown",
  "endGrant",
  "commitRefresh",
  "tryCandidate",
]);
const refreshable: readonly ConnectionStatus[] = ["connected", "pending"];
const plain = { code: "temporarily_unavailable", detail: "as the test wants it" };

/** Makes up calls that fit the rows, or nearly fit: each guard gets calls that it lets pass and calls that it does not. */
export class ModelCalls {
  readonly #dice: Dice;
  readonly #database: SimDatabase;
  readonly #seals: RandomSeals;
  #ids = 0;

  constructor(dice: Dice, database: SimDatabase) {
    this.#dice = dice;
    this.#database = database;
    this.#seals = new RandomSeals(dice);
  }

  newId(): string {
    return `00000000-0000-4000-8000-${String(++this.#ids).padStart(12, "0")}`;
  }

  /** One call of any statement, most often of one that changes rows; null: there is no row for it. */
  next(): StoreCall | null {
    const rows = [...this.#database.tables.rows.values()];
    if (rows.length === 0) return null;
    const row = this.#dice.pick(rows);
    const call = this.#about(row);
    // Most statements are about a permit that stands.
    const isPointless = row.attemptId === null && ownersStatements.has(call.name) && this.#dice.chance(0.8);
    return isPointless ? { name: "takePermit", given: [this.#request(row)] } : call;
  }

  #about(row: SimRow): StoreCall {
    const kinds = [
      "permit",
      "permit",
      "permit",
      "ends",
      "ends",
      "grant",
      "late",
      "late",
      "due",
      "due",
      "read",
      "read",
    ] as const;
    switch (this.#dice.pick(kinds)) {
      case "permit":
        return this.#permit(row);
      case "ends":
        return this.#ends(row);
      case "grant":
        return this.#grant(row);
      case "late":
        return this.#late(row);
      case "due":
        return this.#due(row);
      default:
        return this.#read(row);
    }
  }

  /** Mostly `value`, rarely `other`. */
  #rarely<Value>(value: Value, other: Value): Value {
    return this.#dice.chance(0.12) ? other : value;
  }

  #key(row: SimRow) {
    return {
      connectionId: row.id,
      generation: this.#rarely(row.generation, row.generation - 1),
      attemptId: this.#rarely(row.attemptId ?? this.newId(), this.newId()),
    };
  }

  #ifAbandoned() {
    return { quietSeconds: this.#dice.pick([2, 10]), promptly: this.#dice.chance(0.5) };
  }

  /** A failure, mostly one that counts towards `probably_dead`. */
  #failure() {
    const refusal = this.#dice.pick([null, "400", "400", "400", "400", "403 access_denied"]);
    return refusal === null ? plain : { ...plain, refusal };
  }

  /** What operators say about ends, and what the broker finds out about them. Mostly a call that some row fits. */
  #ends(row: SimRow): StoreCall {
    const { rows, now } = this.#database.tables;
    const find = (fits: (row: SimRow) => boolean) => [...rows.values()].find(fits);
    const about = {
      judge: find(
        (one) => one.refusals > 0 && one.status === "connected" && one.expiresAt !== null && one.expiresAt <= now,
      ),
      end: find((one) => one.status === "connected" && one.probablyDeadSince !== null),
      retry: find((one) => isEnded(one) && one.attemptId === null && one.refreshToken !== null),
      fail: find((one) => isEnded(one) && one.attemptId !== null),
    };
    const fitting = (["judge", "end", "retry", "fail"] as const).filter((kind) => about[kind] !== undefined);
    const isFitting = fitting.length > 0 && this.#dice.chance(0.8);
    const kind = this.#dice.pick(isFitting ? fitting : (["judge", "end", "retry", "fail"] as const));
    return this.#end(kind, about[kind] ?? row);
  }

  #end(kind: "judge" | "end" | "retry" | "fail", row: SimRow): StoreCall {
    const dice = this.#dice;
    const key = this.#key(row);
    switch (kind) {
      case "judge":
        return { name: "judgeRefusals", given: [key, { equal: dice.pick([1, 1, 2]), seconds: dice.pick([0, 60]) }] };
      case "end":
        return { name: "endProbablyDead", given: [this.#asRead(row), { by: "somebody", quietSeconds: 10 }] };
      case "retry": {
        const request = { ...key, attemptId: this.newId(), leaseSeconds: 30, pauseSeconds: 60 };
        return { name: "takeRetryPermit", given: [{ ...request, exclusive: dice.chance(0.5), by: "somebody" }] };
      }
      default:
        return dice.pick<StoreCall>([
          { name: "returnRetryPermit", given: [key, plain] },
          { name: "leaveRetryUnknown", given: [key, plain, dice.chance(0.5) ? this.#seals.bytes() : null] },
          { name: "lapseRetries", given: [10] },
          { name: "lapseRetries", given: [10] },
        ]);
    }
  }

  #permit(row: SimRow): StoreCall {
    const dice = this.#dice;
    const key = this.#key(row);
    const failure = this.#failure();
    const backoffSeconds = dice.pick([0, 1.25, 30]);
    switch (dice.pick(["take", "take", "swap", "return", "drop", "unknown", "unknown", "end", "stop"] as const)) {
      case "take":
        return { name: "takePermit", given: [this.#request(row)] };
      case "swap":
        return { name: "swapPermit", given: [key, { attemptId: this.newId(), leaseSeconds: 30 }] };
      case "return":
        return { name: "returnPermit", given: [key, failure, backoffSeconds] };
      case "drop":
        return { name: "dropPermit", given: [key] };
      case "unknown": {
        const answer = dice.chance(0.5) ? this.#seals.bytes() : null;
        const rest = { endLease: dice.chance(0.5), ifAbandoned: this.#ifAbandoned() };
        return { name: "leaveUnknown", given: [key, failure, { backoffSeconds, answer, ...rest }] };
      }
      case "end": {
        const revision = dice.chance(0.5) ? {} : { credentialsRevision: this.#rarely(row.credentialsRevision, 7) };
        return { name: "endGrant", given: [{ ...key, ...revision }, failure] };
      }
      default:
        return { name: "endUnrefreshable", given: [this.#asRead(row), failure] };
    }
  }

  #asRead(row: SimRow) {
    return { ...row, generation: this.#rarely(row.generation, row.generation - 1), now: this.#database.tables.now };
  }

  #request(row: SimRow): Parameters<TokenStatements["takePermit"]>[0] {
    const dice = this.#dice;
    const takeover = {
      seenAttemptId: this.#rarely(row.attemptId ?? this.newId(), this.newId()),
      quietSeconds: 10,
      promptly: dice.chance(0.5),
      graceSeconds: dice.pick([0, 600]),
      graceQuietSeconds: 2,
    };
    return {
      connectionId: row.id,
      generation: this.#rarely(row.generation, row.generation + 1),
      attemptId: this.newId(),
      leaseSeconds: 30,
      statuses: this.#rarely(refreshable, ["connected"]),
      exclusive: this.#ids % 3 !== 0,
      ifAbandoned: this.#ifAbandoned(),
      takeover: dice.chance(0.25) ? null : takeover,
    };
  }

  #grant(row: SimRow): StoreCall {
    const key = this.#key(row);
    if (this.#dice.chance(0.6)) {
      return {
        name: "commitRefresh",
        given: [key, this.#seals.grant(this.#database.tables.nowMs()), { attempt: key.attemptId }],
      };
    }
    const attemptId = this.newId();
    const place = { id: row.id, generation: key.generation, goneBackFrom: row.goneBackFrom, attemptId };
    const event = { type: "connected" as const, detail: { attempt: attemptId } };
    return {
      name: "replaceGrant",
      given: [
        place,
        this.#seals.grant(this.#database.tables.nowMs()),
        {
          event,
          exclusive: this.#dice.chance(0.5),
          unlessSent: this.#ids % 2 === 0,
          clientId: this.#dice.pick([null, "app"]),
          ...(this.#dice.chance(0.3) && { oldTokenOf: "a1" }),
        },
      ],
    };
  }

  #late(row: SimRow): StoreCall {
    const dice = this.#dice;
    const kept = [...this.#database.tables.candidates.values()].filter(({ connectionId }) => connectionId === row.id);
    const candidateId = kept.length > 0 && dice.chance(0.85) ? dice.pick(kept).attemptId : this.newId();
    const authorization = this.#rarely(row.authorization, row.authorization - 1);
    switch (dice.pick(["promote", "add", "add", "newest", "try", "try"] as const)) {
      case "promote": {
        const generation = row.generation + dice.pick([1, 2]);
        const place = { ...this.#asRead(row), authorization, attemptId: this.#rarely(row.attemptId, null) };
        const event = { type: "late_answer_stored" as const, detail: { attempt: candidateId } };
        return {
          name: "promoteLate",
          given: [
            place,
            this.#seals.grant(this.#database.tables.nowMs()),
            { attemptId: candidateId, generation, event },
          ],
        };
      }
      case "add": {
        const attemptId = this.#rarely(this.newId(), candidateId);
        const place = { connectionId: row.id, authorization, baseGeneration: row.generation };
        return { name: "addCandidate", given: [{ attemptId, ...place, record: this.#seals.bytes() }, {}] };
      }
      case "newest":
        return { name: "newestCandidate", given: [row.id, authorization] };
      default: {
        const given = { candidateId, attemptId: this.newId(), leaseSeconds: 30, ifAbandoned: this.#ifAbandoned() };
        return {
          name: "tryCandidate",
          given: [this.#key(row), this.#seals.grant(this.#database.tables.nowMs()), given],
        };
      }
    }
  }

  #due(row: SimRow): StoreCall {
    const dice = this.#dice;
    const seen = { id: row.id, generation: this.#rarely(row.generation, row.generation - 1) };
    switch (
      dice.pick([
        "claim",
        "claim",
        "postpone",
        "hasten",
        "use",
        "use",
        "hold",
        "hold",
        "back",
        "release",
        "release",
        "tidy",
      ] as const)
    ) {
      case "claim":
        return { name: "claimDue", given: [{ limit: this.#limit(), claimSeconds: 60, busyProviders: this.#busy() }] };
      case "postpone":
        return { name: "postpone", given: [seen, dice.pick([null, 0, 12.5])] };
      case "hasten":
        return { name: "hasten", given: [seen] };
      case "use":
        return { name: "markInUse", given: [[seen]] };
      case "hold": {
        const mark = {
          connectionId: row.id,
          generation: row.generation + dice.pick([0, 1, 1]),
          version: row.version + 2,
        };
        return { name: "suspendRestored", given: [[mark]] };
      }
      case "back":
        return { name: "goneBack", given: [] };
      case "release": {
        const rows = [...this.#database.tables.rows.values()];
        const { id, generation, goneBackFrom } = rows.find((one) => one.goneBackFrom !== null) ?? row;
        const known = this.#rarely(goneBackFrom ?? generation, generation);
        const held = { id, generation, goneBackFrom: known };
        const tokens = { accessToken: this.#seals.bytes(), refreshToken: this.#seals.bytes() };
        return { name: "releaseGoneBack", given: [held, tokens, "somebody"] };
      }
      default:
        return { name: "tidy", given: [] };
    }
  }

  /** Nobody promises which of the rows that are due at the same time is claimed first. */
  #limit(): number {
    const times = [...this.#database.tables.rows.values()].map(({ nextRefreshAt }) => nextRefreshAt?.getTime());
    return new Set(times).size === times.length ? this.#dice.pick([1, 10]) : 10;
  }

  #busy(): string[] {
    return this.#dice.chance(0.2) ? ["own"] : [];
  }

  /** Mostly a value that another row holds. */
  #heldBeside({ id }: SimRow): Uint8Array<ArrayBuffer> {
    const other = [...this.#database.tables.rows.values()].find((one) => one.id !== id)?.refreshFingerprint ?? null;
    return other === null || this.#dice.chance(0.3) ? this.#seals.fingerprint() : new Uint8Array(other);
  }

  #read(row: SimRow): StoreCall {
    const { tables } = this.#database;
    const stored = [...(tables.storedAttempts.get(row.id) ?? [])];
    const attemptId = stored.length > 0 && this.#dice.chance(0.7) ? this.#dice.pick(stored) : this.newId();
    return this.#dice.pick<StoreCall>([
      { name: "readByName", given: [["c1", "c2", "nobody"]] },
      { name: "changedSince", given: [[{ id: this.newId(), asOf: "1" }]] },
      { name: "hasLabels", given: [row.name, { team: "a" }] },
      { name: "readByIds", given: [[row.id, this.newId()]] },
      { name: "readById", given: [this.#dice.pick([row.id, this.newId()])] },
      { name: "readForAnswer", given: [{ connectionId: row.id, attemptId }] },
      { name: "holdersElsewhere", given: [row.id, this.#heldBeside(row)] },
      { name: "permitAges", given: [] },
      { name: "generationsAfter", given: [this.#dice.pick([null, row.id]), 2] },
    ]);
  }
}

function isEnded({ status }: SimRow): boolean {
  return status === "needs_reauthorization";
}
