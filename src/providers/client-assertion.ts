import { createPrivateKey, randomUUID, X509Certificate, type KeyObject } from "node:crypto";
import { SignJWT } from "jose";
import { BrokerError } from "../errors.ts";
import type { ClientAuth, ProviderRequest } from "./definition.ts";
import { fill, fillUrl, type TemplateValues } from "./template.ts";

type Assertion = Extract<ClientAuth, { kind: "private_key_jwt" }>;

/**
 * Adds what a request's client authentication needs to be made first: the signed assertion of RFC 7523, section 2.2. A client of
 * this kind has its private key, as PEM or JWK, where others have a secret.
 * @throws BrokerError `client_rejected` when there is no key, or it does not fit the algorithm
 */
export async function withAssertion(
  request: ProviderRequest,
  values: TemplateValues,
  given: { issuer: string | null; nowMs: number },
): Promise<TemplateValues> {
  const { clientAuth } = request;
  if (clientAuth.kind !== "private_key_jwt") return values;
  const id = fill("{client.id}", values) ?? "";
  const key = readPrivateKey(fill("{client.secret}", values) ?? "");
  const audience = audienceOf(clientAuth, { ...given, url: fillUrl(request.url, values), values });
  const seconds = Math.floor(given.nowMs / 1000);
  try {
    const assertion = await new SignJWT({ jti: randomUUID() })
      .setProtectedHeader({ ...key.header, alg: clientAuth.algorithm, typ: "JWT" })
      .setIssuer(id)
      .setSubject(id)
      .setAudience(audience)
      .setIssuedAt(seconds)
      .setExpirationTime(seconds + clientAuth.lifeSeconds)
      .sign(key.key);
    return { ...values, client: { ...values.client, id, assertion } };
  } catch {
    throw new BrokerError("client_rejected", `the client's private key does not fit ${clientAuth.algorithm}`);
  }
}

function audienceOf(
  { audience }: Assertion,
  given: { issuer: string | null; url: string; values: TemplateValues },
): string {
  if (audience === "token_url") return given.url;
  return audience === "issuer" ? fillUrl(given.issuer ?? "", given.values) : fillUrl(audience, given.values);
}

/** A private key as PEM, or as a JWK whose `kid`, `x5t` and `x5t#S256` go into the header (RFC 7515, section 4.1). */
function readPrivateKey(text: string): { key: KeyObject; header: Record<string, string> } {
  try {
    if (!text.trimStart().startsWith("{")) return { key: createPrivateKey(text), header: {} };
    const jwk = JSON.parse(text) as Record<string, unknown>;
    const named = ["kid", "x5t", "x5t#S256"].flatMap((name) =>
      typeof jwk[name] === "string" ? [[name, jwk[name]] as const] : [],
    );
    return { key: createPrivateKey({ key: jwk, format: "jwk" }), header: Object.fromEntries(named) };
  } catch {
    throw new BrokerError("client_rejected", "the client's private key cannot be read: a PEM or a JWK was expected");
  }
}

/** What is wrong with a client's secret for this way of authenticating; null: nothing that can be seen. */
export function secretFault(clientAuth: ClientAuth, secret: string): string | null {
  if (clientAuth.kind === "private_key_jwt") {
    const key = keyIn(secret);
    if (key === null) return "must be the client's private key, as PEM or JWK";
    return fits(key, clientAuth.algorithm) ? null : `must be a key that ${clientAuth.algorithm} can sign with`;
  }
  if (clientAuth.kind !== "tls") return null;
  const key = keyIn(secret.slice(Math.max(0, secret.search(/-----BEGIN [A-Z ]*PRIVATE KEY-----/))));
  const certificate = certificateIn(secret);
  if (key === null || certificate === null) {
    return "must be the client's certificate and its private key, as PEM, one after the other";
  }
  return certificate.checkPrivateKey(key) ? null : "holds a private key that is not that of the certificate";
}

function keyIn(text: string): KeyObject | null {
  try {
    return readPrivateKey(text).key;
  } catch {
    return null;
  }
}

function certificateIn(text: string): X509Certificate | null {
  try {
    return new X509Certificate(text.slice(Math.max(0, text.indexOf("-----BEGIN CERTIFICATE-----"))));
  } catch {
    return null;
  }
}

const curves: Readonly<Record<string, string>> = { ES256: "prime256v1", ES384: "secp384r1", ES512: "secp521r1" };
const leastRsaBits = 2048; // RFC 7518, sections 3.3 and 3.5

function fits({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject, algorithm: string): boolean {
  if (algorithm === "EdDSA") return type === "ed25519";
  const curve = curves[algorithm];
  if (curve !== undefined) return type === "ec" && details?.namedCurve === curve;
  return type === "rsa" && (details?.modulusLength ?? 0) >= leastRsaBits;
}
