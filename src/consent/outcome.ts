import { type Clock, withDeadline } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import { type CompletionRule, rulesOfGrant } from "../grant-types.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { Connections } from "../store/connections.ts";
import type { Attempt, ConsentAttempts, ConsentLinks, NotedAttempt } from "../store/consents.ts";
import { readableName } from "../text.ts";
import { consentTimes } from "../time.ts";
import type { Authorized, Authorizations } from "../tokens/person-grant.ts";
import { endsWithItsToken } from "../tokens/row-rules.ts";
import type { Keyring, Place } from "../vault/keyring.ts";
import type { AtLink, ConsentAudit } from "./audit.ts";
import {
  type AuthorizationContext,
  type BrowserAtLink,
  csrfMatches,
  csrfToken,
  type FormKeys,
  type Links,
  named,
  parseLinkToken,
  sha256,
} from "./links.ts";
import { ConsentError, type ConsentProblem, type ConsentSubject, toConsentError } from "./problem.ts";

/** What the page of an attempt shows if nothing failed. A denial is no failure. */
export type ConsentAnswer =
  | (Extract<Ending, { outcome: "connected" | "denied" | "kept" }> & { returnTo: string | null })
  | (Extract<Ending, { outcome: "other_account" }> & { csrf: string })
  | { outcome: "working" };

export type Outcomes = ReturnType<typeof createOutcomes>;

type OutcomeDeps = TicketDeps & {
  attempts: ConsentAttempts;
  linkRows: Pick<ConsentLinks, "find" | "returnTo" | "madeBy" | "reserve">;
  records: Pick<Connections, "addEvent">;
  accounts: Pick<AccountRows, "findUnconfirmed">;
  authorizations: Pick<Authorizations, "decide">;
  catalog: Pick<Catalog, "get">;
  completion: CompletionRule;
  links: Pick<Links, "contextById">;
  audited: ConsentAudit;
  formKeys: FormKeys;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
};

