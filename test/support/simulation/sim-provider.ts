import type { OAuthClient } from "../../../src/providers/oauth-client.ts";
import type { TokenAnswer } from "../../../src/providers/grant.ts";
import { processTokenResponse, type TokenResponse } from "../../../src/providers/token-response.ts";
import { GrantModel, type RefreshToken, type ReuseKind } from "./grant-model.ts";
import type { Moments } from "./remote.ts";
import type { Actor, Scheduler } from "./scheduler.ts";

type Call = Parameters<OAuthClient["requestToken"]>[0];

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

/** What befalls one request. */
export type SendFault = "none" | "no_connection" | "lost_request" | "lost_answer" | "stall" | 429 | 500 | 503;

type Options = { scheduler: Scheduler; moments: Moments };

const totalMs = 25_000;

/** A strict provider that keeps books. */
export class SimProvider {
  readonly grants = new GrantModel();
  readonly sends: Send[] = [];
  readonly sendsOf = new Map<RefreshToken, Send[]>();
  readonly watchers: ((send: Send) => void)[] = [];
  /** Codes that a person's consent left: what each is worth. */
  readonly codes = new Map<string, RefreshToken>();
  readonly accessLives = new Map<string, { expiresMs: number }>();
  faultOf: () => SendFault = () => "none";
  latencyMs: () => number;
  readonly #scheduler: Scheduler;
  readonly #moments: Moments;

  constructor({ scheduler, moments }: Options) {
    this.#scheduler = scheduler;
    this.#moments = moments;
    this.latencyMs = () => scheduler.magnitude(5, 200);
  }

  consent(kind: ReuseKind, accessLifeSeconds: number): string {
    const token = this.grants.open(kind, accessLifeSeconds, this.#scheduler.nowMs);
    const code = `code-${token.value}`;
    this.codes.set(code, token);
    return code;
  }

  clientOf(actor: Actor): Pick<OAuthClient, "requestToken" | "revoke"> {
    return {
      requestToken: (call) => new Promise((resolve) => new Exchange(this.#parts(actor), call, resolve).start()),
      revoke: async ({ request }) => {
        const value = new URLSearchParams(request.body).get("token") ?? "";
        this.#scheduler.after(this.latencyMs(), null, () => this.grants.revoke(value));
        return { revoked: true, detail: "" };
      },
    };
  }

  #parts(actor: Actor): ExchangeParts {
    return { actor, scheduler: this.#scheduler, moments: this.#moments, provider: this };
  }

  begin(actor: Actor, body: URLSearchParams): Send {
    const token = this.grants.tokens.get(body.get("refresh_token") ?? "") ?? null;
    const empty = { doneMs: null, issued: null, accessToken: null, status: 0, read: null };
    const beganMs = this.#scheduler.nowMs;
    const send: Send = { token, connection: null, actor, beganMs, ...empty };
    this.sends.push(send);
    if (token !== null) {
      for (const watch of this.watchers) watch(send);
      const before = this.sendsOf.get(token) ?? [];
      this.sendsOf.set(token, [...before, send]);
    }
    return send;
  }

  /** What the token endpoint does with a request. */
  answer(send: Send, body: URLSearchParams, lives: { accessSeconds: number }): TokenResponse {
    send.doneMs = this.#scheduler.nowMs;
    const grantType = body.get("grant_type");
    if (grantType === "client_credentials") return this.#grant(send, null, lives.accessSeconds);
    const issued = grantType === "authorization_code" ? this.#redeem(body.get("code") ?? "", send) : this.#use(send);
    if (issued === null) return respond(send, 400, { error: "invalid_grant" });
    return this.#grant(send, issued, issued.family.accessLifeSeconds);
  }

  #use({ token }: Send): RefreshToken | null {
    return token === null ? null : this.grants.use(token.value, this.#scheduler.nowMs);
  }

  #redeem(code: string, { beganMs }: Send): RefreshToken | null {
    const token = this.codes.get(code) ?? null;
    if (token !== null) token.family.askedMs = beganMs;
    this.codes.delete(code);
    return token;
  }

  #grant(send: Send, issued: RefreshToken | null, lifeSeconds: number): TokenResponse {
    const access = this.grants.accessToken(issued?.family ?? null);
    this.accessLives.set(access, { expiresMs: this.#scheduler.nowMs + lifeSeconds * 1000 });
    Object.assign(send, { issued, accessToken: access });
    const isNew = issued !== null && issued !== send.token;
    return respond(send, 200, {
      access_token: access,
      token_type: "bearer",
      expires_in: lifeSeconds,
      ...(isNew ? { refresh_token: issued.value } : {}),
    });
  }
}

type ExchangeParts = { actor: Actor; scheduler: Scheduler; moments: Moments; provider: SimProvider };

/** One request, from connecting to the end of its answer, as src/providers/oauth-client.ts makes it. */
class Exchange {
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
    const response = typeof fault === "number" ? respond(send, fault, {}) : provider.answer(send, this.#body, lives);
    moments(actor, "done by provider");
    const returnMs = provider.latencyMs() + delayMs;
    if (fault === "lost_answer") return void scheduler.after(returnMs, actor, () => this.#reset());
    scheduler.after(returnMs, actor, () => this.#read(send, response));
  }

  #read(send: Send, response: TokenResponse): void {
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

function respond(send: Send, status: number, body: Record<string, unknown>): TokenResponse {
  send.status = status;
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}
