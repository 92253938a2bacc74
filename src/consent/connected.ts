import { withDeadline } from "../clock.ts";
import { newerTicket } from "./attempt.ts";
import type { ConsentAnswer } from "./consent-service.ts";
import { accountCsrf, askedNow } from "./other-account.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { openTicket, type Ending } from "./ticket.ts";

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
