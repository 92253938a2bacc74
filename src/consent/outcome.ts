import { withDeadline } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import type { Attempt, NotedAttempt } from "../store/consents.ts";
import type { Keyring, Place } from "../vault/keyring.ts";
import type { ConsentAnswer, ConsentParts } from "./consent-service.ts";
import type { AuthorizationContext } from "./context.ts";
import { csrfMatches, csrfToken, named, sha256 } from "./links.ts";
import { ConsentError, type ConsentProblem, type ConsentSubject, toConsentError } from "./problem.ts";

const noteMs = 2000;
const waitMs = 10_000;
const firstLookMs = 100;
const longestLookMs = 1000;

/**
 * Does what an attempt is about, once, and gives the ticket of the page that tells how it ended. A problem is an ending like
 * others. What nobody expected is noted as one, too, and thrown.
 */
export async function conclude(
  parts: ConsentParts,
  { attempt, connectionId }: { attempt: Attempt; connectionId: string },
  work: (context: AuthorizationContext) => Promise<Ending>,
): Promise<string> {
  let subject: ConsentSubject | null = null;
  try {
    const context = await parts.loadContext(connectionId);
    subject = named(context);
    return await note(parts, attempt, await work(context));
  } catch (error) {
    const known = toConsentError(error);
    const { problem, detail, retryAfterSeconds } = known ?? new ConsentError("internal_error");
    await recordProblem(parts, connectionId, problem);
    const againAtMs = retryAfterSeconds === null ? null : parts.nowMs() + retryAfterSeconds * 1000;
    const ticket = await note(parts, attempt, { outcome: "problem", problem, detail, subject, againAtMs });
    if (known === null) throw error;
    return ticket;
  }
}

/** A line of the history is no reason for a page to fail, or to come late. */
async function recordProblem(parts: ConsentParts, connectionId: string, problem: ConsentProblem): Promise<void> {
  const error = problem === "invalid_state" ? "changed_meanwhile" : problem;
  const recorded = parts
    .recordEvent({ connectionId, type: "consent_failed", detail: { error } })
    .catch(() => undefined);
  await withDeadline(recorded, noteMs, parts.clock);
}

/** Seals an ending and notes it for whoever comes again. With Postgres away the ticket alone tells. */
async function note(parts: ConsentParts, attempt: Attempt, ending: Ending): Promise<string> {
  const ticket = sealTicket(parts, attempt, ending);
  const noted = parts.attempts.end(attempt, ticket).catch(() => undefined);
  await withDeadline(noted, noteMs, parts.clock);
  return ticket;
}

/**
 * Whoever comes while an attempt is under way waits for it, wherever it runs; after a while they are told that it is. The same
 * page tells when it can end no more.
 */
export async function awaitEnding(
  parts: ConsentParts,
  attempt: NotedAttempt,
  /** A ticket that is known already: a newer one is waited for. */
  known: string | null = null,
): Promise<string> {
  const { attempts, clock } = parts;
  const deadlineMs = clock.monotonicMs() + waitMs;
  for (let lookMs = firstLookMs, { ticket, isOverdue } = attempt; ; lookMs = Math.min(lookMs * 2, longestLookMs)) {
    if (ticket !== null && ticket !== known) return ticket;
    if (isOverdue || clock.monotonicMs() >= deadlineMs) break;
    await clock.sleep(lookMs);
    ({ ticket, isOverdue } = (await attempts.find(attempt.attemptHash)) ?? gone);
  }
  if (known !== null) throw new ConsentError("already_answered");
  return sealTicket(parts, attempt, { outcome: "working" });
}

/** Of an attempt that is noted no more: its time is over, or its link is deleted. */
const gone: Pick<NotedAttempt, "ticket" | "isOverdue"> = { ticket: null, isOverdue: true };

/**
 * The ticket that tells of the same attempt what this one cannot know yet; null: there is none.
 * @throws ConsentError `interrupted` where there will be none
 */
async function newerTicket(
  parts: ConsentParts,
  { ticket, browser }: { ticket: string; browser: string | null },
): Promise<string | null> {
  const { attempt, ending } = openTicket(parts, { ticket, browser });
  const noted = (await parts.attempts.find(attempt.attemptHash)) ?? gone;
  if (noted.isOverdue && ending.outcome === "working") throw new ConsentError("interrupted");
  if (noted.ticket === null || noted.ticket === ticket) return null;
  const newer = openTicket(parts, { ticket: noted.ticket, browser });
  // Tickets lie in a table that others may write: one of another attempt counts as none.
  return Buffer.from(newer.attempt.attemptHash).equals(attempt.attemptHash) ? noted.ticket : null;
}

