import { createHash } from "node:crypto";
import formbody from "@fastify/formbody";
import type { FastifyInstance, FastifyReply } from "fastify";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { type FormsLead, pageHeaders } from "../pages/layout.ts";
import { sandboxTimes } from "../time.ts";
import { answerUrl, authorizePage, readAuthorizeRequest, refusedPage } from "./authorize.ts";

type Proofs = {
  sign(purpose: string, text: string): string;
  verify(purpose: string, text: string, proof: string): "authentic" | "forged" | "unknown_key";
};

export type SandboxOptions = {
  /** Signs codes and tokens. They are valid as long as the key that made them can check them. */
  proofs: Proofs;
  clientId: string;
  isClientSecret: (secret: string) => boolean;
  /** The broker's own callback for this provider, the only address that codes go to. */
  redirectUri: string;
  /** Epoch milliseconds. */
  now: () => number;
  randomBytes: (size: number) => Uint8Array;
};

/**
 * A small OAuth 2.1 server to try the broker on: codes for a minute, access tokens for 90 s, refresh tokens that work once.
 * Serves `/authorize`, `/token`, `/revoke` and `/api/me` below its prefix.
 */
export async function sandboxRoutes(app: FastifyInstance, options: SandboxOptions): Promise<void> {
  const signer = createTokenSigner(options);
  const parts = { signer, families: createFamilies(), redirectUri: options.redirectUri, now: options.now };
  app.removeAllContentTypeParsers();
  await app.register(formbody, { bodyLimit: 32 * 1024 });
  const given = { ...options, prefix: "" }; // the prefix has been applied already
  await app.register(authorizeRoutes, { ...given, signer, issuer: new URL(app.prefix, options.redirectUri).href });
  await app.register(tokenRoutes, { ...given, parts });
}

async function authorizeRoutes(
  app: FastifyInstance,
  options: SandboxOptions & { signer: TokenSigner; issuer: string },
) {
  const { signer, issuer: iss, now, randomBytes } = options;
  const hidden = { schema: { hide: true } };
  app.setErrorHandler(async (error, request, reply) => {
    request.log.debug({ err: error }, "sandbox page refused");
    return await sendRefused(reply, "The form could not be read.", statusOf(error));
  });

  app.get("/authorize", hidden, async (request, reply) => {
    const asked = readAuthorizeRequest(request.query, options);
    if (asked.kind === "untrusted") return await sendRefused(reply, asked.description);
    if (asked.kind === "valid") {
      return await sendPage(reply, { status: 200, html: await authorizePage(asked.scope), forms: "away" });
    }
    return await sendBack(reply, answerUrl(asked, { error: asked.error, error_description: asked.description, iss }));
  });

  app.post("/authorize", hidden, async (request, reply) => {
    const asked = readAuthorizeRequest(request.query, options);
    if (asked.kind === "untrusted") return await sendRefused(reply, asked.description);
    const { decision } = fieldsOf(request.body);
    if (asked.kind !== "valid" || (decision !== "authorize" && decision !== "deny")) {
      return await sendRefused(reply, "The decision is missing, or the request was altered.");
    }
    if (decision === "deny") return await sendBack(reply, answerUrl(asked, { error: "access_denied", iss }));
    const family = Buffer.from(randomBytes(16)).toString("base64url");
    const { scope, challenge } = asked;
    const code = signer.sign({
      kind: "code",
      family,
      sequence: 0,
      scope,
      challenge,
      expiresAtMs: now() + sandboxTimes.codeSeconds * 1000,
    });
    return await sendBack(reply, answerUrl(asked, { code, iss }));
  });
}

async function tokenRoutes(app: FastifyInstance, options: SandboxOptions & { parts: TokenParts }) {
  const { parts } = options;
  const hidden = { schema: { hide: true } };
  app.setErrorHandler(async (error, _request, reply) => {
    const answer = refusal("invalid_request", "the body must be a form (application/x-www-form-urlencoded)");
    return await sendJson(reply, { ...answer, status: statusOf(error) });
  });

  const endpoint = (path: string, answer: (form: Record<string, unknown>, parts: TokenParts) => EndpointAnswer) =>
    app.post(path, hidden, async (request, reply) => {
      const form = fieldsOf(request.body);
      const refused = checkClient({ authorization: request.headers.authorization, form }, options);
      return await sendJson(reply, refused ?? answer(form, parts));
    });
  endpoint("/token", issueTokens);
  endpoint("/revoke", revoke);

  app.get("/api/me", hidden, async (request, reply) => {
    const [, token = ""] = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? "") ?? [];
    const claims = parts.signer.read("access", token);
    if (claims && parts.families.isAlive(claims.family)) {
      const expiresIn = Math.floor((claims.expiresAtMs - parts.now()) / 1000);
      const body = { account: "sandbox", scopes: claims.scope.split(" "), token_expires_in: expiresIn };
      return await sendJson(reply, { status: 200, body });
    }
    const headers = { "www-authenticate": 'Bearer realm="sandbox", error="invalid_token"' };
    return await sendJson(reply, { status: 401, body: { error: "invalid_token" }, headers });
  });
}

async function sendPage(
  reply: FastifyReply,
  { status, html, forms }: { status: number; html: string; forms: FormsLead },
) {
  return await reply.code(status).headers(pageHeaders(forms)).send(html);
}

