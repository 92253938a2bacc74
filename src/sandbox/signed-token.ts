import { createHmac, timingSafeEqual } from "node:crypto";
import { Type, type Static } from "typebox";
import { Value } from "typebox/value";

/** What the sandbox's codes and tokens say about themselves, so that it needs no memory to know its own. */
const claimsSchema = Type.Object({
  kind: Type.Union([Type.Literal("code"), Type.Literal("access"), Type.Literal("refresh")]),
  /** Everything that came from one consent. */
  family: Type.String(),
  /** How often the family has been refreshed. */
  sequence: Type.Integer(),
  scope: Type.String(),
  expiresAtMs: Type.Integer(),
  /** Of a code only (RFC 7636, section 4.4). */
  challenge: Type.Optional(Type.String()),
});

export type Claims = Static<typeof claimsSchema>;

export type TokenSigner = {
  sign(claims: Claims): string;
  /** The claims of a token of this kind that was signed here and has not run out; else null. */
  read(kind: Claims["kind"], token: string): Claims | null;
};

/** @param options.now epoch milliseconds */
export function createTokenSigner(options: { signingKey: Uint8Array; now: () => number }): TokenSigner {
  const mac = (payload: string) => createHmac("sha256", options.signingKey).update(payload).digest();
  return {
    sign(claims) {
      const payload = Buffer.from(JSON.stringify(claims)).toString("base64url");
      return `${payload}.${mac(payload).toString("base64url")}`;
    },
    read(kind, token) {
      const [payload = "", signature = ""] = token.split(".", 2);
      const given = Buffer.from(signature, "base64url");
      const expected = mac(payload);
      if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
      const claims: unknown = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
      const ours = Value.Check(claimsSchema, claims) && claims.kind === kind && claims.expiresAtMs > options.now();
      return ours ? claims : null;
    },
  };
}
