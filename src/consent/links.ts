import { createHash, hkdfSync } from "node:crypto";
import { withDeadline } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import type { ConsentLinkRow, LinkKey } from "../store/consents.ts";
import { readableLine, readableName } from "../text.ts";
import type { Keyring } from "../vault/keyring.ts";
import type { ConsentParts } from "./consent-service.ts";
import type { AuthorizationContext, ExchangeCode, ExchangedCode } from "./context.ts";
import type { Ending } from "./outcome.ts";
import { ConsentError, type ConsentProblem, type ConsentSubject } from "./problem.ts";

const accountMs = 2000;

/** A form that a browser sent. */
export type ConsentForm = BrowserAtLink & { csrf: string };

export type OpenedLink = { key: LinkKey; row: ConsentLinkRow; context: AuthorizationContext };
/** What the forms of a link's page depend on. */
export type LinkPage = { row: Pick<ConsentLinkRow, "manual" | "purpose">; context: AuthorizationContext };

/** The row of a link and what it is for, if this browser may go on with it. Changes nothing. */
export async function openLink(parts: ConsentParts, { link, browser }: BrowserAtLink): Promise<OpenedLink> {
  const key = parseLinkToken(link);
  const row = key && (await parts.links.find(key));
  if (!key || !row) throw new ConsentError("unknown_link");
  const problem = whyClosed(row, browser);
  if (problem !== null) throw new ConsentError(problem, null, await subjectOf(parts, row.connectionId));
  const context = await parts.loadContext(row.connectionId);
  if (context.disabled) throw new ConsentError("connection_disabled", null, { subject: named(context) });
  return { key, row, context };
}

/**
 * What the form of a link's page is bound to: all that the page shows, and where a code will go. A change of any of it makes the
 * form stale: what was read is what is agreed to, and a code that was asked for at one server never goes to another.
 */
export function formOf(
  { organisation }: Pick<ConsentParts, "organisation">,
  { browser, link }: BrowserAtLink,
  { row, context }: LinkPage,
): BrowserAtLink {
  const { connectionName, definition, clientId, grant, redirectUri, destination } = context;
  const { name, contact } = organisation;
  const shown = [name, contact, connectionName, definition.name, clientId, row.purpose, scopesInWords(context)];
  return { browser, link: JSON.stringify([link, shown, row.manual, grant, redirectUri, destination]) };
}

/** The scopes as the page shows them; `words` null: its definition has none for that one. */
export function scopesInWords({ scopes, definition }: AuthorizationContext): { scope: string; words: string | null }[] {
  const { scopeDescriptions } = definition;
  const wordsFor = (scope: string) => (Object.hasOwn(scopeDescriptions, scope) ? scopeDescriptions[scope] : undefined);
  return scopes.map((scope) => ({ scope, words: wordsFor(scope) ?? null }));
}

/** The same for a form, which also makes the link this browser's own. */
export async function claimLink(parts: ConsentParts, form: ConsentForm): Promise<OpenedLink> {
  const opened = await openLink(parts, form);
  if (!csrfMatches(parts.formKeys, formOf(parts, form, opened), form.csrf)) {
    throw new ConsentError("stale_form", null, { subject: named(opened.context) });
  }
  if (await parts.links.claim(opened.key, sha256(form.browser))) return opened;
  const now = await parts.links.find(opened.key);
  const problem = (now && whyClosed(now, form.browser)) ?? "unknown_link"; // deleted since it was opened
  throw new ConsentError(problem, null, { subject: named(opened.context) });
}

/** Exchanges a code, one at a time for a link: it is used from here on, unless the exchange fails or the person is asked. */
export async function exchangeForLink(
  { links, exchangeCode }: ConsentParts,
  linkId: string,
  given: Parameters<ExchangeCode>[0],
): Promise<ExchangedCode> {
  if (!(await links.reserve(linkId))) throw new ConsentError("used_link");
  try {
    const exchanged = await exchangeCode(given);
    if (exchanged.held !== null) await links.release(linkId);
    return exchanged;
  } catch (error) {
    // With the database away the link stays used: a new one can be made, a code cannot be sent twice.
    await links.release(linkId).catch(() => undefined);
    throw error;
  }
}

