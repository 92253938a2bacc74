import type { ConsentLinkRow, LinkKey } from "../store/consent-links.ts";
import { csrfMatches, type BrowserAtLink } from "./browser.ts";
import type { AuthorizationContext, ExchangeCode, OtherAccount } from "./context.ts";
import { parseLinkToken, sha256 } from "./link-token.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";

/** A form that a browser sent. */
export type ConsentForm = BrowserAtLink & { csrf: string };

export type OpenedLink = { key: LinkKey; row: ConsentLinkRow; context: AuthorizationContext };

/** The row of a link and what it is for, if this browser may go on with it. Changes nothing. */
export async function openLink(parts: ConsentParts, { link, browser }: BrowserAtLink): Promise<OpenedLink> {
  const key = parseLinkToken(link);
  const row = key && (await parts.links.find(key));
  if (!key || !row) throw new ConsentError("unknown_link");
  requireOpen(row, browser);
  const context = await parts.loadContext(row.connectionId);
  if (context.disabled) throw new ConsentError("connection_disabled");
  return { key, row, context };
}

/** The same for a form, which also makes the link this browser's own. */
export async function claimLink(parts: ConsentParts, form: ConsentForm): Promise<OpenedLink> {
  if (!csrfMatches(parts.formKeys, form, form.csrf)) throw new ConsentError("stale_form");
  const opened = await openLink(parts, form);
  if (await parts.links.claim(opened.key, sha256(form.browser))) return opened;
  const now = await parts.links.find(opened.key);
  if (now) requireOpen(now, form.browser);
  throw new ConsentError("unknown_link"); // deleted since it was opened
}

/** Exchanges a code, one at a time for a link: it is used from here on, unless the exchange fails or the person is asked. */
export async function exchangeForLink(
  { links, exchangeCode }: ConsentParts,
  linkId: string,
  given: Parameters<ExchangeCode>[0],
): Promise<OtherAccount | null> {
  if (!(await links.reserve(linkId))) throw new ConsentError("used_link");
  try {
    const { held } = await exchangeCode(given);
    if (held !== null) await links.release(linkId);
    return held;
  } catch (error) {
    // With the database away the link stays used: a new one can be made, a code cannot be sent twice.
    await links.release(linkId).catch(() => undefined);
    throw error;
  }
}

function requireOpen({ used, expired, claimedBy }: ConsentLinkRow, browser: string): void {
  if (used) throw new ConsentError("used_link");
  if (expired) throw new ConsentError("expired_link");
  if (claimedBy && !Buffer.from(claimedBy).equals(sha256(browser))) throw new ConsentError("wrong_browser");
}
