import cookie from "@fastify/cookie";
import formbody from "@fastify/formbody";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { CopiedCodes } from "../../consent/copied-code.ts";
import { browserCookie, createBrowser, type Links, readBrowser } from "../../consent/links.ts";
import type { Outcomes } from "../../consent/outcome.ts";
import { ConsentError, toConsentError } from "../../consent/problem.ts";
import type { RoundTrip } from "../../consent/round-trip.ts";
import { consentPage, devicePage, relayHeaders, relayPage } from "../../pages/consent-page.ts";
import { type Asker, type FormsLead, pageHeaders } from "../../pages/layout.ts";
import { answerPage, problemPage } from "../../pages/outcome-page.ts";
import { type ConsentLimits, limitConsent } from "../limits.ts";

export type ConsentRoutesOptions = {
  consent: {
    links: Pick<Links, "describe">;
    roundTrip: RoundTrip;
    copiedCodes: Pick<CopiedCodes, "completeManually">;
    outcomes: Pick<Outcomes, "outcomeOfCode" | "showEnding" | "decideAccount">;
  };
  /** An origin, without a trailing slash: where forms must come from. */
  publicUrl: string;
  limits: ConsentLimits;
  randomBytes: (size: number) => Uint8Array;
  /** Who asks, as its pages say it. */
  organisation: Omit<Asker, "host">;
};

/** `client` where it is the redirect URI of one client alone. */
type CallbackRoute = FastifyRequest<{ Params: { provider: string; client?: string } }>;

const largestFormBytes = 32 * 1024;
/** Sealed and written as a field, it is no larger than a form may be. */
const largestAnswerBytes = 16 * 1024;

/** The browser's routes: `/connect/:link`, `/callback/:provider[/:client]` and `/connected/:ticket`. Every answer of theirs is a page, or a redirect. */
export async function consentRoutes(app: FastifyInstance, options: ConsentRoutesOptions): Promise<void> {
  const { publicUrl, randomBytes, limits } = options;
  const { links, roundTrip, copiedCodes, outcomes } = options.consent;
  const asker = { ...options.organisation, host: new URL(publicUrl).host };
  const cookieToSet = browserCookie(publicUrl);
  app.removeAllContentTypeParsers();
  await app.register(cookie);
  await app.register(formbody, { bodyLimit: largestFormBytes });
  app.setErrorHandler(async (error, request, reply) => await sendProblem({ error, asker }, request, reply));
  limitConsent(app, limits);

  const requireOwnOrigin = ({ headers }: FastifyRequest): void => {
    if (headers.origin === publicUrl) return;
    throw new ConsentError("wrong_origin", `The address of this service is ${publicUrl}.`);
  };

  app.get<{ Params: { link: string } }>("/connect/:link", { schema: { hide: true } }, async (request, reply) => {
    const browser = readBrowser(request.cookies, publicUrl) ?? createBrowser(randomBytes);
    const at = { link: request.params.link, browser };
    const outcome = await outcomes.outcomeOfCode(at);
    if (outcome !== null) return await leadOn(reply, `/connected/${outcome}`);
    const question = await links.describe(at);
    reply.setCookie(cookieToSet.name, browser, cookieToSet.options);
    const { device, manual } = question;
    if (device !== null) {
      const html = await devicePage({ ...question, device }, asker);
      return await send(reply, { status: 200, html, forms: "nowhere" });
    }
    const html = await consentPage(question, asker);
    return await send(reply, { status: 200, html, forms: manual === null ? "away" : "here" });
  });

  app.post<{ Params: { link: string } }>("/connect/:link", { schema: { hide: true } }, async (request, reply) => {
    requireOwnOrigin(request);
    const { csrf, code } = readForm(request.body);
    const browser = readBrowser(request.cookies, publicUrl);
    if (browser === null || csrf === undefined) throw new ConsentError("stale_form");
    const form = { link: request.params.link, browser, csrf, address: request.ip };
    if (code !== undefined) return await leadOn(reply, `/connected/${await copiedCodes.completeManually(form, code)}`);
    const onward = await roundTrip.begin(form);
    return await leadOn(
      reply,
      onward.kind === "redirect" ? onward.authorizationUrl : `/connect/${request.params.link}`,
    );
  });

  // No HEAD: it would consume the state just as well.
  const callback = { schema: { hide: true }, exposeHeadRoute: false };
  const complete = async (request: CallbackRoute, reply: FastifyReply) => {
    const query = readQuery(request.query);
    const at = { browser: readBrowser(request.cookies, publicUrl), address: request.ip };
    return await leadOn(reply, await roundTrip.complete({ ...whereOf(request), query, ...at }));
  };

  const posted = { schema: { hide: true }, bodyLimit: largestAnswerBytes };
  const relay = async (request: FastifyRequest, reply: FastifyReply, where: RedirectUri) => {
    if (!roundTrip.takesPost(where.provider)) {
      return await send(
        reply.header("allow", "GET"),
        await problemPage(new ConsentError("malformed"), asker, { status: 405 }),
      );
    }
    const path = pathOf(where);
    const sealed = roundTrip.sealPosted({ path, fields: readForm(request.body) });
    const html = await relayPage({ action: `${path}/continue`, sealed }, asker);
    return await reply.headers(relayHeaders).send(html);
  };

  const completePosted = async (request: CallbackRoute, reply: FastifyReply) => {
    const where = whereOf(request);
    const { answer: sealed } = readForm(request.body);
    // A client may be called "continue": what comes to its own redirect URI is what a provider posts.
    const isItsOwn = sealed === undefined && where.client === null;
    if (isItsOwn) return await relay(request, reply, { ...where, client: "continue" });
    requireOwnOrigin(request);
    if (sealed === undefined) throw new ConsentError("stale_form");
    const query = roundTrip.openPosted({ path: pathOf(where), sealed });
    const at = { browser: readBrowser(request.cookies, publicUrl), address: request.ip };
    return await leadOn(reply, await roundTrip.complete({ ...where, query, ...at }));
  };

  for (const path of ["/callback/:provider", "/callback/:provider/:client"]) {
    app.get(path, callback, complete);
    app.post(path, posted, async (request: CallbackRoute, reply) => await relay(request, reply, whereOf(request)));
    app.post(`${path}/continue`, { schema: { hide: true } }, completePosted);
  }

  // A wildcard: tickets are longer than the parameters of a path may be.
  app.get<{ Params: { "*": string } }>("/connected/*", { schema: { hide: true } }, async (request, reply) => {
    const at = { ticket: request.params["*"], browser: readBrowser(request.cookies, publicUrl) };
    const shown = await outcomes.showEnding(at);
    if (shown.kind === "moved") return await leadOn(reply, `/connected/${shown.ticket}`);
    return await send(reply, await answerPage(shown.answer, asker));
  });

  app.post<{ Params: { "*": string } }>("/connected/*", { schema: { hide: true } }, async (request, reply) => {
    requireOwnOrigin(request);
    const { csrf, accept } = readForm(request.body);
    const browser = readBrowser(request.cookies, publicUrl);
    if (browser === null || csrf === undefined) throw new ConsentError("stale_form");
    const at = { ticket: request.params["*"], browser, address: request.ip };
    const form = { ...at, csrf, accepted: readWord(accept) };
    return await leadOn(reply, `/connected/${await outcomes.decideAccount(form)}`);
  });
}

