import type { Keyring } from "../vault/keyring.ts";
import type { Place } from "../vault/envelope.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";

/** Where an answer came in: the last parts of its redirect URI. */
type PostedAt = { path: string };
type Fields = Readonly<Record<string, unknown>>;
type Sealed = { path: string; fields: Fields; expiresMs: number };

const seconds = 60;
const place: Place = { table: "callback", row: "posted", column: "fields", revision: 0 };

/**
 * Seals an answer that another site posted (OAuth 2.0 Form Post Response Mode). Such a request carries no Lax cookie, so nobody
 * knows yet whose it is: it consumes nothing, and our own page sends it on, with the cookie.
 */
export function sealPosted(
  { ticketKeys, nowMs }: Pick<ConsentParts, "ticketKeys" | "nowMs">,
  { path, fields }: PostedAt & { fields: Fields },
): string {
  const sealed: Sealed = { path, fields, expiresMs: nowMs() + seconds * 1000 };
  return Buffer.from(ticketKeys.seal(JSON.stringify(sealed), place)).toString("base64url");
}

/** The fields again, where they came in and within a minute. @throws ConsentError `stale_form` */
export function openPosted(
  { ticketKeys, nowMs }: Pick<ConsentParts, "ticketKeys" | "nowMs">,
  { path, sealed }: PostedAt & { sealed: string },
): Fields {
  const posted = unseal(ticketKeys, sealed);
  if (posted === null || posted.path !== path || posted.expiresMs <= nowMs()) throw new ConsentError("stale_form");
  return posted.fields;
}

function unseal(keys: Pick<Keyring, "open">, sealed: string): Sealed | null {
  try {
    return JSON.parse(keys.open(Buffer.from(sealed, "base64url"), place)) as Sealed; // ours, or it would not open
  } catch {
    return null;
  }
}
