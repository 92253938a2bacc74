/** What an id_token must say that comes with a code. Null: it is not compared. */
export type ExpectedIdToken = {
  /** Of the authorization request. */
  nonce: string | null;
  issuer: string | null;
};

/** `unchecked`: nothing in it says whether it belongs to the request. `foreign`: it belongs to another one; `claim` says by what. */
export type IdTokenVerdict =
  | { kind: "fits" }
  | { kind: "unchecked"; why: "unreadable" | "no_nonce" }
  | { kind: "foreign"; claim: "nonce" | "iss" | "aud" };

/**
 * Whether an id_token belongs to the request that a code was asked for with (OpenID Connect Core, section 3.1.3.7, items 2, 3
 * and 11). Its signature is not looked at: it came straight from the token endpoint by TLS (item 6). Never throws.
 */
export function judgeIdToken(
  idToken: string | undefined,
  { nonce, issuer, clientId }: ExpectedIdToken & { clientId: string | null },
): IdTokenVerdict {
  if (idToken === undefined) return { kind: "fits" };
  const claims = readClaims(idToken);
  if (claims === null) return nonce === null ? { kind: "fits" } : { kind: "unchecked", why: "unreadable" };
  const { iss, aud } = claims;
  if (nonce !== null && typeof claims["nonce"] === "string" && claims["nonce"] !== nonce) {
    return { kind: "foreign", claim: "nonce" };
  }
  if (issuer !== null && typeof iss === "string" && iss !== issuer) return { kind: "foreign", claim: "iss" };
  const audiences = [aud].flat().filter((one) => typeof one === "string");
  if (clientId !== null && audiences.length > 0 && !audiences.includes(clientId)) {
    return { kind: "foreign", claim: "aud" };
  }
  return nonce === null || typeof claims["nonce"] === "string"
    ? { kind: "fits" }
    : { kind: "unchecked", why: "no_nonce" };
}

/** The claims of a signed JWT (RFC 7519, section 7.2); null where it is none, or an encrypted one. */
function readClaims(idToken: string): Record<string, unknown> | null {
  const [, payload, ...rest] = idToken.split(".");
  if (payload === undefined || rest.length !== 1) return null;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
    const isObject = typeof claims === "object" && claims !== null && !Array.isArray(claims);
    return isObject ? (claims as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
