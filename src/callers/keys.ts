import { createHash, timingSafeEqual } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { Clock } from "../clock.ts";
import { shareAnswer } from "../concurrency.ts";
import { BrokerError, encryptionKeyMissing } from "../errors.ts";
import type { Labels } from "../labels.ts";
import type { Ability, ApiKeyRow, ApiKeys, FoundApiKey, ListedApiKey } from "../store/api-keys.ts";
import type { PageRequest } from "../store/connections.ts";
import { createReadCache } from "../store/read-cache.ts";
import { callerTimes } from "../time.ts";
import type { Peers } from "../services/peers.ts";
import type { GiverOf } from "./givers.ts";
import { boundsOf, bootstrapKeyId, type Principal, requireMayGive } from "./principal.ts";

type NewKey = { name: string; abilities: Ability[]; connections: string[]; labels: Labels; expiresAt: Date | null };

export type KeyService = ReturnType<typeof createKeyService>;

type Options = {
  keys: ApiKeys;
  /** The bootstrap keys, which have every ability on every connection. */
  adminKeys: readonly string[];
  /** How long a key that was verified stays good while Postgres is away. */
  trustSeconds: number;
  peers: Pick<Peers, "tell" | "listen" | "uses">;
  giverOf: GiverOf;
  clock: Clock;
  nowMs: () => number;
  randomBytes: (size: number) => Uint8Array;
};

const maxKeys = 10_000;
const bootstrap: Principal = {
  callerId: bootstrapKeyId,
  actor: { kind: "key", id: bootstrapKeyId, name: "ADMIN_KEY" },
  abilities: ["tokens", "connections", "admin"],
  connections: ["*"],
  labels: {},
  expiresAt: null,
};

export function createKeyService(options: Options) {
  const { keys, adminKeys, trustSeconds, peers, giverOf, clock, nowMs, randomBytes } = options;
  const adminHashes = adminKeys.map(hashKey);
  /** Keys whose end this replica has learnt of, with the hash of the secret if it knew the key. For times without Postgres. */
  const revoked = new LRUCache<string, Uint8Array>({ maxSize: maxKeys, sizeCalculation: () => 1 });
  /** When keys were used last, by this machine's clock, since somebody took these times from here. */
  let usedMs = new Map<string, number>();
  let turn = 0;
  const revokedAt = new LRUCache<string, number>({ maxSize: maxKeys, sizeCalculation: () => 1 });
  const cache = createReadCache<FoundApiKey>({
    async load(ids) {
      for (;;) {
        const askedAt = ++turn;
        const rows = await keys.findMany(ids);
        // The rows were read before one of the keys was revoked, so they are read again.
        const isOld = rows.some(({ id }) => (revokedAt.get(id) ?? -1) > askedAt);
        if (!isOld) return new Map(rows.map((row) => [row.id, row]));
      }
    },
    clock: { ...clock, monotonicMs: passedMs(clock) },
    trustMs: callerTimes.keyTrustMs,
    outageMs: trustSeconds * 1000,
    maxEntries: maxKeys,
    supersedes: () => true,
  });
  /** Callers by the very text of their key, after it was verified against this row. Bounded; text that was not verified is never put in. */
  const verified = new LRUCache<string, { row: FoundApiKey; principal: Principal }>({
    maxSize: maxKeys,
    sizeCalculation: () => 1,
  });
  peers.listen(({ kind, id }) => {
    if (kind !== "key") return;
    const hash = cache.peek(id)?.secretHash;
    if (hash !== undefined) revoked.set(id, hash);
    revokedAt.set(id, ++turn);
    cache.forget(id);
  });

  /** Without Postgres, a caller with a key that is known to be revoked gets that answer. */
  const read = async (id: string, hash: Uint8Array): Promise<FoundApiKey | null> =>
    await cache.read(id).catch((error: unknown) => {
      const known = revoked.get(id);
      if (known !== undefined && isSameHash(hash, known)) throw unauthenticated("The key has been revoked.");
      throw error;
    });
  const knownIds = shareAnswer(async () => await keys.ids(), clock);

  return {
    /** The caller of a key that was verified here, if its row is still trusted. Null: `authenticate` finds out. Asks nobody. */
    known(key: string): Principal | null {
      const known = verified.get(key);
      if (known === undefined || cache.trusted(known.row.id) !== known.row) return null;
      const { row, principal } = known;
      if (row.expiresAt !== null && row.expiresAt.getTime() <= nowMs()) return null;
      peers.uses("key", row.id);
      usedMs.set(row.id, clock.wallMs());
      return principal;
    },

    /**
     * `sparing`: for a caller that has sent many wrong keys. An unknown key then costs no query of its own.
     * @throws BrokerError unauthenticated, saying whether it is unknown, expired or revoked; storage_unavailable;
     * encryption_key_missing
     */
    async authenticate(key: string, { sparing }: { sparing: boolean } = { sparing: false }): Promise<Principal> {
      const hash = hashKey(key);
      if (adminHashes.some((adminHash) => isSameHash(hash, adminHash))) return bootstrap;
      const id = readKeyId(key);
      if (id === null || (cache.peek(id) === null && !hasGoodChecksum(key))) {
        throw unauthenticated(noKey);
      }
      const isInvented = sparing && cache.peek(id) === null && !(await knownIds()).has(id);
      const row = isInvented ? null : await read(id, hash);
      if (row === null || !isSameHash(hash, row.secretHash)) throw unauthenticated("The key is unknown.");
      if (row.isSilent) throw encryptionKeyMissing("this API key");
      if (row.revokedAt !== null) throw unauthenticated("The key has been revoked.");
      if (row.expiresAt !== null && row.expiresAt.getTime() <= nowMs()) throw unauthenticated("The key has expired.");
      peers.uses("key", row.id);
      usedMs.set(row.id, clock.wallMs());
      const { name, abilities, connections, labels, expiresAt } = row;
      const actor = { kind: "key" as const, id, name };
      const principal: Principal = { callerId: id, actor, abilities, connections, labels, expiresAt };
      verified.set(key, { row, principal });
      return principal;
    },

    /** When each key was used last by the clock of this machine, of those that were used since the last call. */
    takeUses(): ReadonlyMap<string, number> {
      const taken = usedMs;
      usedMs = new Map();
      return taken;
    },

    /** Makes a key. Only this answer contains it. @throws BrokerError forbidden for more than the calling key has */
    async create(giver: Principal, { name, ...gift }: NewKey): Promise<{ row: ApiKeyRow; key: string }> {
      requireMayGive(giver, gift);
      const { id, key } = makeApiKey(randomBytes);
      const row = await keys.insert({ id, name, ...gift, secretHash: hashKey(key) }, giverOf(giver));
      if (row === null) throw unauthenticated("The key or workload that asks for it has ended.");
      return { row, key };
    },

    /** Lists the keys whose patterns lie within the principal's own, and which are bound to each of its labels. */
    list: async (principal: Principal, page: PageRequest): Promise<ListedApiKey[]> =>
      await keys.list(page, boundsOf(principal)),

    /**
     * Returns the names of replicas that have not confirmed that they refuse the key.
     * @throws BrokerError not_found, also for a key beyond the principal's patterns or labels
     */
    async revoke(principal: Principal, id: string): Promise<string[]> {
      const known = await keys.revoke(id, boundsOf(principal));
      cache.expire(id);
      if (!known) throw new BrokerError("not_found", `There is no key with the id "${id}".`);
      return await peers.tell({ kind: "key", id });
    },
  };
}

