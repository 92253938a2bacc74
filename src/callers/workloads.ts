import { hash, randomUUID } from "node:crypto";
import { compactVerify } from "jose";
import { LRUCache } from "lru-cache";
import type { Clock } from "../clock.ts";
import { BrokerError, encryptionKeyMissing, isStorageUnavailable } from "../errors.ts";
import { carries } from "../labels.ts";
import type { Peers } from "../services/peers.ts";
import { createReadCache } from "../store/read-cache.ts";
import type { FoundWorkload, Workloads } from "../store/workloads.ts";
import { callerTimes } from "../time.ts";
import type { Algorithm } from "../jwt-form.ts";
import { isMatched } from "./claims.ts";
import type { GiverOf } from "./givers.ts";
import { type IssuerKey, type IssuerKeys, sourceId } from "./issuer-keys.ts";
import { type Jwt, readJwt, RefusedToken } from "./jwt.ts";
import { passedMs } from "./keys.ts";
import { type Principal, requireMayCover, requireMayGive } from "./principal.ts";
import { checkWorkload, overlap, type SharedIssuers, type Workload } from "./workload.ts";

/** A workload that counts. `row`: it was declared by the API; null: in WORKLOADS_FILE. */
export type Declared = Workload & { row: { id: string; createdAt: Date } | null };

export type WorkloadService = ReturnType<typeof createWorkloadService>;

type Options = {
  workloads: Workloads;
  /** Those of WORKLOADS_FILE, checked. They need no database. */
  file: readonly Workload[];
  shared: SharedIssuers;
  issuerKeys: IssuerKeys;
  /** How long rows that were read stay good while Postgres is away. */
  trustSeconds: number;
  peers: Pick<Peers, "tell" | "listen" | "uses">;
  giverOf: GiverOf;
  clock: Clock;
  nowMs: () => number;
  /** Called with why a token is refused, which its caller is not told. */
  onRefused: (why: string) => void;
  /** @throws if the signature is not that of the key */
  verify?: (token: string, key: IssuerKey, algorithm: Algorithm) => Promise<unknown>;
};

type Snapshot = { declared: readonly Declared[]; silentIssuers: ReadonlySet<string>; turn: number };
/** A token, and the keys that have verified it, by the source of each. `accepted`: as what it counted last. */
type Verified = { jwt: Jwt; size: number; keys: Map<string, IssuerKey>; accepted: Accepted | null };
type Accepted = { principal: Principal; workload: Declared; snapshot: Snapshot };

const all = "all";
const mostTokens = 10_000;
const mostTokenBytes = 32 * 1024 * 1024;
const mostEnds = 10_000;

