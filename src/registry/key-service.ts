import type { Clock } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import type { Ability, ApiKeyRow, ApiKeys, FoundApiKey } from "../store/api-keys.ts";
import type { PageRequest } from "../store/page.ts";
import { createReadCache } from "../store/read-cache.ts";
import { encryptionKeyMissing } from "../unreadable.ts";
import { shareAnswer } from "../shared-answer.ts";
import { hasGoodChecksum, hashKey, isSameHash, makeApiKey, readKeyId } from "./api-key.ts";
import { bootstrapKeyId, likePatterns, requireMayGive, type Principal } from "./principal.ts";

type NewKey = { name: string; abilities: Ability[]; connections: string[]; expiresAt: Date | null };

export type KeyService = {
  /**
   * `sparing`: for a caller who has sent many wrong keys. An invented one then costs no query of its own.
   * @throws BrokerError unauthenticated, saying whether it is unknown, expired or revoked; storage_unavailable;
   * encryption_key_missing
   */
  authenticate(key: string, options?: { sparing: boolean }): Promise<Principal>;
  /** The key itself is in the answer, once. @throws BrokerError forbidden for more than the giver has */
  create(giver: Principal, key: NewKey): Promise<{ row: ApiKeyRow; key: string }>;
  /** Those whose patterns lie within the principal's own. */
  list(principal: Principal, page: PageRequest): Promise<ApiKeyRow[]>;
  /** @throws BrokerError not_found, for a key beyond the principal's patterns too */
  revoke(principal: Principal, id: string): Promise<void>;
};

type Options = {
  keys: ApiKeys;
  /** The bootstrap keys, which have every ability on every connection. */
  adminKeys: readonly string[];
  clock: Clock;
  nowMs: () => number;
  randomBytes: (size: number) => Uint8Array;
};

/** How long a key is trusted without asking Postgres, and how long it outlives Postgres. */
const trustMs = 4000;
const outageMs = 120_000;
const bootstrap: Principal = {
  keyId: bootstrapKeyId,
  abilities: ["tokens", "connections", "admin"],
  connections: ["*"],
  expiresAt: null,
};

export function createKeyService({ keys, adminKeys, clock, nowMs, randomBytes }: Options): KeyService {
  const adminHashes = adminKeys.map(hashKey);
  const cache = createReadCache<FoundApiKey>({
    load: async (ids) => new Map((await keys.findMany(ids)).map((row) => [row.id, row])),
    clock,
    trustMs,
    outageMs,
    maxEntries: 10_000,
    supersedes: () => true,
  });
  const knownIds = shareAnswer(async () => await keys.ids(), clock);

  return {
    async authenticate(key, { sparing } = { sparing: false }) {
      const hash = hashKey(key);
      if (adminHashes.some((adminHash) => isSameHash(hash, adminHash))) return bootstrap;
      const id = readKeyId(key);
      if (id === null || (cache.peek(id) === null && !hasGoodChecksum(key))) {
        throw unauthenticated("The bearer is not a key of this broker: it is mistyped or cut off.");
      }
      const isInvented = sparing && cache.peek(id) === null && !(await knownIds()).has(id);
      const row = isInvented ? null : await cache.read(id);
      if (row === null || !isSameHash(hash, row.secretHash)) throw unauthenticated("The key is unknown.");
      if (row.isSilent) throw encryptionKeyMissing("this API key");
      if (row.revokedAt !== null) throw unauthenticated("The key has been revoked.");
      if (row.expiresAt !== null && row.expiresAt.getTime() <= nowMs()) throw unauthenticated("The key has expired.");
      const { abilities, connections, expiresAt } = row;
      return { keyId: row.id, abilities, connections, expiresAt };
    },

    async create(giver, { name, ...gift }) {
      requireMayGive(giver, gift);
      const { id, key } = makeApiKey(randomBytes);
      const by = giver.keyId === bootstrapKeyId ? null : giver.keyId;
      const row = await keys.insert({ id, name, ...gift, secretHash: hashKey(key) }, by);
      if (row === null) throw unauthenticated("The key has been revoked, or has expired.");
      return { row, key };
    },

    list: (principal, page) => keys.list(page, likePatterns(principal)),

    async revoke(principal, id) {
      const known = await keys.revoke(id, likePatterns(principal));
      cache.expire(id);
      if (!known) throw new BrokerError("not_found", `There is no key with the id "${id}".`);
    },
  };
}

function unauthenticated(detail: string): BrokerError {
  return new BrokerError("unauthenticated", detail);
}