const linkMs = 2000;

/**
 * What the page of a ticket shows; `moved`: a newer ticket tells it. As often as its browser asks. Changes nothing.
 * @throws ConsentError for an attempt that ended badly, too
 */
export async function showEnding(
  parts: ConsentParts,
  at: { ticket: string; browser: string | null },
): Promise<{ kind: "moved"; ticket: string } | { kind: "page"; answer: ConsentAnswer }> {
  const { attempt, ending } = openTicket(parts, at);
  if (ending.outcome === "problem") throw toError(ending, parts.nowMs());
  if (ending.outcome === "working" || ending.outcome === "other_account") {
    const newer = await newerTicket(parts, at);
    if (newer !== null) return { kind: "moved", ticket: newer };
  }
  if (ending.outcome === "working") return { kind: "page", answer: ending };
  if (ending.outcome === "other_account") {
    const asked = await askedNow(parts, ending);
    if (asked === null) throw new ConsentError("already_answered", null, { subject: ending });
    const csrf = accountCsrf(parts, { ticket: at.ticket, browser: at.browser ?? "", asked });
    return { kind: "page", answer: { ...asked, csrf } };
  }
  return { kind: "page", answer: { ...ending, returnTo: await returnToOf(parts, attempt.linkId) } };
}

/** From the link and not from the ticket: an address is followed from where it was checked. With Postgres away there is none. */
async function returnToOf({ links, clock }: ConsentParts, linkId: string): Promise<string | null> {
  return await withDeadline(
    links.returnTo(linkId).catch(() => null),
    linkMs,
    clock,
  );
}

function toError(
  { problem, detail, subject, againAtMs = null }: Extract<Ending, { outcome: "problem" }>,
  nowMs: number,
): ConsentError {
  return new ConsentError(problem, detail, {
    ...(subject !== null && { subject }),
    ...(againAtMs !== null && { retryAfterSeconds: Math.max(1, Math.ceil((againAtMs - nowMs) / 1000)) }),
  });
}

/** What a browser sends back when it is asked about another account. */
export type AccountForm = { ticket: string; csrf: string; browser: string; accepted: boolean };

type Question = Extract<Ending, { outcome: "other_account" }>;
type Asked = { ticket: string; browser: string; asked: Question };

/**
 * In the place of a link: no link's token holds a space. One question, one form: its token fits no other ticket, and no other
 * names than those that the page showed.
 */
const formOf = ({ ticket, browser, asked }: Asked) => {
  const { connectionName, providerName, held, was, is } = asked;
  return { browser, link: `account ${JSON.stringify([ticket, connectionName, providerName, held, was, is])}` };
};

/** The hidden field of the form that asks which account it is to be. */
function accountCsrf({ formKeys }: Pick<ConsentParts, "formKeys">, at: Asked) {
  return csrfToken(formKeys, formOf(at));
}

/** The question with the names as they are now; null: nothing waits for its answer any more. */
async function askedNow(
  { findHeld, loadContext }: Pick<ConsentParts, "findHeld" | "loadContext">,
  question: Question,
): Promise<(Question & { isAccepted: boolean }) | null> {
  const held = await findHeld({ attemptId: question.held });
  if (held === null) return null;
  const context = await loadContext(held.connectionId);
  const { account: was } = context;
  return { ...question, ...named(context), was, is: held.label, isAccepted: held.accepted };
}

/** A person's word on another account (docs/internals/consent.md, "Another account"); the ticket of the page that tells what it did. */
export async function decideAccount(parts: ConsentParts, form: AccountForm): Promise<string> {
  const { attempt, ending } = openTicket(parts, form);
  if (ending.outcome !== "other_account") throw new ConsentError("stale_form");
  const answered = await newerTicket(parts, form);
  if (answered !== null) return answered;
  const asked = await askedNow(parts, ending);
  // A yes is final, and to say it again changes nothing: by then the names may be the new ones.
  const isOpen = asked !== null && !asked.isAccepted;
  if (isOpen && !csrfMatches(parts.formKeys, formOf({ ...form, asked }), form.csrf)) {
    throw new ConsentError("stale_form", null, { subject: asked });
  }
  const decided = await parts.decideAccount(ending.held, form.accepted).catch((error: unknown) => {
    if (error instanceof BrokerError && error.code === "not_found") return null;
    throw error;
  });
  // Pressed twice: the first one is under way, or has just been.
  if (decided === null) return await awaitEnding(parts, { ...attempt, ticket: null, isOverdue: false }, form.ticket);
  const { connectionName, providerName, account, endsSoon } = decided;
  if (!form.accepted) return await note(parts, attempt, { outcome: "kept", connectionName, providerName });
  // What was decided must not look as if it had failed: a link that stays open is this browser's.
  await parts.links.reserve(attempt.linkId).catch(() => false);
  return await note(parts, attempt, { outcome: "connected", connectionName, providerName, account, endsSoon });
}

