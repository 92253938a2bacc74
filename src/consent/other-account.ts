import { BrokerError } from "../errors.ts";
import { awaitEnding, newerTicket, note } from "./attempt.ts";
import { csrfMatches, csrfToken } from "./browser.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { openTicket } from "./ticket.ts";

/** What a browser sends back when it is asked about another account. */
export type AccountForm = { ticket: string; csrf: string; browser: string; accepted: boolean };

/** In the place of a link: no link's token holds a space. One question, one form: its token fits no other ticket. */
const formOf = ({ ticket, browser }: { ticket: string; browser: string }) => ({ browser, link: `account ${ticket}` });

/** The hidden field of the form that asks which account it is to be. */
export function accountCsrf({ formKeys }: Pick<ConsentParts, "formKeys">, at: { ticket: string; browser: string }) {
  return csrfToken(formKeys, formOf(at));
}

/** A person's word on another account (docs/consent.md, "Another account"); the ticket of the page that tells what it did. */
export async function decideAccount(parts: ConsentParts, form: AccountForm): Promise<string> {
  const { attempt, ending } = openTicket(parts, form);
  if (!csrfMatches(parts.formKeys, formOf(form), form.csrf)) throw new ConsentError("stale_form");
  if (ending.outcome !== "other_account") throw new ConsentError("malformed");
  const answered = await newerTicket(parts, form);
  if (answered !== null) return answered;
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
