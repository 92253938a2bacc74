import { graceSeconds, isCurrent, type RefreshToken } from "./grant-model.ts";
import { valueOf } from "./holdings.ts";
import { plainText } from "./plain-vault.ts";
import type { Replica } from "./replica.ts";
import type { Send } from "./sends.ts";
import type { SimRow } from "./sim-row.ts";
import type { World } from "./world.ts";

const leaseMs = 30_000;
const quietMs = 10_000;
const graceQuietMs = 2000;
const sendWindowMs = 2000;
const staleMs = 5000;

export type Served = { connection: string; version: number; accessToken: string };

/** Checks the invariants of docs/refresh-protocol.md at every step of a run. */
export class InvariantWatch {
  readonly #world: World;
  readonly #versions = new Map<string, string>();
  readonly #newest = new Map<string, number>();
  /** Since when a name must not be served: deleted or disabled, and a person was told so. */
  readonly closedMs = new Map<string, number>();
  readonly explained: Record<string, number> = {};

  constructor(world: World) {
    this.#world = world;
    world.provider.watchers.push((send) => this.#sent(send));
    world.database.tables.watchers.push((before, after) => this.#stored(before, after));
    world.database.tables.candidateWatchers.push(({ record }) => world.holdings.noteRecord(record, "committedMs"));
  }

  /** I1 of docs/refresh-protocol.md. */
  #sent(send: Send): void {
    const { token } = send;
    if (token === null) return;
    this.#world.note(`${send.actor.name} sends ${token.value}`);
    this.#isPermitted(send, token);
    for (const before of this.#world.provider.sendsOf.get(token) ?? []) this.#sentAgain(send, before);
  }

  /** A row that holds the token has a permit, and has had it for less than the time to send. */
  #isPermitted(send: Send, token: RefreshToken): void {
    const holder = this.#world.holdings.holders.get(token.value);
    if (holder === undefined) return this.#violation(`${token.value} is sent, and no row holds it`);
    const { nowMs } = this.#world.scheduler;
    if (holder.leftMs !== null) {
      const isJust = nowMs - holder.leftMs <= sendWindowMs;
      if (!isJust) this.#violation(`${token.value} is sent by ${send.actor.name} long after its row moved on`);
      return;
    }
    const row = this.#world.database.tables.rows.get(holder.row.id);
    const permitMs = (row?.leaseUntil?.getTime() ?? -Infinity) - leaseMs;
    if (row !== undefined && (row.attemptId === null || nowMs - permitMs > sendWindowMs)) {
      this.#violation(`${token.value} is sent by ${send.actor.name} without a fresh permit`);
    }
  }

  #sentAgain(send: Send, before: Send): void {
    const { token } = send;
    if (token === null || before.read?.as === "refused") return;
    const isSafe = token.family.kind === "safe";
    if (before.read?.as === "granted") {
      if (!isSafe) this.#explain(send, before);
      return;
    }
    const quiet = token.family.kind === "grace" ? graceQuietMs : quietMs;
    const apartMs = send.beganMs - before.beganMs;
    if (apartMs < leaseMs - sendWindowMs + quiet) {
      this.#violation(`${token.value} is sent again ${apartMs} ms after a send without a known outcome`);
    }
    if (before.doneMs !== null && before.status === 200 && !isSafe) this.#explain(send, before);
  }

  #explain(send: Send, before: Send): void {
    // Waiting for Redis would use up the time in which the provider takes the old token.
    if (isInGrace(send) && this.#world.holdings.wasUnheard(send)) return;
    const why = this.#world.holdings.whyLost(before, send.beganMs);
    const what = `${send.token?.value} is sent again after a 2xx that ${before.actor.name} got`;
    if (why === null) return this.#violation(what);
    this.explained[why] = (this.explained[why] ?? 0) + 1;
    this.#world.note(`${what}: ${why}`);
  }

