import { type CryptoKey, exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";

type Signing = { header?: Record<string, unknown>; claims?: Record<string, unknown>; with?: IssuerKeyPair };
type IssuerKeyPair = { privateKey: CryptoKey; jwk: JWK };

/** A key pair of an issuer; `jwk` is its public part. */
export async function makeKeyPair(alg = "RS256", kid = "k1"): Promise<IssuerKeyPair> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

/** Signs tokens as platforms do. Claims and header members that are given replace the usual ones; undefined leaves one out. */
export class TokenIssuer {
  readonly url: string;
  readonly audience: string;
  keys: IssuerKeyPair;
  readonly #nowMs: () => number;

  private constructor(parts: { url: string; audience: string; keys: IssuerKeyPair; nowMs: () => number }) {
    this.url = parts.url;
    this.audience = parts.audience;
    this.keys = parts.keys;
    this.#nowMs = parts.nowMs;
  }

  static async create({ url = "https://issuer.example", audience = "freshet", nowMs = Date.now } = {}) {
    return new TokenIssuer({ url, audience, keys: await makeKeyPair(), nowMs });
  }

  jwks(): { keys: JWK[] } {
    return { keys: [this.keys.jwk] };
  }

  /** The usual claims, with these in their place. */
  claims(claims: Record<string, unknown> = {}): Record<string, unknown> {
    const now = Math.floor(this.#nowMs() / 1000);
    const usual = { iss: this.url, aud: this.audience, sub: "shop:sync", iat: now, nbf: now, exp: now + 600 };
    return JSON.parse(JSON.stringify({ ...usual, ...claims })) as Record<string, unknown>;
  }

  header(header: Record<string, unknown> = {}): Record<string, unknown> {
    const { alg, kid } = this.keys.jwk;
    return JSON.parse(JSON.stringify({ alg, kid, typ: "JWT", ...header })) as Record<string, unknown>;
  }

  async sign({ header, claims, with: keys = this.keys }: Signing = {}): Promise<string> {
    const head = this.header(header) as { alg: string };
    return await new SignJWT(this.claims(claims)).setProtectedHeader(head).sign(keys.privateKey);
  }
}
