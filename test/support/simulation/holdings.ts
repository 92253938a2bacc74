import type { SimRow } from "./sim-row.ts";
import { plainText } from "./plain-vault.ts";
import type { RefreshToken } from "./grant-model.ts";
import type { Send } from "./sends.ts";
import type { World } from "./world.ts";

/** Where and since when there were copies of what a provider issued. */
type Copies = { committedMs: number; redisMs: number; fileMs: number };

const nowhere: Copies = { committedMs: Infinity, redisMs: Infinity, fileMs: Infinity };

/** The longest time from asking whether a spool holds an answer to the send that the answer "no" has allowed. */
const raceMs = 4000;

/** Notes every copy of each issued refresh token, and says why a token was lost. */
export class Holdings {
  readonly #world: World;
  readonly #copies = new Map<string, Copies>();
  /** When the row that holds a refresh token was last seen to hold it. */
  readonly holders = new Map<string, { row: SimRow; leftMs: number | null }>();

  constructor(world: World) {
    this.#world = world;
    world.database.tables.watchers.push((before, after) => this.#rowChanged(before, after));
  }

  #rowChanged(before: SimRow | null, after: SimRow | null): void {
    const { nowMs } = this.#world.scheduler;
    const [old, now] = [valueOf(before), valueOf(after)];
    if (old !== null && before !== null && old !== now) this.holders.set(old, { row: before, leftMs: nowMs });
    if (now === null || after === null) return;
    this.holders.set(now, { row: after, leftMs: null });
    this.note(now, "committedMs");
  }

  note(value: string, place: keyof Copies): void {
    const copies = this.#copies.get(value) ?? nowhere;
    if (copies[place] === Infinity) this.#copies.set(value, { ...copies, [place]: this.#world.scheduler.nowMs });
  }

  /** A spooled record, or one kept as a candidate. */
  noteRecord(record: Uint8Array, place: keyof Copies): void {
    const { grant } = JSON.parse(plainText(record)) as { grant: { refreshToken: string | null } };
    if (grant.refreshToken !== null) this.note(plainText(Buffer.from(grant.refreshToken, "base64")), place);
  }

  isHeld({ value }: RefreshToken): boolean {
    return this.#copies.has(value);
  }

  /** The window that explains why the answer to `send` may be lost by `atMs`: W1, W2, W3; null: none does. */
  whyLost(send: Send, atMs: number): string | null {
    if (send.read?.as !== "granted" || send.issued === null) return "W1";
    const { committedMs, redisMs, fileMs } = this.#copies.get(send.issued.value) ?? nowhere;
    const { atMs: readMs } = send.read;
    if (committedMs < atMs - raceMs) return null;
    const troubles = this.#world.troubles;
    const isAway = troubles.within("replica", send.actor.name, { fromMs: readMs, toMs: atMs });
    const isEarliest = Math.min(committedMs, redisMs, fileMs) === Infinity;
    if (isEarliest && !send.actor.isAlive) return "W2";
    const noRedis = troubles.within("redis", "", { fromMs: readMs, toMs: atMs });
    if (isAway && (noRedis || redisMs > atMs - raceMs)) return "W3";
    return null;
  }

  /** True if the sender of `send` could not find out from Redis that a replica holds an answer to its token. */
  wasUnheard({ actor, beganMs }: Send): boolean {
    const lately = { fromMs: beganMs - raceMs, toMs: beganMs };
    return (
      this.#world.troubles.within("redis", "", lately) || this.#world.troubles.within("lost reply", actor.name, lately)
    );
  }
}

export function valueOf(row: SimRow | null): string | null {
  return row === null || row.refreshToken === null ? null : plainText(row.refreshToken);
}
