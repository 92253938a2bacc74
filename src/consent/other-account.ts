import { csrfMatches, csrfToken } from "./browser.ts";
import type { AccountQuestion, ConsentAnswer } from "./consent-service.ts";
import type { AuthorizationContext, OtherAccount } from "./context.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";

/** What a browser sends back to an AccountQuestion. */
export type AccountForm = { held: string; link: string; csrf: string; browser: string; accepted: boolean };

/** What the page asks when the person signed in to another account; its form is bound to the browser. */
export function askAboutAccount(
  { formKeys }: Pick<ConsentParts, "formKeys">,
  asked: { held: OtherAccount; context: AuthorizationContext; browser: string; linkId: string },
): AccountQuestion {
  const { held, context, browser, linkId } = asked;
  return {
    held: held.attemptId,
    link: linkId,
    csrf: csrfToken(formKeys, { browser, link: formOf(held.attemptId, linkId) }),
    was: context.account,
    is: held.label ?? held.account,
    action: `/callback/${context.definition.id}`,
  };
}

/** A person's word on another account (docs/consent.md, "Another account"). */
export async function decideAccount(parts: ConsentParts, form: AccountForm): Promise<ConsentAnswer> {
  const { held, link, csrf, browser, accepted } = form;
  if (!csrfMatches(parts.formKeys, { browser, link: formOf(held, link) }, csrf)) throw new ConsentError("stale_form");
  const returnTo = await parts.links.returnTo(link); // before the decision: that must not look as if it had failed
  const decided = await parts.decideAccount(held, accepted);
  if (accepted) await parts.links.reserve(link);
  return { ...decided, outcome: accepted ? "connected" : "kept", returnTo };
}

/** In the place of a link: no link's token holds a space. */
function formOf(held: string, link: string): string {
  return `account ${held} ${link}`;
}