/** Callers that show a JWT of their platform (docs/internals/callers.md). */
export function createWorkloadService(options: Options) {
  const { workloads, shared, issuerKeys, trustSeconds, peers, giverOf, clock, nowMs, onRefused } = options;
  const { verify = verifySignature } = options;
  const file: readonly Declared[] = options.file.map((workload) => ({ ...workload, row: null }));
  const namesOfFile = new Set(file.map(({ name }) => name));
  const verified = new LRUCache<string, Verified>({
    max: mostTokens,
    maxSize: mostTokenBytes,
    sizeCalculation: ({ size }) => size,
  });
  let turn = 0;
  /** Declarations whose end this replica has learnt of. What was read before does not count for them. */
  const endedAt = new LRUCache<string, number>({ max: mostEnds });
  const cache = createReadCache<Snapshot>({
    async load() {
      const askedAt = ++turn;
      const snapshot = snapshotOf(await workloads.all(), askedAt);
      issuerKeys.keep([...file, ...snapshot.declared]);
      return new Map([[all, snapshot]]);
    },
    clock: { ...clock, monotonicMs: passedMs(clock) },
    trustMs: callerTimes.keyTrustMs,
    outageMs: trustSeconds * 1000,
    maxEntries: 1,
    supersedes: (incoming, current) => incoming.turn > current.turn,
  });
  peers.listen(({ kind, id }) => {
    if (kind !== "workload") return;
    endedAt.set(id, ++turn);
    cache.expire(all);
  });

  const snapshotOf = (rows: readonly FoundWorkload[], askedAt: number): Snapshot => ({
    turn: askedAt,
    declared: rows.filter((row) => !row.isSilent && !namesOfFile.has(row.name)).map(declaredOf),
    silentIssuers: new Set(rows.filter(({ isSilent }) => isSilent).map(({ issuer }) => issuer)),
  });

  const stands = ({ row }: Declared, { turn: readAt }: Snapshot) =>
    row === null || (endedAt.get(row.id) ?? -1) < readAt;

  /** `trouble`: why only those of the file are known. */
  const current = async () => {
    try {
      const snapshot = (await cache.read(all)) ?? snapshotOf([], 0);
      const { silentIssuers } = snapshot;
      const standing = snapshot.declared.filter((workload) => stands(workload, snapshot));
      return { declared: [...file, ...standing], silentIssuers, trouble: null, snapshot };
    } catch (error) {
      if (!isStorageUnavailable(error) || file.length === 0) throw error;
      return { declared: file, silentIssuers: new Set<string>(), trouble: error, snapshot: null };
    }
  };

  /** Whether one of the workload's keys has signed the token. @throws BrokerError issuer_unavailable */
  const isSigned = async (token: string, known: Verified, workload: Declared): Promise<boolean> => {
    const { algorithm, keyId } = known.jwt;
    if (!workload.algorithms.includes(algorithm)) return false;
    const id = sourceId(workload);
    const before = known.keys.get(id);
    if (before !== undefined && issuerKeys.has(workload, before)) return true;
    known.keys.delete(id);
    const key = await issuerKeys.find(workload, { keyId, algorithm });
    if (key === null) return false;
    try {
      await verify(token, key, algorithm);
    } catch {
      return false;
    }
    known.keys.set(id, key);
    return true;
  };

  /** @throws RefusedToken, BrokerError */
  const identify = async (token: string): Promise<{ workload: Declared; principal: Principal }> => {
    const digest = digestOf(token);
    const known = verified.get(digest) ?? { jwt: readJwt(token), size: token.length, keys: new Map(), accepted: null };
    const { jwt } = known;
    const { declared, silentIssuers, trouble, snapshot } = await current();
    const ofIssuer = declared.filter(({ issuer }) => issuer === jwt.issuer);
    const meant = ofIssuer.filter(({ audience }) => jwt.audiences.includes(audience));
    /** What this replica cannot know now might have accepted it. */
    const refuse = (why: string): never => {
      if (silentIssuers.has(jwt.issuer)) throw encryptionKeyMissing("this workload");
      throw trouble ?? new RefusedToken(why);
    };
    if (ofIssuer.length === 0) return refuse("its issuer is that of no workload");
    if (meant.length === 0) return refuse("its audience is that of no workload of this issuer");
    const expiresMs = requireTime(jwt, nowMs());
    const matching = meant.filter(({ match }) => isMatched(match, jwt.claims));
    if (matching.length === 0) return refuse("its claims match no workload");
    const signed: Declared[] = [];
    let unavailable: unknown = null;
    for (const workload of matching) {
      try {
        if (await isSigned(token, known, workload)) signed.push(workload);
      } catch (error) {
        unavailable = error;
      }
    }
    const [workload, ...others] = signed;
    if (workload === undefined) {
      if (unavailable !== null) throw unavailable;
      return refuse("no key of its issuer has signed it, or its algorithm is not that of the workload");
    }
    verified.set(digest, known);
    if (others.length > 0) return refuse(`it matches ${signed.map(({ name }) => name).join(" and ")}`);
    if (workload.expiresAt !== null && workload.expiresAt.getTime() <= nowMs()) return refuse("the workload has ended");
    const principal = principalOf(workload, { jwt, expiresMs });
    known.accepted = snapshot && { principal, workload, snapshot };
    return { workload, principal };
  };

  return {
    /** The caller of a token that was accepted here, while all that it rests on is still trusted. Null: `authenticate` finds out. Asks nobody. */
    known(token: string): Principal | null {
      const known = verified.get(digestOf(token));
      if (known === undefined || known.accepted === null) return null;
      const { principal, workload, snapshot } = known.accepted;
      const key = known.keys.get(sourceId(workload));
      const isTrusted = cache.trusted(all) === snapshot && stands(workload, snapshot);
      if (!isTrusted || key === undefined || !issuerKeys.has(workload, key)) return null;
      const isOver = workload.expiresAt !== null && workload.expiresAt.getTime() <= nowMs();
      if (isOver || !countsNow(known.jwt, nowMs())) return null;
      if (workload.row !== null) peers.uses("workload", workload.row.id);
      return principal;
    },

    /** @throws BrokerError unauthenticated, with the same text whatever is wrong; issuer_unavailable, storage_unavailable, encryption_key_missing */
    async authenticate(token: string): Promise<Principal> {
      try {
        const { workload, principal } = await identify(token);
        if (workload.row !== null) peers.uses("workload", workload.row.id);
        return principal;
      } catch (error) {
        if (!(error instanceof RefusedToken)) throw error;
        onRefused(error.message);
        throw new BrokerError("unauthenticated", notDeclared);
      }
    },

    /**
     * @throws BrokerError forbidden for more than the giver has; invalid_request naming each wrong field; conflict if the name is taken, or
     * another workload takes the same tokens
     */
    async create(giver: Principal, workload: Workload): Promise<Declared> {
      requireMayGive(giver, workload);
      const faults = checkWorkload(workload, shared);
      if (faults.length > 0) {
        const told = faults.map(({ path, text }) => `${path.join(".")}: ${text}`);
        throw new BrokerError("invalid_request", `${told.join("; ")}.`);
      }
      if (namesOfFile.has(workload.name)) throw taken(workload.name, "WORKLOADS_FILE has one");
      cache.expire(all);
      const { declared } = await current();
      const same = declared.find((other) => other.name !== workload.name && overlap(workload, other));
      if (same !== undefined) {
        const other = mayEnd(giver, same) ? `"${same.name}"` : "another workload";
        throw new BrokerError(
          "conflict",
          `match: every token of one of the two would be one of ${other}, too: name more claims.`,
        );
      }
      const id = randomUUID();
      const { match, jwks, jwksUri, ca, issuer, name, audience, labels, expiresAt } = workload;
      const ofToken = { id, name, issuer, jwks, jwksUri, ca, audience, match: JSON.stringify(match) };
      const lists = {
        networks: [...workload.networks],
        algorithms: [...workload.algorithms],
        abilities: [...workload.abilities],
        connections: [...workload.connections],
      };
      const row = await workloads.insert({ ...ofToken, ...lists, labels, expiresAt }, giverOf(giver));
      if (row !== null) {
        cache.expire(all);
        await cache.read(all).catch(() => null); // begins to fetch the issuer's keys
        return declaredOf(row);
      }
      if ((await workloads.findByName(name)) !== null) throw taken(name, "there is one");
      const find = giverOf(giver);
      if (find !== null && (await find()) === null) {
        throw new BrokerError("unauthenticated", "The key or workload that asks for it has ended.");
      }
      throw new BrokerError("conflict", "There are 1,000 workloads: delete one first.");
    },

    /** Those that the principal may end: of the file first, then the newest. */
    async list(principal: Principal): Promise<Declared[]> {
      cache.expire(all);
      const { declared, trouble } = await current();
      if (trouble !== null) throw trouble;
      return declared.filter((workload) => mayEnd(principal, workload));
    },

    /**
     * Returns the names of replicas that have not confirmed that they refuse its tokens.
     * @throws BrokerError not_found, also for one beyond the principal's patterns; conflict for one of WORKLOADS_FILE
     */
    async delete(principal: Principal, name: string): Promise<string[]> {
      const ofFile = file.find((workload) => workload.name === name);
      if (ofFile !== undefined && mayEnd(principal, ofFile)) {
        throw new BrokerError(
          "conflict",
          `WORKLOADS_FILE declares "${name}": take it out there, and start the broker anew.`,
        );
      }
      for (;;) {
        const row = ofFile === undefined ? await workloads.findByName(name) : null;
        if (row === null || !mayEnd(principal, row)) {
          throw new BrokerError("not_found", `There is no workload named "${name}".`);
        }
        if (await workloads.delete(row)) return await peers.tell({ kind: "workload", id: row.id });
      }
    },

    /** Begins to fetch the keys of all issuers. Never rejects. */
    async start(): Promise<void> {
      issuerKeys.keep(file);
      issuerKeys.start();
      await cache.read(all).catch(() => null); // an outage is logged by the code that needs Postgres
    },
  };
}