/** How an attempt ended, as its page tells it. */
export type Ending =
  /** `account`: who it is connected as; null: nobody knows. `endsSoon`: no refresh token came, it ends with its first token. */
  | (ConsentSubject & { outcome: "connected"; account: string | null; endsSoon: boolean })
  | (ConsentSubject & { outcome: "denied" | "kept" })
  /** `held` names the grant that waits for the person's word; `is` null: the provider did not say which account it is. */
  | (ConsentSubject & { outcome: "other_account"; held: string; was: string | null; is: string | null })
  /** It has not ended yet. */
  | { outcome: "working" }
  | (Pick<ConsentError, "problem" | "detail" | "subject"> & {
      outcome: "problem";
      /** When it is worth trying again, by Postgres's clock; null, or in a ticket of an older version absent: nobody can say. */
      againAtMs?: number | null;
    });

export type TicketParts = {
  ticketKeys: Pick<Keyring, "seal" | "open">;
  /** By Postgres's clock, as far as this process knows it. */
  nowMs: () => number;
};

type Sealed = { attempt: string; browser: string; link: string; expiresMs: number; ending: Ending };

const shownSeconds = 600;
/** As long as a held grant waits for the person's word. */
const askedSeconds = 3600;
/** One place for all: what a ticket is for stands inside of it. */
const place: Place = { table: "consent_attempts", row: "ticket", column: "ticket", revision: 0 };

/** How an attempt ended, sealed for the address of its page. Nothing is stored: it holds while Postgres is away. */
export function sealTicket({ ticketKeys, nowMs }: TicketParts, attempt: Attempt, ending: Ending): string {
  const seconds = ending.outcome === "other_account" ? askedSeconds : shownSeconds;
  const sealed: Sealed = {
    attempt: Buffer.from(attempt.attemptHash).toString("base64url"),
    browser: Buffer.from(attempt.browserHash).toString("base64url"),
    link: attempt.linkId,
    expiresMs: nowMs() + seconds * 1000,
    ending,
  };
  return Buffer.from(ticketKeys.seal(JSON.stringify(sealed), place)).toString("base64url");
}

/**
 * What a ticket holds, for the browser that it was made for.
 * @throws ConsentError `invalid_ticket` for what is no ticket of ours, `wrong_browser`, `expired_page`
 */
export function openTicket(
  { ticketKeys, nowMs }: TicketParts,
  { ticket, browser }: { ticket: string; browser: string | null },
): { attempt: Attempt; ending: Ending } {
  const sealed = unseal(ticketKeys, ticket);
  const attempt = {
    attemptHash: new Uint8Array(Buffer.from(sealed.attempt, "base64url")),
    browserHash: new Uint8Array(Buffer.from(sealed.browser, "base64url")),
    linkId: sealed.link,
  };
  if (!isBrowserOf(attempt, browser)) throw new ConsentError("wrong_browser");
  if (sealed.expiresMs <= nowMs()) throw new ConsentError("expired_page", null, subjectOf(sealed.ending));
  return { attempt, ending: sealed.ending };
}

/** Whether a browser is the one that made an attempt. */
export function isBrowserOf({ browserHash }: Pick<Attempt, "browserHash">, browser: string | null): boolean {
  return browser !== null && Buffer.from(browserHash).equals(sha256(browser));
}

function unseal(keys: TicketParts["ticketKeys"], ticket: string): Sealed {
  try {
    return JSON.parse(keys.open(Buffer.from(ticket, "base64url"), place)) as Sealed; // ours, or it would not open
  } catch {
    throw new ConsentError("invalid_ticket");
  }
}

function subjectOf(ending: Ending): { subject?: ConsentSubject } {
  if (ending.outcome === "working") return {};
  if (ending.outcome === "problem") return ending.subject === null ? {} : { subject: ending.subject };
  const { connectionName, providerName } = ending;
  return { subject: { connectionName, providerName } };
}
