import { type Algorithm, algorithms } from "../jwt-form.ts";

/** What a JWT says, before anybody has checked its signature. */
export type Jwt = {
  algorithm: Algorithm;
  /** Null: the header names no key. */
  keyId: string | null;
  issuer: string;
  audiences: readonly string[];
  claims: Readonly<Record<string, unknown>>;
};

/** Why a token is refused, for the log alone: callers are not told. Holds nothing of the token. */
export class RefusedToken extends Error {}

const longestToken = 8 * 1024;
const longestKeyId = 500;
/** Types of tokens that say what they are for. Others, such as `at+jwt`, were made for another use (RFC 8725, section 3.11). */
const types: ReadonlySet<unknown> = new Set([undefined, "JWT", "jwt", "JOSE"]);
/** They would let the token choose its own key, or change how it is read (RFC 7515, section 4; RFC 7797). */
const forbiddenParameters = ["crit", "b64", "jwk", "jku", "x5c", "x5u", "enc", "zip"];

/**
 * Reads a JWT in compact form (RFC 7519, section 3; RFC 7515, section 7.1). Its claims count only once the signature is verified.
 * @throws RefusedToken for a form, a header or a claim that this broker does not take
 */
export function readJwt(token: string): Jwt {
  if (token.length > longestToken) throw new RefusedToken("it is longer than 8 KiB");
  const parts = token.split(".");
  const [header, claims, signature] = parts.map(decodePart);
  if (parts.length !== 3 || header === undefined || claims === undefined || signature?.length === 0) {
    throw new RefusedToken("it does not have three parts");
  }
  const { alg, kid, typ, ...parameters } = readObject(header);
  const algorithm = algorithms.find((name) => name === alg);
  if (algorithm === undefined) throw new RefusedToken("its algorithm is none of the asymmetric ones");
  if (!types.has(typ)) throw new RefusedToken("its type says that it is for another use");
  const forbidden = forbiddenParameters.find((name) => Object.hasOwn(parameters, name));
  if (forbidden !== undefined) throw new RefusedToken(`its header holds ${forbidden}`);
  if (kid !== undefined && (typeof kid !== "string" || kid.length > longestKeyId)) {
    throw new RefusedToken("its kid is no text, or too long");
  }
  const read = readObject(claims);
  const { iss, sub, aud } = read;
  if (typeof iss !== "string") throw new RefusedToken("it has no issuer");
  if (sub !== undefined && typeof sub !== "string") throw new RefusedToken("its subject is no text");
  const audiences: unknown[] = [aud].flat();
  if (!audiences.every((one) => typeof one === "string")) throw new RefusedToken("its audience is no text");
  return { algorithm, keyId: kid ?? null, issuer: iss, audiences, claims: read };
}

/** @throws RefusedToken for padding, and for other spellings of the same bytes */
function decodePart(part: string): Buffer {
  const bytes = Buffer.from(part, "base64url");
  if (bytes.toString("base64url") !== part) throw new RefusedToken("a part of it is not base64url");
  return bytes;
}

function readObject(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = readStrictJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw new RefusedToken("a part of it is not strict JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RefusedToken("a part of it is no JSON object");
  }
  return value as Record<string, unknown>;
}

/**
 * Reads JSON in which no object has the same member twice: two readers could otherwise see two values (RFC 8725, section 2.4).
 * @throws SyntaxError
 */
export function readStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  // Outside of texts a colon stands behind each name of a member, and nowhere else. A repeated member is in the text and not in the value.
  const colons = text.replaceAll(/"(?:[^"\\]|\\.)*"/g, "").split(":").length - 1;
  if (colons !== countMembers(value)) throw new SyntaxError("a member comes twice");
  return value;
}

function countMembers(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const inner: unknown[] = Object.values(value);
  const own = Array.isArray(value) ? 0 : inner.length;
  return inner.reduce<number>((sum, each) => sum + countMembers(each), own);
}
