import type { Clock } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import type { Ability, ApiKeyRow, ApiKeys } from "../store/api-keys.ts";
import type { PageRequest } from "../store/page.ts";
import { createReadCache } from "../store/read-cache.ts";
import { hasGoodChecksum, hashKey, isSameHash, makeApiKey, readKeyId } from "./api-key.ts";
import type { Principal } from "./principal.ts";

type NewKey = { name: string; abilities: Ability[]; connections: string[]; expiresAt: Date | null };

export type KeyService = {
  /** @throws BrokerError unauthenticated, saying whether it is unknown, expired or revoked; storage_unavailable */
  authenticate(key: string): Promise<Principal>;
  /** The key itself is in the answer, once. */
  create(key: NewKey): Promise<{ row: ApiKeyRow; key: string }>;
  list(page: PageRequest): Promise<ApiKeyRow[]>;
  /** @throws BrokerError not_found */
  revoke(id: string): Promise<void>;
};

type Options = {
  keys: ApiKeys;
  /** The bootstrap key, which has every ability on every connection; null: there is none. */
  adminKey: string | null;
  clock: Clock;
  nowMs: () => number;
  randomBytes: (size: number) => Uint8Array;
};

/** How long a key is trusted without asking Postgres, and how long it outlives Postgres. */
const trustMs = 4000;
const outageMs = 120_000;
const admin: Principal = { keyId: "admin", abilities: ["tokens", "connections", "admin"], connections: ["*"] };

export function createKeyService({ keys, adminKey, clock, nowMs, randomBytes }: Options): KeyService {
  const adminHash = adminKey === null ? null : hashKey(adminKey);
  const cache = createReadCache<ApiKeyRow>({
    load: async (ids) => new Map((await keys.findMany(ids)).map((row) => [row.id, row])),
    clock,
    trustMs,
    outageMs,
    maxEntries: 10_000,
    supersedes: () => true,
  });

  return {
    async authenticate(key) {
      const hash = hashKey(key);
      if (adminHash !== null && isSameHash(hash, adminHash)) return admin;
      const id = readKeyId(key);
      if (id === null || (cache.peek(id) === null && !hasGoodChecksum(key))) {
        throw unauthenticated("The bearer is not a key of this broker: it is mistyped or cut off.");
      }
      const row = await cache.read(id);
      if (row === null || !isSameHash(hash, row.secretHash)) throw unauthenticated("The key is unknown.");
      if (row.revokedAt !== null) throw unauthenticated("The key has been revoked.");
      if (row.expiresAt !== null && row.expiresAt.getTime() <= nowMs()) throw unauthenticated("The key has expired.");
      return { keyId: row.id, abilities: row.abilities, connections: row.connections };
    },

    async create({ name, abilities, connections, expiresAt }) {
      const { id, key } = makeApiKey(randomBytes);
      const row = await keys.insert({ id, name, abilities, connections, expiresAt, secretHash: hashKey(key) });
      return { row, key };
    },

    list: (page) => keys.list(page),

    async revoke(id) {
      const known = await keys.revoke(id);
      cache.expire(id);
      if (!known) throw new BrokerError("not_found", `There is no key with the id "${id}".`);
    },
  };
}

function unauthenticated(detail: string): BrokerError {
  return new BrokerError("unauthenticated", detail);
}
