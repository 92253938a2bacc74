import cookie from "@fastify/cookie";
import formbody from "@fastify/formbody";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { consentPage } from "../../console/consent-page.ts";
import { devicePage } from "../../console/device-page.ts";
import { pageHeaders } from "../../console/layout.ts";
import { answerPage, problemPage } from "../../console/outcome-page.ts";
import { browserCookie, createBrowser, readBrowser } from "../../consent/browser.ts";
import type { ConsentService } from "../../consent/consent-service.ts";
import { ConsentError, type ConsentProblem } from "../../consent/problem.ts";
import { BrokerError, type ErrorCode } from "../../errors.ts";
import { limitConsent, type ConsentLimits } from "../consent-limits.ts";

export type ConsentRoutesOptions = {
  consent: Pick<
    ConsentService,
    "describe" | "begin" | "complete" | "completeManually" | "outcomeOfCode" | "decideAccount"
  >;
  /** An origin, without a trailing slash: where forms must come from. */
  publicUrl: string;
  limits: ConsentLimits;
  randomBytes: (size: number) => Uint8Array;
};

const largestFormBytes = 32 * 1024;

/** The browser's routes: `/connect/:link` and `/callback/:provider`. Every answer of theirs is a page, or a redirect. */
export async function consentRoutes(app: FastifyInstance, options: ConsentRoutesOptions): Promise<void> {
  const { consent, publicUrl, randomBytes, limits } = options;
  const cookieToSet = browserCookie(publicUrl);
  app.removeAllContentTypeParsers();
  await app.register(cookie);
  await app.register(formbody, { bodyLimit: largestFormBytes });
  app.setErrorHandler(async (error, request, reply) => await sendProblem(error, request, reply));
  limitConsent(app, limits);

  const requireOwnOrigin = ({ headers }: FastifyRequest): void => {
    if (headers.origin === publicUrl) return;
    throw new ConsentError("wrong_origin", `The address of this service is ${publicUrl}.`);
  };

  app.get<{ Params: { link: string } }>("/connect/:link", { schema: { hide: true } }, async (request, reply) => {
    const browser = readBrowser(request.cookies, publicUrl) ?? createBrowser(randomBytes);
    const at = { link: request.params.link, browser };
    const outcome = await consent.outcomeOfCode(at);
    if (outcome !== null) return await send(reply, await answerPage(outcome));
    const question = await consent.describe(at);
    reply.setCookie(cookieToSet.name, browser, cookieToSet.options);
    const { device } = question;
    const html =
      device === null
        ? await consentPage({ question, host: new URL(publicUrl).host })
        : await devicePage({ question, device });
    return await send(reply, { status: 200, html });
  });

  app.post<{ Params: { link: string } }>("/connect/:link", { schema: { hide: true } }, async (request, reply) => {
    requireOwnOrigin(request);
    const { csrf, code } = readForm(request.body);
    const browser = readBrowser(request.cookies, publicUrl);
    if (browser === null || csrf === undefined) throw new ConsentError("stale_form");
    const form = { link: request.params.link, browser, csrf };
    if (code !== undefined) return await send(reply, await answerPage(await consent.completeManually(form, code)));
    const onward = await consent.begin(form);
    const address = onward.kind === "redirect" ? onward.authorizationUrl : `/connect/${request.params.link}`;
    return await reply.headers(redirectHeaders).redirect(address, 303);
  });

  app.post<{ Params: { provider: string } }>(
    "/callback/:provider",
    { schema: { hide: true } },
    async (request, reply) => {
      requireOwnOrigin(request);
      const { csrf, held, link, accept } = readForm(request.body);
      const browser = readBrowser(request.cookies, publicUrl);
      if (browser === null || csrf === undefined || held === undefined || link === undefined || !isUuid(held)) {
        throw new ConsentError("stale_form");
      }
      const form = { held, link, csrf, browser, accepted: accept === "yes" };
      return await send(reply, await answerPage(await consent.decideAccount(form)));
    },
  );

  // No HEAD: it would consume the state just as well.
  const callback = { schema: { hide: true }, exposeHeadRoute: false };
  app.get<{ Params: { provider: string } }>("/callback/:provider", callback, async (request, reply) => {
    const query = readQuery(request.query);
    const browser = readBrowser(request.cookies, publicUrl);
    const answer = await consent.complete({ provider: request.params.provider, query, browser });
    return await send(reply, await answerPage(answer));
  });
}

const redirectHeaders = { "referrer-policy": "no-referrer", "cache-control": "no-store", "x-robots-tag": "noindex" };

async function send(reply: FastifyReply, { status, html }: { status: number; html: string }): Promise<FastifyReply> {
  return await reply.code(status).headers(pageHeaders).send(html);
}

/** A parameter that comes twice is refused before anything is consumed (RFC 6749, section 3.1). */
function readQuery(query: unknown): Record<string, unknown> {
  const read = fieldsOf(query);
  if (Object.values(read).every((value) => typeof value === "string")) return read;
  throw new ConsentError("malformed", "A parameter of the address came more than once.");
}

type Form = { csrf?: string; code?: string; held?: string; link?: string; accept?: string };

function readForm(body: unknown): Form {
  const fields = Object.entries(fieldsOf(body));
  if (fields.some(([, value]) => Array.isArray(value))) {
    throw new ConsentError("malformed", "A field came more than once.");
  }
  return Object.fromEntries(fields.filter(([, value]) => typeof value === "string"));
}

function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" ? { ...value } : {};
}

/** Codes of the broker that have a page of their own; every other one is a fault of ours. */
const problemOf: Partial<Record<ErrorCode, ConsentProblem>> = {
  invalid_request: "malformed",
  grant_not_applicable: "malformed",
  connection_not_found: "unknown_link",
  connection_disabled: "connection_disabled",
  duplicate_grant: "duplicate_grant",
  not_found: "stale_form",
  provider_rejected: "provider_refused",
  needs_reauthorization: "provider_refused",
  provider_unavailable: "provider_unavailable",
  rate_limited: "provider_unavailable",
  client_rejected: "client_rejected",
  storage_unavailable: "storage_unavailable",
};

async function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  if (error instanceof ConsentError) {
    const { problem, detail, retryAfterSeconds } = error;
    if (retryAfterSeconds !== null) reply.header("retry-after", String(retryAfterSeconds));
    return await send(reply, await problemPage(problem, detail));
  }
  if (error instanceof BrokerError) {
    const problem = problemOf[error.code];
    if (problem !== undefined) return await send(reply, await problemPage(problem, error.message));
  }
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 500;
  if (status >= 400 && status < 500) {
    return await send(reply, await problemPage("malformed", null, status)); // broken, oversized or foreign bodies
  }
  request.log.error({ err: error }, "a browser page failed");
  return await send(reply, await problemPage("internal_error", null));
}