/** How attempts end, and how a browser that comes back gets the outcome: docs/internals/consent.md, "An attempt" and "Another account". */
export function createOutcomes(deps: OutcomeDeps) {
  const { attempts, linkRows, records, accounts, authorizations, catalog, links, formKeys, clock } = deps;

  /** Seals an outcome as a ticket and stores it for browsers that come back. Without Postgres only the ticket has it. */
  const note = async (attempt: Attempt, ending: Ending): Promise<string> => {
    const ticket = sealTicket(deps, attempt, ending);
    const noted = attempts.end(attempt, ticket).catch(() => undefined);
    await withDeadline(noted, consentTimes.noteMs, clock);
    return ticket;
  };

  /** Adds a line to the history. The page neither waits for it nor fails because of it. */
  const recordProblem = async (connectionId: string, problem: ConsentProblem): Promise<void> => {
    const error = problem === "invalid_state" ? "changed_meanwhile" : problem;
    const recorded = records.addEvent(connectionId, "consent_failed", { error }).catch(() => undefined);
    await withDeadline(recorded, consentTimes.noteMs, clock);
  };

  /**
   * A browser that comes while an attempt is under way waits for it, on whatever replica it runs. After a while it gets a page that says so. The
   * same page also says if the attempt can no longer end.
   */
  const awaitEnding = async (
    attempt: NotedAttempt,
    /** A ticket that the browser has already: wait for a newer one. */
    known: string | null = null,
  ): Promise<string> => {
    const deadlineMs = clock.monotonicMs() + consentTimes.awaitEndingMs;
    for (
      let lookMs = consentTimes.firstLookMs, { ticket, isOverdue } = attempt;
      ;
      lookMs = Math.min(lookMs * 2, consentTimes.longestLookMs)
    ) {
      if (ticket !== null && ticket !== known) return ticket;
      if (isOverdue || clock.monotonicMs() >= deadlineMs) break;
      await clock.sleep(lookMs);
      ({ ticket, isOverdue } = (await attempts.find(attempt.attemptHash)) ?? gone);
    }
    if (known !== null) throw new ConsentError("already_answered");
    return sealTicket(deps, attempt, { outcome: "working" });
  };

  /**
   * A newer ticket of the same attempt; null: there is none yet.
   * @throws ConsentError `interrupted` if there will be none
   */
  const newerTicket = async ({ ticket, browser }: AtTicket): Promise<string | null> => {
    const { attempt, ending } = openTicket(deps, { ticket, browser });
    const noted = (await attempts.find(attempt.attemptHash)) ?? gone;
    if (noted.isOverdue && ending.outcome === "working") throw new ConsentError("interrupted");
    if (noted.ticket === null || noted.ticket === ticket) return null;
    const newer = openTicket(deps, { ticket: noted.ticket, browser });
    // Others may write to the table of tickets. A ticket of another attempt counts as absent.
    return Buffer.from(newer.attempt.attemptHash).equals(attempt.attemptHash) ? noted.ticket : null;
  };

  /** The `return_to` of the link, where it was checked, and not of the ticket. Without Postgres there is none. */
  const returnToOf = async (linkId: string): Promise<string | null> =>
    await withDeadline(
      linkRows.returnTo(linkId).catch(() => null),
      consentTimes.returnAddressMs,
      clock,
    );

  /** The question with the present names; null: the grant is no longer unconfirmed. */
  const askedNow = async (question: Question): Promise<(Question & { isAccepted: boolean }) | null> => {
    const unconfirmed = await accounts.findUnconfirmed({ attemptId: question.held });
    if (unconfirmed === null) return null;
    const context = await links.contextById(unconfirmed.connectionId);
    const is = readableName(unconfirmed.accountLabel ?? unconfirmed.account);
    return { ...question, ...named(context), was: context.account, is, isAccepted: unconfirmed.accepted };
  };

  return {
    awaitEnding,

    /**
     * Runs an attempt once, and returns the ticket of the page with its outcome. A ConsentError is an outcome like others. An unexpected error is
     * stored as an outcome, too, and thrown.
     */
    async conclude(
      { attempt, context, by }: { attempt: Attempt; context: AuthorizationContext; by: Omit<AtLink, "linkId"> },
      work: () => Promise<Ending>,
    ): Promise<string> {
      const { connectionName } = context;
      const at = { ...by, linkId: attempt.linkId };
      try {
        return await note(
          attempt,
          await deps.audited({ action: "consents.complete", at, connectionName }, work, resultOf),
        );
      } catch (error) {
        const known = toConsentError(error);
        const { problem, detail, retryAfterSeconds } = known ?? new ConsentError("internal_error");
        await recordProblem(context.connectionId, problem);
        const againAtMs = retryAfterSeconds === null ? null : deps.nowMs() + retryAfterSeconds * 1000;
        const subject = named(context);
        const ticket = await note(attempt, { outcome: "problem", problem, detail, subject, againAtMs });
        if (known === null) throw error;
        return ticket;
      }
    },

    /**
     * What the page of a ticket shows; `moved`: there is a newer ticket. May be called any number of times; changes nothing.
     * @throws ConsentError also for an attempt that failed
     */
    async showEnding(
      at: AtTicket,
    ): Promise<{ kind: "moved"; ticket: string } | { kind: "page"; answer: ConsentAnswer }> {
      const { attempt, ending } = openTicket(deps, at);
      if (ending.outcome === "problem") throw toError(ending, deps.nowMs());
      if (ending.outcome === "held") throw new ConsentError("invalid_ticket"); // its browser is led to the app, and never here
      if (ending.outcome === "working" || ending.outcome === "other_account") {
        const newer = await newerTicket(at);
        if (newer !== null) return { kind: "moved", ticket: newer };
      }
      if (ending.outcome === "working") return { kind: "page", answer: ending };
      if (ending.outcome === "other_account") {
        const asked = await askedNow(ending);
        if (asked === null) throw new ConsentError("already_answered", null, { subject: ending });
        const csrf = csrfToken(formKeys, formOf({ ticket: at.ticket, browser: at.browser ?? "", asked }));
        return { kind: "page", answer: { ...asked, csrf } };
      }
      return { kind: "page", answer: { ...ending, returnTo: await returnToOf(attempt.linkId) } };
    },

    /** A person's decision on another account (docs/internals/consent.md, "Another account"). Returns the ticket of the page with the result. */
    async decideAccount(form: AccountForm): Promise<string> {
      const { attempt, ending } = openTicket(deps, form);
      if (ending.outcome !== "other_account") throw new ConsentError("stale_form");
      if (form.accepted && deps.completion === "app") throw new ConsentError("plain_link", null, { subject: ending });
      const answered = await newerTicket(form);
      if (answered !== null) return answered;
      const asked = await askedNow(ending);
      // A yes is final, and a second yes changes nothing. The names may be the new ones by then.
      const isOpen = asked !== null && !asked.isAccepted;
      if (isOpen && !csrfMatches(formKeys, formOf({ ...form, asked }), form.csrf)) {
        throw new ConsentError("stale_form", null, { subject: asked });
      }
      const { connectionName } = asked ?? ending;
      const madeBy = await linkRows.madeBy(attempt.linkId).catch(() => null);
      // No page asks this of the consent of an app.
      const at = { linkId: attempt.linkId, madeBy, address: form.address, binding: "weak" } as const;
      const entry = { action: "consents.account", at, connectionName, detail: { accept: form.accepted } } as const;
      const decide = async () => await authorizations.decide({ attemptId: ending.held }, form.accepted);
      const row = await deps.audited(entry, decide).catch((error: unknown) => {
        if (error instanceof BrokerError && error.code === "not_found") return null;
        throw error;
      });
      // The button was pressed twice: the first request is under way, or has just ended.
      if (row === null) return await awaitEnding({ ...attempt, ticket: null, isOverdue: false }, form.ticket);
      const subject = { connectionName: row.name, providerName: catalog.get(row.provider)?.name ?? row.provider };
      if (!form.accepted) return await note(attempt, { outcome: "kept", ...subject });
      // The decision has been carried out. If the link cannot be marked as used, that must not look like a failure: only this browser can use it.
      await linkRows.reserve(attempt.linkId).catch(() => false);
      const account = readableName(row.accountLabel ?? row.account);
      return await note(attempt, { outcome: "connected", ...subject, account, endsSoon: endsWithItsToken(row) });
    },

    /**
     * The ticket with the outcome of the user code that this browser was shown; null: none yet. A user code has no callback, so the browser
     * asks for this.
     */
    async outcomeOfCode({ link, browser }: BrowserAtLink): Promise<string | null> {
      const key = parseLinkToken(link);
      const row = key && (await linkRows.find(key));
      if (!row?.claimedBy || !Buffer.from(row.claimedBy).equals(sha256(browser))) return null;
      const context = await links.contextById(row.connectionId);
      if (rulesOfGrant(context.grant).consent !== "user_code") return null;
      const { account, endsSoon } = context;
      const subject = named(context);
      const attempt = { browserHash: sha256(browser), linkId: row.id };
      if (row.used) {
        const connected = { ...attempt, attemptHash: sha256(`user code ${row.id}`) };
        return sealTicket(deps, connected, { ...subject, outcome: "connected", account, endsSoon });
      }
      const { connectionId, id: linkId } = row;
      const unconfirmed = row.expired ? null : await accounts.findUnconfirmed({ connectionId, linkId });
      if (unconfirmed === null) return null;
      const { attemptId } = unconfirmed;
      const is = readableName(unconfirmed.accountLabel ?? unconfirmed.account);
      const asked = { ...subject, outcome: "other_account", held: attemptId, was: account, is } as const;
      return sealTicket(deps, { ...attempt, attemptHash: sha256(`user code ${attemptId}`) }, asked);
    },
  };
}

