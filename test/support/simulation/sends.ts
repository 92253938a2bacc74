import type { RefreshToken } from "./grant-model.ts";
import type { Actor } from "./scheduler.ts";
import type { HttpResponse } from "../../../src/providers/http/exchange.ts";

/** A request that was written to a socket. */
export type Send = {
  /** The refresh token; null: another grant. */
  token: RefreshToken | null;
  connection: string | null;
  actor: Actor;
  beganMs: number;
  /** When the provider did it; null: it never came to that. */
  doneMs: number | null;
  issued: RefreshToken | null;
  accessToken: string | null;
  status: number;
  /** When, and as what, the answer was read; null: never. */
  read: { atMs: number; as: "granted" | "refused" | "unknown" } | null;
};

/** What befalls one request. `mistaken`: the provider says that the grant is over, and it is not. */
export type SendFault =
  | "none"
  | "no_connection"
  | "lost_request"
  | "lost_answer"
  | "stall"
  | "mistaken"
  | 429
  | 500
  | 503;

export function respond(send: Send, status: number, body: Record<string, unknown>): HttpResponse {
  send.status = status;
  return { status, headers: { "content-type": "application/json" }, body: Buffer.from(JSON.stringify(body)) };
}
