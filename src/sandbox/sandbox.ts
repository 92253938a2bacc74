import formbody from "@fastify/formbody";
import type { FastifyInstance, FastifyReply } from "fastify";
import { pageHeaders, type FormsLead } from "../console/layout.ts";
import { authorizePage, refusedPage } from "./authorize-page.ts";
import { answerUrl, readAuthorizeRequest } from "./authorize-request.ts";
import { createFamilies } from "./families.ts";
import { createTokenSigner, type TokenSigner } from "./signed-token.ts";
import { checkClient, issueTokens, refusal, revoke, type EndpointAnswer, type TokenParts } from "./token-endpoint.ts";

const codeSeconds = 60;

export type SandboxOptions = {
  /** The same on every start, or connected sandbox connections are lost. */
  signingKey: Uint8Array;
  clientId: string;
  clientSecret: string;
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
  const given = { ...options, prefix: "" }; // ours is applied already
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
      expiresAtMs: now() + codeSeconds * 1000,
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
  return await reply.headers({ "referrer-policy": "no-referrer", "cache-control": "no-store" }).redirect(url, 303);
}

async function sendJson(reply: FastifyReply, { status, body, headers = {} }: EndpointAnswer) {
  return await reply
    .code(status)
    .headers({ "cache-control": "no-store", ...headers })
    .send(body);
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" ? { ...value } : {};
}

function statusOf(error: unknown): number {
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 500;
  return status >= 400 && status < 500 ? status : 500;
}