/** What came of an exchange: connected as whom, or a question. */
export async function endingOf(
  { loadContext, clock }: ConsentParts,
  context: AuthorizationContext,
  { held, endsSoon }: ExchangedCode,
): Promise<Ending> {
  const subject = named(context);
  if (held !== null) {
    const { attemptId, account, label } = held;
    return {
      ...subject,
      outcome: "other_account",
      held: attemptId,
      was: context.account,
      is: readableName(label ?? account),
    };
  }
  // Only a name: what is connected stays so, whoever is away now.
  const now = await withDeadline(
    loadContext(context.connectionId).catch(() => null),
    accountMs,
    clock,
  );
  return { ...subject, outcome: "connected", account: now?.account ?? null, endsSoon };
}

function whyClosed({ used, expired, claimedBy }: ConsentLinkRow, browser: string): ConsentProblem | null {
  if (used) return "used_link";
  if (expired) return "expired_link";
  return claimedBy && !Buffer.from(claimedBy).equals(sha256(browser)) ? "wrong_browser" : null;
}

/** What a page may name to the holder of a link. */
export function named({ connectionName, definition }: AuthorizationContext): ConsentSubject {
  return { connectionName, providerName: definition.name };
}

/** Only names: a link that is over is told of without them, too. */
async function subjectOf({ loadContext }: ConsentParts, connectionId: string): Promise<{ subject?: ConsentSubject }> {
  const context = await loadContext(connectionId).catch(() => null);
  return context === null ? {} : { subject: named(context) };
}

export const defaultLinkSeconds = 3600;
const longestLinkSeconds = 7 * 24 * 3600;
const longestPurpose = 200;

/** What ops ask for when they make a link. Absent: the default. */
export type LinkRequest = {
  connectionId: string;
  expiresInSeconds?: number | undefined;
  returnTo?: string | null | undefined;
  manual?: boolean | undefined;
  /** What the person is asked for, shown to them as it is. */
  purpose?: string | null | undefined;
  /** Who asked: the name of a key, for the history. */
  createdBy: string;
};

/** @throws BrokerError `invalid_request` naming the field and what is allowed, or why this connection takes no consent */
export function checkLinkRequest(
  request: LinkRequest,
  { definition, disabled, connectionName, grant }: AuthorizationContext,
  returnOrigins: readonly string[],
): void {
  if (disabled) {
    throw new BrokerError("connection_disabled", "The connection is disabled; enable it before it is connected.", {
      connection: connectionName,
    });
  }
  if (grant !== "device_code") requireAuthorization(definition);
  const { expiresInSeconds = defaultLinkSeconds, returnTo = null, manual = false, purpose = null } = request;
  if (!Number.isInteger(expiresInSeconds) || expiresInSeconds < 1 || expiresInSeconds > longestLinkSeconds) {
    throw invalid(`expires_in must be a whole number of seconds from 1 to ${longestLinkSeconds} (7 days)`);
  }
  if (returnTo !== null) checkReturnTo(returnTo, returnOrigins);
  if (manual) requireManualCode(definition);
  if (purpose !== null) checkPurpose(purpose);
}

/** The definition's authorize page. @throws BrokerError where the provider offers no authorization code grant */
function requireAuthorization({ authorization, id }: AuthorizationContext["definition"]) {
  if (authorization !== null) return authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `The provider ${id} has no authorize page: nobody needs to consent there.`,
  );
}

/** @throws BrokerError where the provider shows no code to copy */
export function requireManualCode(definition: AuthorizationContext["definition"]) {
  const authorization = requireAuthorization(definition);
  if (authorization.manualCode) return authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `The provider ${definition.id} shows no code to copy (its definition does not say manual_code); use a plain link.`,
  );
}

const purposeShape = new RegExp(readableLine(longestPurpose), "u");

function checkPurpose(purpose: string): void {
  if (purposeShape.test(purpose)) return;
  throw invalid(
    `purpose must be one line of 1 to ${longestPurpose} characters with a letter or a digit in it, without control or invisible characters`,
  );
}