/** The outcome of a code: connected, with the account, or a question about another account. */
export function endingOf(context: AuthorizationContext, authorized: Authorized): Ending {
  const subject = named(context);
  const { row } = authorized;
  if (authorized.kind === "unconfirmed") {
    const { attemptId, account, label } = authorized.unconfirmed;
    const is = readableName(label ?? account);
    return { ...subject, outcome: "other_account", held: attemptId, was: context.account, is };
  }
  const account = readableName(row.accountLabel ?? row.account);
  return { ...subject, outcome: "connected", account, endsSoon: endsWithItsToken(row) };
}

type AtTicket = { ticket: string; browser: string | null };

/** For an attempt that is no longer stored: it has expired, or its link is deleted. */
const gone: Pick<NotedAttempt, "ticket" | "isOverdue"> = { ticket: null, isOverdue: true };

function toError(
  { problem, detail, subject, againAtMs = null }: Extract<Ending, { outcome: "problem" }>,
  nowMs: number,
): ConsentError {
  return new ConsentError(problem, detail, {
    ...(subject !== null && { subject }),
    ...(againAtMs !== null && { retryAfterSeconds: Math.max(1, Math.ceil((againAtMs - nowMs) / 1000)) }),
  });
}

/** What the audit says of an ending. */
function resultOf(ending: Ending): string {
  if (ending.outcome === "problem") return ending.problem;
  return ending.outcome === "connected" || ending.outcome === "held" ? "ok" : ending.outcome;
}

