import { createHash, timingSafeEqual } from "node:crypto";
import type { Families } from "./families.ts";
import type { Claims, TokenSigner } from "./signed-token.ts";

const accessSeconds = 90;
const refreshSeconds = 30 * 24 * 3600;

type Form = Readonly<Record<string, unknown>>;
export type EndpointAnswer = { status: number; body: Record<string, unknown>; headers?: Record<string, string> };

/** A refusal of RFC 6749, section 5.2. */
export const refusal = (error: string, description: string): EndpointAnswer => ({
  status: 400,
  body: { error, error_description: description },
});

/** Null: the client is who it says (RFC 6749, section 2.3.1); else the refusal. */
export function checkClient(
  given: { authorization: string | undefined; form: Form },
  client: { clientId: string; clientSecret: string },
): EndpointAnswer | null {
  const basic = /^basic +([A-Za-z0-9+/=]+)$/i.exec(given.authorization ?? "")?.[1];
  if (basic !== undefined && given.form["client_secret"] !== undefined) {
    return refusal("invalid_request", "the client must authenticate in one way, not in two");
  }
  const [id, secret] = basic === undefined ? [given.form["client_id"], given.form["client_secret"]] : readBasic(basic);
  if (id === client.clientId && typeof secret === "string" && sameText(secret, client.clientSecret)) return null;
  const answer = {
    status: 401,
    body: { error: "invalid_client", error_description: "unknown client or wrong secret" },
  };
  return { ...answer, headers: { "www-authenticate": 'Basic realm="sandbox"' } };
}

export type TokenParts = { signer: TokenSigner; families: Families; redirectUri: string; now: () => number };

/** The token endpoint (RFC 6749, sections 4.1.3 and 6) for a client that has shown who it is. */
export function issueTokens(form: Form, parts: TokenParts): EndpointAnswer {
  const repeated = Object.entries(form).find(([, value]) => typeof value !== "string");
  if (repeated) return refusal("invalid_request", `${repeated[0]} came more than once`);
  if (form["grant_type"] === "authorization_code") return exchangeCode(form, parts);
  if (form["grant_type"] === "refresh_token") return refresh(form, parts);
  if (form["grant_type"] === undefined) return refusal("invalid_request", "grant_type is missing");
  return refusal("unsupported_grant_type", "grant_type must be authorization_code or refresh_token");
}

function exchangeCode(form: Form, parts: TokenParts): EndpointAnswer {
  const { code, code_verifier: verifier, redirect_uri: redirectUri } = form;
  if (typeof code !== "string") return refusal("invalid_request", "code is missing");
  if (typeof verifier !== "string") return refusal("invalid_request", "code_verifier is missing");
  if (redirectUri !== undefined && redirectUri !== parts.redirectUri) {
    return refusal("invalid_grant", "redirect_uri is not the one of the authorization request");
  }
  const claims = parts.signer.read("code", code);
  if (!claims) return refusal("invalid_grant", "the code is not known, or older than a minute");
  if (sha256(verifier).toString("base64url") !== claims.challenge) {
    return refusal("invalid_grant", "code_verifier does not fit the code_challenge");
  }
  if (!parts.families.start(claims.family)) return refusal("invalid_grant", "the code has been used before");
  return grant({ ...claims, sequence: 0 }, parts);
}

function refresh(form: Form, parts: TokenParts): EndpointAnswer {
  const { refresh_token: token, scope } = form;
  if (typeof token !== "string") return refusal("invalid_request", "refresh_token is missing");
  const claims = parts.signer.read("refresh", token);
  if (!claims) return refusal("invalid_grant", "the refresh token is not known, or has run out");
  const granted = claims.scope.split(" ");
  if (typeof scope === "string" && !scope.split(" ").every((each) => granted.includes(each))) {
    return refusal("invalid_scope", `scope must be within ${claims.scope}`);
  }
  if (!parts.families.rotate(claims.family, claims.sequence)) {
    return refusal("invalid_grant", "the refresh token has been spent or revoked; a person must authorize again");
  }
  return grant({ ...claims, sequence: claims.sequence + 1 }, parts);
}

function grant(
  { family, sequence, scope }: Pick<Claims, "family" | "sequence" | "scope">,
  parts: TokenParts,
): EndpointAnswer {
  const sign = (kind: Claims["kind"], seconds: number) =>
    parts.signer.sign({ kind, family, sequence, scope, expiresAtMs: parts.now() + seconds * 1000 });
  const tokens = { access_token: sign("access", accessSeconds), refresh_token: sign("refresh", refreshSeconds) };
  return { status: 200, body: { ...tokens, token_type: "Bearer", expires_in: accessSeconds, scope } };
}

/** Revocation (RFC 7009, section 2): either token ends the family; an unknown one is no error. */
export function revoke(form: Form, { signer, families }: TokenParts): EndpointAnswer {
  const { token } = form;
  if (typeof token !== "string") return refusal("invalid_request", "token is missing");
  const claims = signer.read("refresh", token) ?? signer.read("access", token);
  if (claims) families.kill(claims.family);
  return { status: 200, body: {} };
}

function readBasic(encoded: string): (string | undefined)[] {
  const [, id, secret] = /^([^:]*):(.*)$/s.exec(Buffer.from(encoded, "base64").toString("utf8")) ?? [];
  return [id, secret];
}

/** Digests first: equal lengths for the comparison, whatever was sent. */
function sameText(one: string, other: string): boolean {
  return timingSafeEqual(sha256(one), sha256(other));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