function checkReturnTo(returnTo: string, returnOrigins: readonly string[]): void {
  if (returnOrigins.length === 0) {
    throw invalid("return_to is not allowed here: RETURN_ORIGINS names no origin");
  }
  const url = URL.canParse(returnTo) ? new URL(returnTo) : null;
  const allowed = url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  if (!allowed || !returnOrigins.includes(url.origin)) {
    throw invalid(`return_to must be an address at one of RETURN_ORIGINS: ${returnOrigins.join(", ")}`);
  }
}

const invalid = (detail: string) => new BrokerError("invalid_request", detail);

const idBytes = 8;
const secretBytes = 16;
const shape = new RegExp(`^([0-9a-f]{${idBytes * 2}})-([0-9a-f]{${secretBytes * 2}})$`);

type RandomBytes = (size: number) => Uint8Array;

/** SHA-256, as secrets of enough entropy are stored. */
export function sha256(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(text).digest());
}

/** A new link: the row's id, what the database keeps of its secret, and the path segment that only the link's holder has. */
export function createLinkToken(randomBytes: RandomBytes) {
  const id = Buffer.from(randomBytes(idBytes)).toString("hex");
  const secret = Buffer.from(randomBytes(secretBytes)).toString("hex");
  return { id, secretHash: sha256(secret), token: `${id}-${secret}` };
}

/** What opens the row of a link; null when it cannot be one of ours. */
export function parseLinkToken(token: string): { id: string; secretHash: Uint8Array<ArrayBuffer> } | null {
  const [, id, secret] = shape.exec(token) ?? [];
  return id === undefined || secret === undefined ? null : { id, secretHash: sha256(secret) };
}

const cookieSeconds = 7 * 24 * 3600; // the longest life of a link
const cookieShape = /^[A-Za-z0-9_-]{43}$/;

/** One browser at one link: what its forms and its verifiers are bound to. */
export type BrowserAtLink = { browser: string; link: string };

/** With https the `__Host-` prefix, which no other host and no plain http can set (RFC 6265bis, section 4.1.3.2). */
const cookieName = (publicUrl: string) =>
  publicUrl.startsWith("https:") ? "__Host-freshet_browser" : "freshet_browser";

/** A new value of the cookie that tells browsers apart: 256 random bits. */
export function createBrowser(randomBytes: (size: number) => Uint8Array): string {
  return Buffer.from(randomBytes(32)).toString("base64url");
}

/** The browser that a request's cookies tell of; null when there is none, or one that is not ours. */
export function readBrowser(cookies: Readonly<Record<string, string | undefined>>, publicUrl: string): string | null {
  const value = cookies[cookieName(publicUrl)] ?? "";
  return cookieShape.test(value) ? value : null;
}

/** The cookie to set. Lax: the callback is a navigation that another site starts. */
export function browserCookie(publicUrl: string) {
  const secure = publicUrl.startsWith("https:");
  const options = { path: "/", maxAge: cookieSeconds, httpOnly: true, sameSite: "lax", secure } as const;
  return { name: cookieName(publicUrl), options };
}

/** What forms are bound by. Their proofs carry the id of their key, so that a rotation of keys ends no form that is open. */
export type FormKeys = Pick<Keyring, "sign" | "verify" | "deriveWith">;

const formPurpose = "consent form";
const formText = ({ browser, link }: BrowserAtLink) => JSON.stringify([browser, link]);

/** The hidden field of a form: what another site cannot know, since it sees neither cookie nor page. */
export function csrfToken(keys: FormKeys, at: BrowserAtLink): string {
  return keys.sign(formPurpose, formText(at));
}

export function csrfMatches(keys: FormKeys, at: BrowserAtLink, given: string): boolean {
  return keys.verify(formPurpose, formText(at), given) === "authentic";
}

/**
 * Bytes that only this broker can make and that are the same at every look at one form: for what a GET shows but must not
 * store. They come from the key that made the form's token, so that its POST finds them again after a rotation.
 */
export function derivedBytes(
  keys: FormKeys,
  purpose: string,
  { browser, link, csrf }: BrowserAtLink & { csrf: string },
) {
  const key = keys.deriveWith(csrf, "consent forms");
  return (size: number) => Buffer.from(hkdfSync("sha256", key, link, JSON.stringify([purpose, browser]), size));
}
