import type { HttpResponse } from "../../../src/providers/http/exchange.ts";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import type { OAuthClient } from "../../../src/providers/oauth/oauth-client.ts";
import { processTokenResponse } from "../../../src/providers/oauth/token-response.ts";
import { providerTimes } from "../../../src/time.ts";
import type { Moments } from "./remote.ts";
import type { Actor, Scheduler } from "./scheduler.ts";
import { respond, type Send, type SendFault } from "./sends.ts";
import type { SimProvider } from "./sim-provider.ts";

type Call = Parameters<OAuthClient["requestToken"]>[0];

const totalMs = providerTimes.callMs;

export type ExchangeParts = { actor: Actor; scheduler: Scheduler; moments: Moments; provider: SimProvider };

/** One request, from connecting to the end of its answer, as src/providers/oauth/oauth-client.ts makes it. */
export class Exchange {
  readonly #parts: ExchangeParts;
  readonly #call: Call;
  readonly #resolve: (answer: TokenAnswer) => void;
  readonly #body: URLSearchParams;
  #send: Send | null = null;
  #isOver = false;

  constructor(parts: ExchangeParts, call: Call, resolve: (answer: TokenAnswer) => void) {
    this.#parts = parts;
    this.#call = call;
    this.#resolve = resolve;
    this.#body = new URLSearchParams(call.request.body);
  }

  start(): void {
    const { actor, scheduler, provider } = this.#parts;
    if (!this.#call.mayStillSend()) return this.#fail("not_sent", "send_window_passed");
    const fault = provider.faultOf();
    const connectMs = scheduler.chance(0.03) ? scheduler.between(1500, 2900) : scheduler.magnitude(1, 60);
    const begin = () => {
      scheduler.after(totalMs, actor, () => this.#fail("unknown", "outcome_unknown"));
      scheduler.after(connectMs, actor, () => this.#write(fault));
    };
    if (actor.isFrozen) actor.held.push(begin);
    else begin();
  }

  #write(fault: SendFault): void {
    const { actor, scheduler, moments, provider } = this.#parts;
    if (fault === "no_connection") return this.#fail("not_sent", "connect_failed");
    moments(actor, "about to send");
    if (!actor.isAlive) return;
    if (actor.isFrozen) return void actor.held.push(() => this.#write(fault));
    if (!this.#call.mayStillSend()) return this.#fail("not_sent", "send_window_passed");
    const send = provider.begin(actor, this.#body);
    this.#send = send;
    moments(actor, "sent");
    if (fault === "lost_request") return void scheduler.after(provider.latencyMs(), actor, () => this.#reset());
    const isEarly = scheduler.chance(0.5);
    const stallMs = fault === "stall" ? scheduler.between(10_000, 29_000) : 0;
    scheduler.after(provider.latencyMs() + (isEarly ? 0 : stallMs), null, () =>
      this.#answer(send, { fault, delayMs: isEarly ? stallMs : 0 }),
    );
  }

  #answer(send: Send, { fault, delayMs }: { fault: SendFault; delayMs: number }): void {
    const { actor, scheduler, moments, provider } = this.#parts;
    const lives = { accessSeconds: 300 };
    const response =
      fault === "mistaken"
        ? respond(send, 400, { error: "invalid_grant" })
        : typeof fault === "number"
          ? respond(send, fault, {})
          : provider.answer(send, this.#body, lives);
    moments(actor, "done by provider");
    const returnMs = provider.latencyMs() + delayMs;
    if (fault === "lost_answer") return void scheduler.after(returnMs, actor, () => this.#reset());
    scheduler.after(returnMs, actor, () => this.#read(send, response));
  }

  #read(send: Send, response: HttpResponse): void {
    const { actor, scheduler, moments } = this.#parts;
    if (this.#isOver) return;
    moments(actor, "answer there");
    if (!actor.isAlive) return;
    if (actor.isFrozen) return void actor.held.push(() => this.#read(send, response));
    const { definition, request } = this.#call;
    const answer = processTokenResponse({ definition, response, secrets: request.secrets });
    const isUnknown = answer.kind === "failed" && answer.failure.class === "unknown";
    const as = answer.kind === "granted" ? "granted" : isUnknown ? "unknown" : "refused";
    send.read = { atMs: scheduler.nowMs, as };
    this.#end(answer);
  }

  #reset(): void {
    this.#fail("unknown", "outcome_unknown");
  }

  #fail(kind: "not_sent" | "unknown", code: "send_window_passed" | "connect_failed" | "outcome_unknown"): void {
    if (this.#isOver) return;
    if (this.#send !== null) this.#send.read = { atMs: this.#parts.scheduler.nowMs, as: "unknown" };
    const isUnsent = this.#send === null && kind === "unknown";
    const failure = isUnsent
      ? ({ class: "not_sent", code: "connect_failed", detail: "" } as const)
      : ({ class: kind, code, detail: "" } as const);
    this.#end({ kind: "failed", failure });
  }

  #end(answer: TokenAnswer): void {
    this.#isOver = true;
    this.#resolve(answer);
  }
}
