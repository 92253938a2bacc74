import { withDeadline } from "../clock.ts";
import type { ConsentLinkRow, LinkKey } from "../store/consent-links.ts";
import { readableName } from "../readable.ts";
import { csrfMatches, type BrowserAtLink } from "./browser.ts";
import type { AuthorizationContext, ExchangeCode, ExchangedCode } from "./context.ts";
import { parseLinkToken, sha256 } from "./link-token.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError, type ConsentProblem, type ConsentSubject } from "./problem.ts";
import type { Ending } from "./ticket.ts";

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
