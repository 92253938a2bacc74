import { BrokerError } from "../errors.ts";
import type { PagePosition, PageRequest } from "../store/page.ts";

/** Reads `limit` and `cursor` of a list. @throws BrokerError when the cursor was not given out by this broker */
export function readPage({ limit, cursor }: { limit: number; cursor?: string | undefined }): PageRequest {
  return { limit, after: cursor === undefined ? null : readCursor(cursor) };
}

/** A full page may be followed by another; the cursor names its last item. */
export function nextCursor(items: readonly PagePosition[], limit: number): string | null {
  const last = items.at(-1);
  if (last === undefined || items.length < limit) return null;
  return Buffer.from(`${last.createdAt.toISOString()} ${last.id}`).toString("base64url");
}

function readCursor(text: string): PagePosition {
  const [time = "", id = ""] = Buffer.from(text, "base64url").toString("utf8").split(" ");
  const createdAt = new Date(time);
  const isId = /^[0-9a-f-]{36}$/.test(id) || /^[0-9A-Za-z]{12}$/.test(id);
  if (Number.isNaN(createdAt.getTime()) || !isId) {
    throw new BrokerError("invalid_request", "cursor: is not a next_cursor of this broker.");
  }
  return { createdAt, id };
}
