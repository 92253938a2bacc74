import type { JWK } from "jose";
import { createPublicKey } from "node:crypto";
import type { Clock } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import { callerTimes } from "../time.ts";
import type { Algorithm } from "../jwt-form.ts";
import { readStrictJson } from "./jwt.ts";

/** Where the public keys of an issuer come from. Workloads of one issuer may name different places: those are different issuers. */
export type KeySource = {
  issuer: string;
  /** A JWK Set as JSON; null: it is fetched. */
  jwks: string | null;
  /** Null: the issuer's metadata name it. */
  jwksUri: string | null;
  /** Certificates (PEM) of the authority that alone may vouch for the issuer's server; null: the usual ones. */
  ca: string | null;
  /** CIDR blocks outside the public internet. */
  networks: readonly string[];
};

/** A public key of an issuer. `text`: all of it that counts. */
export type IssuerKey = { id: string | null; jwk: JWK; fits(algorithm: Algorithm): boolean; text: string };

/** Reads a small document over https. `trust`: what the issuer's workloads say of its server. @throws Error with a text for the log */
export type FetchDocument = (url: string, trust: Pick<KeySource, "ca" | "networks">) => Promise<string>;

export type IssuerKeys = ReturnType<typeof createIssuerKeys>;

type Known = {
  source: KeySource;
  /** Null: never fetched. */
  keys: readonly IssuerKey[] | null;
  failures: number;
  /** When it is fetched next, by the monotonic clock. */
  dueMs: number;
  /** When it was last fetched for the sake of a key that was not in it. */
  missedMs: number;
  fetching: Promise<void> | null;
};

/** The public keys of issuers: fetched when they are first needed, again every 15 minutes, and kept while an issuer is away. */
export function createIssuerKeys(options: {
  fetchDocument: FetchDocument;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
  /** Called for the first failure in a row. */
  onTrouble: (trouble: { issuer: string; detail: string }) => void;
  onWell: (issuer: string) => void;
}) {
  const { fetchDocument, clock, onTrouble, onWell } = options;
  const known = new Map<string, Known>();
  const stopped = new AbortController();
  let loop: Promise<void> | null = null;

  const knownOf = (source: KeySource): Known => {
    const id = sourceId(source);
    const one = known.get(id) ?? {
      source,
      keys: source.jwks === null ? null : readKeys(source.jwks),
      failures: 0,
      dueMs: source.jwks === null ? -Infinity : Infinity,
      missedMs: -Infinity,
      fetching: null,
    };
    known.set(id, one);
    return one;
  };

  const fetchNow = async (one: Known): Promise<void> => {
    const { issuer } = one.source;
    try {
      const fetched = await fetchKeys(fetchDocument, one.source);
      // A key that stays is the same object, so that what was verified with it still counts.
      const same = (key: IssuerKey) => one.keys?.find(({ text }) => text === key.text) ?? key;
      one.keys = fetched.map(same);
      if (one.failures > 0) onWell(issuer);
      one.failures = 0;
      one.dueMs = clock.monotonicMs() + callerTimes.issuerKeysMs;
    } catch (error) {
      if (one.failures === 0) onTrouble({ issuer, detail: error instanceof Error ? error.message : "unknown" });
      const waitMs = Math.min(callerTimes.issuerRetryFirstMs * 2 ** one.failures, callerTimes.issuerRetryMaxMs);
      one.failures += 1;
      one.dueMs = clock.monotonicMs() + waitMs;
    }
  };

  /** One request at a time for each issuer. Never rejects. */
  const refresh = async (one: Known): Promise<void> => {
    one.fetching ??= fetchNow(one).finally(() => (one.fetching = null));
    await one.fetching;
  };

  const refreshDue = (): void => {
    for (const one of known.values()) if (clock.monotonicMs() >= one.dueMs) void refresh(one);
  };

  const run = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      refreshDue();
      await clock.sleep(callerTimes.issuerLookMs, stopped.signal);
    }
  };

  return {
    /**
     * The key that a token names, or the only one for its algorithm; null: there is none, or more than one. An unknown name has the set
     * fetched again, at most once a minute.
     * @throws BrokerError issuer_unavailable if the set was never fetched
     */
    async find(source: KeySource, { keyId, algorithm }: FindKey): Promise<IssuerKey | null> {
      const one = knownOf(source);
      if (one.keys === null && (one.fetching !== null || clock.monotonicMs() >= one.dueMs)) await refresh(one);
      if (one.keys === null) throw unavailable(one, clock.monotonicMs());
      const found = pick(one.keys, { keyId, algorithm });
      const mayAsk = source.jwks === null && keyId !== null && one.keys.every(({ id }) => id !== keyId);
      if (found !== null || !mayAsk) return found;
      const isFirst = clock.monotonicMs() - one.missedMs >= callerTimes.unknownKeyMs && one.failures === 0;
      if (one.fetching === null && !isFirst) return null;
      if (one.fetching === null) one.missedMs = clock.monotonicMs();
      await refresh(one);
      return pick(one.keys, { keyId, algorithm });
    },

    /** Whether a key still is in the newest set. */
    has: (source: KeySource, key: IssuerKey): boolean => known.get(sourceId(source))?.keys?.includes(key) === true,

    /** Keeps the sets of these issuers, and no others. Fetches those that are missing, without waiting. */
    keep(sources: readonly KeySource[]): void {
      const wanted = new Set(sources.map(sourceId));
      for (const id of known.keys()) if (!wanted.has(id)) known.delete(id);
      for (const source of sources) knownOf(source);
      if (loop !== null) refreshDue();
    },

    start: () => void (loop ??= run()),
    async stop(): Promise<void> {
      stopped.abort();
      await loop;
    },
  };
}