/** What a browser sends back when it is asked about another account, and from which address. */
export type AccountForm = { ticket: string; csrf: string; browser: string; accepted: boolean; address: string };

type Question = Extract<Ending, { outcome: "other_account" }>;
type Asked = { ticket: string; browser: string; asked: Question };

/**
 * Stands in place of a link's token, which never contains a space. The form's token is valid for this ticket only, and for the names that the
 * page showed.
 */
const formOf = ({ ticket, browser, asked }: Asked) => {
  const { connectionName, providerName, held, was, is } = asked;
  return { browser, link: `account ${JSON.stringify([ticket, connectionName, providerName, held, was, is])}` };
};

/** How an attempt ended, as its page tells it. */
export type Ending =
  /** `account`: null: not known. `endsSoon`: no refresh token came, so the connection ends with its first token. */
  | (ConsentSubject & { outcome: "connected"; account: string | null; endsSoon: boolean })
  | (ConsentSubject & { outcome: "denied" | "kept" })
  /** `held` is the id of the unconfirmed grant; `is` null: the provider did not say which account it is. */
  | (ConsentSubject & { outcome: "other_account"; held: string; was: string | null; is: string | null })
  /** Its code waits for the app that made the link: the browser goes on to the app, at this address. */
  | { outcome: "held"; address: string }
  /** It has not ended yet. */
  | { outcome: "working" }
  | (Pick<ConsentError, "problem" | "detail" | "subject"> & {
      outcome: "problem";
      /** When to try again, by Postgres's clock; null, or absent in a ticket of an older version: not known. */
      againAtMs?: number | null;
    });

type TicketDeps = {
  ticketKeys: Pick<Keyring, "seal" | "open">;
  /** By this process's estimate of Postgres's clock. */
  nowMs: () => number;
};

type Sealed = { attempt: string; browser: string; link: string; expiresMs: number; ending: Ending };

/** All tickets are sealed for the same place. What a ticket is for is part of its content. */
const place: Place = { table: "consent_attempts", row: "ticket", column: "ticket", revision: 0 };

/** Seals an outcome for the address of its page. It works without Postgres, since nothing is stored. */
export function sealTicket({ ticketKeys, nowMs }: TicketDeps, attempt: Attempt, ending: Ending): string {
  const seconds =
    ending.outcome === "other_account" ? consentTimes.unconfirmedGrantSeconds : consentTimes.outcomeSeconds;
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
 * Opens a ticket, for the browser for which it was made.
 * @throws ConsentError `invalid_ticket` if this broker has not made it, `wrong_browser`, `expired_page`
 */
export function openTicket(
  { ticketKeys, nowMs }: TicketDeps,
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

function unseal(keys: TicketDeps["ticketKeys"], ticket: string): Sealed {
  try {
    return JSON.parse(keys.open(Buffer.from(ticket, "base64url"), place)) as Sealed; // it opens, so this broker has written it
  } catch {
    throw new ConsentError("invalid_ticket");
  }
}

function subjectOf(ending: Ending): { subject?: ConsentSubject } {
  if (ending.outcome === "working" || ending.outcome === "held") return {};
  if (ending.outcome === "problem") return ending.subject === null ? {} : { subject: ending.subject };
  const { connectionName, providerName } = ending;
  return { subject: { connectionName, providerName } };
}
