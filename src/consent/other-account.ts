import { BrokerError } from "../errors.ts";
import { awaitEnding, newerTicket, note } from "./attempt.ts";
import { csrfMatches, csrfToken } from "./browser.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { named } from "./open-link.ts";
import { openTicket, type Ending } from "./ticket.ts";

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
export function accountCsrf({ formKeys }: Pick<ConsentParts, "formKeys">, at: Asked) {
  return csrfToken(formKeys, formOf(at));
}

/** The question with the names as they are now; null: nothing waits for its answer any more. */
export async function askedNow(
  { findHeld, loadContext }: Pick<ConsentParts, "findHeld" | "loadContext">,
  question: Question,
): Promise<(Question & { isAccepted: boolean }) | null> {
  const held = await findHeld({ attemptId: question.held });
  if (held === null) return null;
  const context = await loadContext(held.connectionId);
  const { account: was } = context;
  return { ...question, ...named(context), was, is: held.label, isAccepted: held.accepted };
}

/** A person's word on another account (docs/consent.md, "Another account"); the ticket of the page that tells what it did. */
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