type RedirectUri = { provider: string; client: string | null };

function whereOf({ params: { provider, client } }: CallbackRoute): RedirectUri {
  return { provider, client: client ?? null };
}

/** Of the redirect URI. */
function pathOf({ provider, client }: RedirectUri): string {
  const parts = client === null ? [provider] : [provider, client];
  return `/callback/${parts.map(encodeURIComponent).join("/")}`;
}

/** To another page or site, which gets to know nothing of the address here: no answer of the broker lets a browser tell it. */
async function leadOn(reply: FastifyReply, address: string): Promise<FastifyReply> {
  return await reply.header("x-robots-tag", "noindex").redirect(address, 303);
}

type Page = { status: number; html: string; forms: FormsLead };

async function send(reply: FastifyReply, { status, html, forms }: Page): Promise<FastifyReply> {
  return await reply.code(status).headers(pageHeaders(forms)).send(html);
}

/** A parameter that comes twice is refused before anything is consumed (RFC 6749, section 3.1). */
function readQuery(query: unknown): Record<string, unknown> {
  const read = fieldsOf(query);
  if (Object.values(read).every((value) => typeof value === "string")) return read;
  throw new ConsentError("malformed", "A parameter of the address came more than once.");
}

type Form = { csrf?: string; code?: string; accept?: string; answer?: string };

function readForm(body: unknown): Form {
  const fields = Object.entries(fieldsOf(body));
  if (fields.some(([, value]) => Array.isArray(value))) {
    throw new ConsentError("malformed", "A field came more than once.");
  }
  return Object.fromEntries(fields.filter(([, value]) => typeof value === "string"));
}

function readWord(accept: string | undefined): boolean {
  if (accept === "yes" || accept === "no") return accept === "yes";
  throw new ConsentError("malformed", "The form says neither yes nor no.");
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" ? { ...value } : {};
}

/** A form that is out of date is shown anew at its own address. */
function againOf({ problem }: ConsentError, { url, method, routeOptions }: FastifyRequest): string | null {
  const isForm = method === "POST" && ["/connect/:link", "/connected/*"].includes(routeOptions.url ?? "");
  return problem === "stale_form" && isForm ? url : null;
}

async function sendProblem(
  { error, asker }: { error: unknown; asker: Asker },
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const known = toConsentError(error);
  if (known !== null) {
    if (known.retryAfterSeconds !== null) reply.header("retry-after", String(known.retryAfterSeconds));
    return await send(reply, await problemPage(known, asker, { again: againOf(known, request) }));
  }
  const status = error instanceof Error && "statusCode" in error ? Number(error.statusCode) : 500;
  if (status >= 400 && status < 500) {
    return await send(reply, await problemPage(new ConsentError("malformed"), asker, { status })); // broken, oversized or foreign bodies
  }
  request.log.error({ err: error }, "a browser page failed");
  return await send(reply, await problemPage(new ConsentError("internal_error"), asker));
}