type FindKey = { keyId: string | null; algorithm: Algorithm };

function pick(keys: readonly IssuerKey[], { keyId, algorithm }: FindKey): IssuerKey | null {
  const fitting = keys.filter((key) => key.fits(algorithm) && (keyId === null || key.id === keyId));
  return fitting.length === 1 ? (fitting[0] ?? null) : null;
}

/** Equal for workloads whose tokens are verified with the same keys. */
export function sourceId({ issuer, jwks, jwksUri, ca, networks }: KeySource): string {
  return JSON.stringify([issuer, jwks, jwksUri, ca, networks]);
}

function unavailable({ dueMs }: Known, nowMs: number): BrokerError {
  const detail =
    "The keys of this token's issuer could not be fetched yet, so it cannot be checked: ask again. The broker's log says why.";
  const retryAfterSeconds = Math.max(1, Math.ceil((dueMs - nowMs) / 1000));
  return new BrokerError("issuer_unavailable", detail, { retryAfterSeconds });
}

async function fetchKeys(fetchDocument: FetchDocument, source: KeySource): Promise<IssuerKey[]> {
  const keys = readKeys(await fetchDocument(source.jwksUri ?? (await findJwksUri(fetchDocument, source)), source));
  if (keys.length === 0) throw new Error("the set holds no public key that can be used");
  return keys;
}

/** OpenID Connect Discovery 1.0, section 4. The metadata must name the same issuer, to the letter. */
async function findJwksUri(fetchDocument: FetchDocument, source: KeySource): Promise<string> {
  const place = `${source.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const { issuer, jwks_uri: uri } = readObject(await fetchDocument(place, source));
  if (issuer !== source.issuer) throw new Error("its metadata name another issuer");
  if (typeof uri !== "string" || URL.parse(uri)?.protocol !== "https:") {
    throw new Error("its metadata name no https address of keys");
  }
  return uri;
}

function readObject(text: string): Record<string, unknown> {
  try {
    const value = readStrictJson(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {}
  throw new Error("the answer is no JSON object");
}

const mostKeys = 100;

/**
 * The keys of a JWK Set (RFC 7517, section 5) that verify signatures: RSA of 2048 bits or more, EC and Ed25519, for signatures or without a
 * use. Others are left out, shared ones (`oct`) among them. @throws Error for what is no set
 */
export function readKeys(text: string): IssuerKey[] {
  const { keys } = readObject(text);
  if (!Array.isArray(keys) || keys.length > mostKeys) {
    throw new Error("the answer is no set of keys, or holds more than 100");
  }
  return keys.flatMap((jwk: unknown) => readKey(jwk) ?? []);
}

const curves: Readonly<Record<string, readonly Algorithm[]>> = {
  "P-256": ["ES256"],
  "P-384": ["ES384"],
  "P-521": ["ES512"],
  Ed25519: ["EdDSA", "Ed25519"],
};
const rsaAlgorithms: readonly Algorithm[] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
/** `jwt-svid`: the keys of SPIFFE for its JWTs (SPIFFE Trust Domain and Bundle, section 4.2.2). */
const uses: ReadonlySet<unknown> = new Set([undefined, "sig", "jwt-svid"]);
const leastRsaBits = 2048;

function readKey(value: unknown): IssuerKey | null {
  if (typeof value !== "object" || value === null) return null;
  const { kty, crv, n, e, x, y, kid, alg, use, key_ops: operations } = value as Record<string, unknown>;
  const mayVerify = operations === undefined || (Array.isArray(operations) && operations.includes("verify"));
  if (!uses.has(use) || !mayVerify || (kid !== undefined && typeof kid !== "string")) return null;
  const possible = kty === "RSA" ? rsaAlgorithms : typeof crv === "string" ? (curves[crv] ?? []) : [];
  const fitting = possible.filter((algorithm) => alg === undefined || alg === algorithm);
  if (fitting.length === 0) return null;
  // The public parts alone: what else stands there decides nothing.
  const jwk = (kty === "RSA" ? { kty, n, e } : kty === "EC" ? { kty, crv, x, y } : { kty, crv, x }) as JWK;
  const text = JSON.stringify([kid, alg, jwk]);
  return isPublicKey(jwk) ? { id: kid ?? null, jwk, fits: (algorithm) => fitting.includes(algorithm), text } : null;
}

function isPublicKey(jwk: JWK): boolean {
  try {
    const { asymmetricKeyDetails } = createPublicKey({ key: jwk, format: "jwk" });
    return jwk.kty !== "RSA" || (asymmetricKeyDetails?.modulusLength ?? 0) >= leastRsaBits;
  } catch {
    return false;
  }
}