  /** I3 and I6. */
  #stored(before: SimRow | null, after: SimRow | null): void {
    this.#noteChange(before, after);
    if (after === null) return;
    const newest = this.#newest.get(after.name) ?? 0;
    if (after.version < newest) this.#violation(`${after.name}: version ${after.version} after ${newest}`);
    this.#newest.set(after.name, Math.max(newest, after.version));
    if (after.accessToken !== null && before?.accessToken !== after.accessToken) {
      this.#names(after.name, after.version, plainText(after.accessToken));
    }
    const isSame = before !== null && before.accessToken === after.accessToken;
    if (before !== null && !isSame && after.generation <= before.generation) {
      this.#violation(`${after.name}: a new set at generation ${after.generation}`);
    }
    const value = valueOf(after);
    const isNew = value !== null && before?.refreshToken !== after.refreshToken;
    const twins = isNew ? this.#holdersOf(value, after) : [];
    if (twins.length > 0) this.#violation(`${value} is held by ${after.name} and ${twins[0]?.name}`);
  }

  #holdersOf(value: string, row: SimRow): SimRow[] {
    if (row.provider === "safe") return [];
    return [...this.#world.database.tables.rows.values()].filter((one) => one.id !== row.id && valueOf(one) === value);
  }

  #noteChange(before: SimRow | null, after: SimRow | null): void {
    const [old, now] = [stateOf(before), stateOf(after)];
    if (old !== now) this.#world.note(`${(after ?? before)?.name}: ${now}`);
  }

  #names(connection: string, version: number, accessToken: string): void {
    const key = `${connection} version ${version}`;
    const known = this.#versions.get(key);
    if (known !== undefined && known !== accessToken) this.#violation(`${key} names ${known} and ${accessToken}`);
    this.#versions.set(key, accessToken);
  }

  /** I3 and I4. */
  served({ connection, version, accessToken }: Served, replica: Replica): void {
    const { nowMs } = this.#world.scheduler;
    this.#names(connection, version, accessToken);
    const life = this.#world.provider.accessLives.get(accessToken);
    if (life !== undefined && life.expiresMs <= nowMs) this.#violation(`${connection}: ${accessToken} had expired`);
    const closedMs = this.closedMs.get(connection) ?? Infinity;
    const { isSlow, slowMs } = this.#world.storeFaults;
    const troubledMs = Math.max(replica.troubledMs, isSlow ? nowMs : slowMs);
    if (nowMs - Math.max(closedMs, troubledMs) > staleMs) {
      this.#violation(`${connection} is served ${nowMs - closedMs} ms after it was closed`);
    }
  }

  /** I2, and that no connection has ended that could live. For a run at rest. */
  atRest(row: SimRow): void {
    const value = valueOf(row);
    const token = value === null ? undefined : this.#world.provider.grants.tokens.get(value);
    const state = row.status === "disabled" ? row.enabledStatus : row.status;
    // A disabled connection is not refreshed. An attempt with an unknown outcome stays, and nobody notices yet that a grant is over.
    const mayBeOver = row.status === "disabled" && token?.family.isLive === false;
    if (state === "connected" && row.attemptId === null && token !== undefined && !isCurrent(token) && !mayBeOver) {
      this.#violation(`${row.name} rests connected with ${token.value}, which is spent or over`);
    }
    if (row.attemptId !== null && row.status === "connected") {
      this.#violation(`${row.name} rests with the permit of an attempt that nobody makes`);
    }
    if (state !== "needs_reauthorization") return;
    const living = token?.family.tokens.find((one) => isCurrent(one) && this.#world.holdings.isHeld(one));
    if (token === undefined) this.#violation(`${row.name} has ended, and needs no refresh token`);
    if (living !== undefined) this.#violation(`${row.name} has ended, and ${living.value}, which was kept, lives`);
    const { detections = [], isLive = true } = token?.family ?? {};
    const isRevoked = token?.isDead === true && token.family.kind !== "until_successor_used";
    const isSpent = token !== undefined && token.rotatedMs !== null;
    if (token !== undefined && isLive && detections.length === 0 && !isRevoked && !isSpent && !token.isDead) {
      this.#violation(`${row.name} has ended with ${token.value}, which lives`);
    }
  }

  #violation(text: string): void {
    this.#world.violation(text);
  }
}

function isInGrace({ token, beganMs }: Send): boolean {
  if (token === null || token.family.kind !== "grace") return false;
  return beganMs - (token.rotatedMs ?? beganMs) <= graceSeconds * 1000;
}

function stateOf(row: SimRow | null): string {
  if (row === null) return "deleted";
  const permit = row.attemptId === null ? "free" : row.attemptOutcome === "unknown" ? "unknown" : "permit";
  const replays = row.attemptReplays === 0 ? "" : ` replay ${row.attemptReplays}`;
  const error = row.lastErrorCode === null ? "" : ` ${row.lastErrorCode}`;
  return `${row.status}, generation ${row.generation}, version ${row.version}, authorization ${row.authorization}, ${permit}${replays}, ${valueOf(row)}${error}`;
}
