import { BrokerError } from "../errors.ts";
import type { PagePosition, PageRequest } from "../store/connections.ts";

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The lists that are paged, and what their items' ids look like. */
const idShapes = { connections: uuid, clients: uuid, keys: /^[0-9A-Za-z]{12}$/ };

export type PagedList = keyof typeof idShapes;

/** Reads `limit` and `cursor` of a list. @throws BrokerError if the cursor is not one of this list */
export function readPage(
  list: PagedList,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): PageRequest {
  return { limit, after: cursor === undefined ? null : readCursor(list, cursor) };
}

/** A full page may be followed by another; the cursor names its last item. */
export function nextCursor(
  list: PagedList,
  items: readonly PagePosition[],
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): string | null {
  const last = items.at(-1);
  if (last === undefined || items.length < limit) return null;
  if (!isOdd(last)) return cursorOf(list, last);
  // Rows whose time does not fit into a Date come before or after all others, so no other row is skipped.
  return cursor === undefined && items.every(isOdd) ? cursorOf(list, { ...last, createdAt: latest }) : null;
}

const latest = new Date("2999-12-31T00:00:00Z");

function isOdd({ createdAt }: PagePosition): boolean {
  return createdAt.getTime() === 0;
}

function cursorOf(list: PagedList, { createdAt, id }: PagePosition): string {
  return Buffer.from(`${list} ${createdAt.toISOString()} ${id}`).toString("base64url");
}

function readCursor(list: PagedList, text: string): PagePosition {
  const [of, time = "", id = ""] = Buffer.from(text, "base64url").toString("utf8").split(" ");
  const isTime = /^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(time) && !Number.isNaN(Date.parse(time));
  if (of === list && isTime && idShapes[list].test(id)) return { createdAt: new Date(time), id };
  throw new BrokerError("invalid_request", `cursor: is not a next_cursor of the list of ${list}.`);
}
