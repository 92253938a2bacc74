import { withDeadline } from "../clock.ts";
import type { Attempt, NotedAttempt } from "../store/consent-attempts.ts";
import type { AuthorizationContext } from "./context.ts";
import { named } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError, toConsentError, type ConsentProblem, type ConsentSubject } from "./problem.ts";
import { openTicket, sealTicket, type Ending } from "./ticket.ts";

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
export async function note(parts: ConsentParts, attempt: Attempt, ending: Ending): Promise<string> {
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
export async function newerTicket(
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