async function sendRefused(reply: FastifyReply, description: string, status = 400) {
  return await sendPage(reply, { status, html: await refusedPage(description), forms: "nowhere" });
}

async function sendBack(reply: FastifyReply, url: string) {
  return await reply.redirect(url, 303);
}

async function sendJson(reply: FastifyReply, { status, body, headers = {} }: EndpointAnswer) {
  return await reply.code(status).headers(headers).send(body);
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" ? { ...value } : {};
}

function statusOf(error: unknown): number {
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 500;
  return status >= 400 && status < 500 ? status : 500;
}

type Form = Readonly<Record<string, unknown>>;
type EndpointAnswer = { status: number; body: Record<string, unknown>; headers?: Record<string, string> };

/** A refusal of RFC 6749, section 5.2. */
const refusal = (error: string, description: string): EndpointAnswer => ({
  status: 400,
  body: { error, error_description: description },
});

/** Null: the client is who it says (RFC 6749, section 2.3.1); else the refusal. */
function checkClient(
  given: { authorization: string | undefined; form: Form },
  client: Pick<SandboxOptions, "clientId" | "isClientSecret">,
): EndpointAnswer | null {
  const basic = /^basic +([A-Za-z0-9+/=]+)$/i.exec(given.authorization ?? "")?.[1];
  if (basic !== undefined && given.form["client_secret"] !== undefined) {
    return refusal("invalid_request", "the client must authenticate in one way, not in two");
  }
  const [id, secret] = basic === undefined ? [given.form["client_id"], given.form["client_secret"]] : readBasic(basic);
  if (id === client.clientId && typeof secret === "string" && client.isClientSecret(secret)) return null;
  const answer = {
    status: 401,
    body: { error: "invalid_client", error_description: "unknown client or wrong secret" },
  };
  return { ...answer, headers: { "www-authenticate": 'Basic realm="sandbox"' } };
}

type TokenParts = { signer: TokenSigner; families: Families; redirectUri: string; now: () => number };

/** The token endpoint (RFC 6749, sections 4.1.3 and 6) for a client that has shown who it is. */
function issueTokens(form: Form, parts: TokenParts): EndpointAnswer {
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
  const tokens = {
    access_token: sign("access", sandboxTimes.accessTokenSeconds),
    refresh_token: sign("refresh", sandboxTimes.refreshTokenSeconds),
  };
  return { status: 200, body: { ...tokens, token_type: "Bearer", expires_in: sandboxTimes.accessTokenSeconds, scope } };
}

/** Revocation (RFC 7009, section 2): either token ends the family; an unknown one is no error. */
function revoke(form: Form, { signer, families }: TokenParts): EndpointAnswer {
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

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

const largestCount = 10_000;

/** The rotation of refresh tokens, with reuse detection (RFC 9700, section 4.14.2). */
type Families = {
  /** Begins a family for a code. False: the code was used before, and its family ends. */
  start(family: string): boolean;
  /** Spends a refresh token. False: it was spent before, which ends its family, or the family has ended already. */
  rotate(family: string, sequence: number): boolean;
  isAlive(family: string): boolean;
  kill(family: string): void;
};

/**
 * In memory. A family that is not known, or known at a lower sequence, counts as being at the sequence of its token: the token is
 * signed, so an earlier run of this broker, or another replica, has issued it.
 */
function createFamilies(): Families {
  const families = new Map<string, { sequence: number; dead: boolean }>();
  const put = (family: string, sequence: number, dead: boolean) => {
    families.delete(family); // so that the map's order is that of last use
    families.set(family, { sequence, dead });
    const [oldest] = families.keys();
    if (families.size > largestCount && oldest !== undefined) families.delete(oldest);
  };
  return {
    start(family) {
      const isNew = !families.has(family);
      put(family, 0, !isNew);
      return isNew;
    },
    rotate(family, sequence) {
      const known = families.get(family);
      const fresh = known === undefined || (!known.dead && sequence >= known.sequence);
      put(family, sequence + 1, !fresh);
      return fresh;
    },
    isAlive: (family) => families.get(family)?.dead !== true,
    kill: (family) => put(family, 0, true),
  };
}

/** The signed content of the sandbox's codes and tokens. So it recognises them without storing them. */
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

type Claims = Static<typeof claimsSchema>;

type TokenSigner = {
  sign(claims: Claims): string;
  /** The claims of a token of this kind that was signed here and has not run out; else null. */
  read(kind: Claims["kind"], token: string): Claims | null;
};

/** @param options.now epoch milliseconds */
function createTokenSigner(options: { proofs: Proofs; now: () => number }): TokenSigner {
  const purpose = "sandbox tokens";
  return {
    sign(claims) {
      const payload = Buffer.from(JSON.stringify(claims)).toString("base64url");
      return `${payload}.${options.proofs.sign(purpose, payload)}`;
    },
    read(kind, token) {
      const [, payload = "", proof = ""] = /^([^.]*)\.(.*)$/s.exec(token) ?? [];
      if (options.proofs.verify(purpose, payload, proof) !== "authentic") return null;
      const claims: unknown = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
      const ours = Value.Check(claimsSchema, claims) && claims.kind === kind && claims.expiresAtMs > options.now();
      return ours ? claims : null;
    },
  };
}
