import type { Attempt } from "../store/consent-attempts.ts";
import type { Place } from "../vault/envelope.ts";
import type { Keyring } from "../vault/keyring.ts";
import { sha256 } from "./link-token.ts";
import { ConsentError, type ConsentSubject } from "./problem.ts";

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