const notDeclared =
  "The bearer is a token of no workload that is declared here, or one that does not count: it is over, for somebody else, or not signed by its issuer. " +
  "Compare it with the declaration (freshet workloads list); the broker's log says why at LOG_LEVEL=debug.";

async function verifySignature(token: string, { jwk }: IssuerKey, algorithm: Algorithm): Promise<void> {
  await compactVerify(token, jwk, { algorithms: [algorithm] });
}

/** Returns when the token ends, in milliseconds since 1970. @throws RefusedToken if it does not count now (RFC 7519, section 4.1) */
function requireTime({ claims }: Jwt, nowMs: number): number {
  const now = nowMs / 1000;
  const leeway = callerTimes.tokenLeewaySeconds;
  const { exp, nbf, iat } = claims;
  if (!isTime(exp)) throw new RefusedToken("its exp is missing, or no time");
  if (nbf !== undefined && !isTime(nbf)) throw new RefusedToken("its nbf is no time");
  if (iat !== undefined && !isTime(iat)) throw new RefusedToken("its iat is no time");
  if (exp + leeway <= now) throw new RefusedToken("it has expired");
  if (nbf !== undefined && nbf - leeway > now) throw new RefusedToken("it is not valid yet");
  if (iat !== undefined && iat - leeway > now) throw new RefusedToken("it was issued in the future");
  if (exp - (iat ?? now) > callerTimes.tokenLifeSeconds) throw new RefusedToken("it lives longer than 24 hours");
  return exp * 1000;
}

