/** The signatures of workloads' tokens that count, all of them asymmetric (RFC 7518, section 3.1; RFC 8037; RFC 9864). */
export const algorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

export type Algorithm = (typeof algorithms)[number];

/** Whether a bearer has the form of a JWT. API keys hold no dot, and ADMIN_KEY is refused in this form. */
export function looksLikeJwt(bearer: string): boolean {
  return /^ey[^.]*\.[^.]*\./.test(bearer);
}
