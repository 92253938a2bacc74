import type { Dispatcher } from "undici";
import { type AnswerShare, freeBytes } from "./answer-room.ts";
import { maxBodyBytes } from "./body.ts";
import type { OutboundProxy } from "./outbound-proxy.ts";
import type { TokenResponse } from "./token-response.ts";

/**
 * What came of one exchange. `not_sent` and `window_passed`: nothing was written, with certainty. `cut_off`: the request
 * may have been written, in part or whole, and no answer came.
 */
export type ExchangeOutcome =
  | { kind: "answered"; response: TokenResponse }
  | { kind: "window_passed" }
  | { kind: "not_sent"; error: unknown }
  | { kind: "cut_off"; error: unknown };

type Controller = Dispatcher.DispatchController;

/** This process ended the call. `code` says why. */
export class EndedError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** One request through undici, from connecting to the end of the answer. `outcome` never rejects. */
export class HttpExchange implements Dispatcher.DispatchHandler {
  readonly outcome: Promise<ExchangeOutcome>;
  readonly #mayStillSend: () => boolean;
  readonly #share: AnswerShare;
  readonly #relayedBy: OutboundProxy | null;
  readonly #deadline: NodeJS.Timeout;
  /** What has come of the body, copied: a chunk of one byte keeps all that it came with. */
  #body = Buffer.alloc(0);
  #size = 0;
  #resolve: (outcome: ExchangeOutcome) => void;
  #settled = false;
  /** True from the last moment at which undici had written nothing. */
  #started = false;
  #head: { status: number; headers: Record<string, string> } | null = null;
  #controller: Controller | null = null;

  /** @param options `relayedBy`: the proxy that the request is given to in place of the provider; null: there is none, or a tunnel */
  constructor(options: {
    totalMs: number;
    mayStillSend: () => boolean;
    share: AnswerShare;
    relayedBy: OutboundProxy | null;
  }) {
    const { promise, resolve } = Promise.withResolvers<ExchangeOutcome>();
    this.outcome = promise;
    this.#resolve = resolve;
    this.#mayStillSend = options.mayStillSend;
    this.#share = options.share;
    this.#relayedBy = options.relayedBy;
    this.#deadline = setTimeout(() => {
      const error = new EndedError("TOTAL_TIMEOUT");
      this.end(error);
      this.#controller?.abort(error);
    }, options.totalMs);
  }

  onRequestStart(controller: Controller): void {
    // undici calls this before the first byte; an abort here writes nothing. A second call would be a re-send.
    if (this.#settled || this.#started) {
      controller.abort(new EndedError("ALREADY_ENDED"));
      return;
    }
    // failpoint (sync): before send
    if (!this.#mayStillSend()) {
      this.#settle({ kind: "window_passed" });
      controller.abort(new EndedError("WINDOW_PASSED"));
      return;
    }
    this.#started = true;
    this.#controller = controller;
  }

  onResponseStart(
    _controller: Controller,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (status < 200) return; // no answer by any name: interim ones do not come this far
    this.#head = { status, headers: joinHeaders(headers) };
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#settled) return;
    const isGiven = this.#append(chunk, () => controller.resume());
    if (this.#size > maxBodyBytes) {
      this.#answer({ complete: false, tooLong: true });
      controller.abort(new EndedError("BODY_TOO_LARGE"));
    } else if (!isGiven) {
      controller.pause();
    }
  }

  onResponseEnd(): void {
    this.#answer({ complete: true });
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.end(error);
  }

  /** The call is over without an end of the answer: what has come of it still counts. */
  end(error: unknown): void {
    if (this.#head) this.#answer({ complete: false });
    else this.#settle({ kind: this.#started ? "cut_off" : "not_sent", error });
  }

  /** False: there is no room for more, and `onRoom` is called once there is. What has come is kept all the same. */
  #append(chunk: Buffer, onRoom: () => void): boolean {
    const at = this.#size;
    this.#size += chunk.length;
    const needed = Math.min(this.#size, maxBodyBytes);
    const isEnough = needed <= this.#body.length;
    if (!isEnough) {
      const larger = Buffer.alloc(Math.ceil(needed / freeBytes) * freeBytes);
      this.#body.copy(larger, 0, 0, at);
      this.#body = larger;
    }
    chunk.copy(this.#body, at);
    return isEnough || this.#share.grow(this.#body.length, onRoom);
  }

  #answer(end: { complete: boolean; tooLong?: true }): void {
    if (!this.#head || this.#settled) return;
    const { status, headers } = this.#head;
    const response: TokenResponse = {
      status,
      headers,
      body: this.#body.subarray(0, this.#size),
      ...end,
      ...(this.#relayedBy !== null && { relayedBy: this.#relayedBy }),
    };
    this.#settle({ kind: "answered", response });
  }

  #settle(outcome: ExchangeOutcome): void {
    if (this.#settled) return;
    this.#settled = true;
    clearTimeout(this.#deadline);
    this.#resolve(outcome);
  }
}

function joinHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const joined: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) joined[name.toLowerCase()] = Array.isArray(value) ? value.join(", ") : value;
  }
  return joined;
}