function countsNow(jwt: Jwt, nowMs: number): boolean {
  try {
    requireTime(jwt, nowMs);
    return true;
  } catch {
    return false;
  }
}

/** What stands for a token in memory. */
const digestOf = (token: string) => hash("sha256", token, "base64");

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function principalOf(workload: Declared, { jwt, expiresMs }: { jwt: Jwt; expiresMs: number }): Principal {
  const { name, abilities, connections, labels, expiresAt, row } = workload;
  const { sub } = jwt.claims;
  return {
    callerId: `workload:${name}`,
    actor: { kind: "workload", id: name, name: typeof sub === "string" ? sub : null },
    abilities,
    connections,
    labels,
    expiresAt: new Date(Math.min(expiresMs, expiresAt?.getTime() ?? Infinity)),
    ...(row !== null && { declaration: row.id }),
  };
}

function declaredOf({ match, algorithms, id, createdAt, ...row }: FoundWorkload): Declared {
  return {
    ...row,
    algorithms: algorithms as Algorithm[],
    match: JSON.parse(match) as Workload["match"],
    row: { id, createdAt },
  };
}

/** Whether it lies within what the principal itself may, so that the principal sees and ends it. */
function mayEnd(principal: Principal, { connections, labels }: Pick<Workload, "connections" | "labels">): boolean {
  if (!carries(labels, principal.labels)) return false;
  try {
    requireMayCover(principal, connections);
    return true;
  } catch {
    return false;
  }
}

function taken(name: string, why: string): BrokerError {
  return new BrokerError("conflict", `name: "${name}" is taken: ${why}.`);
}