/** The larger of what has passed by the two clocks: a suspended machine stops the monotonic clock, and somebody may set the wall clock back. */
export function passedMs(clock: Clock): () => number {
  const [monotonicMs, wallMs] = [clock.monotonicMs(), clock.wallMs()];
  let passed = 0;
  return () => (passed = Math.max(passed, clock.monotonicMs() - monotonicMs, clock.wallMs() - wallMs));
}

const noKey =
  "The bearer is not a key of this broker: it is mistyped or cut off. Copy the whole key from where it was shown, or have a new one made " +
  "(freshet keys add); the first key is ADMIN_KEY, or lies in DATA_DIR/admin-key.";

function unauthenticated(detail: string): BrokerError {
  return new BrokerError("unauthenticated", detail);
}

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const idLength = 12;
const secretLength = 40;
const checksumLength = 6;
const shape = new RegExp(
  `^frt_([0-9A-Za-z]{${idLength}})_([0-9A-Za-z]{${secretLength}})_([0-9A-Za-z]{${checksumLength}})$`,
);

/** Makes a key of 238 random bits: `frt_<id>_<secret>_<checksum>`, parts in base62. It is shown once; only its hash is kept. */
export function makeApiKey(randomBytes: (size: number) => Uint8Array): { id: string; key: string } {
  const id = randomText(idLength, randomBytes);
  const secret = randomText(secretLength, randomBytes);
  return { id, key: `frt_${id}_${secret}_${checksum(id, secret)}` };
}

/** The id of a key; null if the text does not have the form of a key. */
export function readKeyId(text: string): string | null {
  return shape.exec(text)?.[1] ?? null;
}

/** Recognises mistyped and cut keys without a query. */
export function hasGoodChecksum(key: string): boolean {
  const [, id = "", secret = "", check] = shape.exec(key) ?? [];
  return check === checksum(id, secret);
}

/** SHA-256 is enough, since keys are random and not chosen by people. */
export function hashKey(key: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(key).digest());
}

/** Compares in constant time. */
export function isSameHash(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

function randomText(length: number, randomBytes: (size: number) => Uint8Array): string {
  let text = "";
  while (text.length < length) {
    // Bytes from 248 on are left out: 248 is the largest multiple of 62, so every character stays equally likely.
    for (const byte of randomBytes(length)) {
      if (byte < 248 && text.length < length) text += alphabet[byte % 62];
    }
  }
  return text;
}

function checksum(id: string, secret: string): string {
  const digest = createHash("sha256").update(`frt_${id}_${secret}`).digest();
  return Array.from(digest.subarray(0, checksumLength), (byte) => alphabet[byte % 62]).join("");
}
