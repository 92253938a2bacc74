import { providerTimes } from "../../time.ts";
import type { AnswerRoom } from "./answer-room.ts";
import { BlockedAddressError, type Egress } from "./egress.ts";
import { exchange, type ExchangeOutcome } from "./exchange.ts";
import { ProxyError, reason } from "./open-connection.ts";

const longestDocument = 256 * 1024;

/**
 * Reads small public documents, such as the keys of an issuer, over https. It follows no redirect, sends nothing secret, and reaches public
 * addresses only, and the networks that the call names. PROVIDER_NETWORKS does not count.
 */
export function createDocumentReader({ egress, room, totalMs }: { egress: Egress; room: AnswerRoom; totalMs: number }) {
  const timeouts = { connectMs: providerTimes.connectMs, headersMs: totalMs, totalMs };
  /** @throws Error with a text for the broker's log */
  return async (url: string, { ca, networks }: { ca: string | null; networks: readonly string[] }): Promise<string> => {
    const request = { method: "GET" as const, url, headers: {}, secrets: [], ...(ca !== null && { ca }) };
    const definition = { isSandbox: false, networks };
    const call = { egress, timeouts, room, definition, request, mayStillSend: () => true };
    return await exchange(call, (outcome) => readDocument(url, outcome));
  };
}

function readDocument(url: string, outcome: ExchangeOutcome): string {
  const { host } = new URL(url);
  if (outcome.kind !== "answered") throw new Error(`${host} ${whyNot(outcome)}`);
  const { status, body, complete, headers } = outcome.response;
  if (status !== 200) throw new Error(`${host} answered ${status}`);
  const isPlain = (headers["content-encoding"] ?? "identity") === "identity";
  if (complete === false || body.length > longestDocument || !isPlain) {
    throw new Error(`the answer of ${host} is cut off, compressed, or longer than 256 KiB`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw new Error(`the answer of ${host} is not UTF-8`);
  }
}

function whyNot(outcome: Exclude<ExchangeOutcome, { kind: "answered" }>): string {
  if (outcome.kind === "window_passed") return "was not asked";
  const { error } = outcome;
  if (error instanceof BlockedAddressError) {
    return "is outside the public internet: name its network in `networks` of the workload";
  }
  if (error instanceof ProxyError) return `was not reached: ${error.message}`;
  return outcome.kind === "cut_off" ? `gave no answer (${reason(error)})` : `could not be reached (${reason(error)})`;
}
