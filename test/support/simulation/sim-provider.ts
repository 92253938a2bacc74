import type { HttpResponse } from "../../../src/providers/http/exchange.ts";
import type { OAuthClient } from "../../../src/providers/oauth/oauth-client.ts";
import { Exchange, type ExchangeParts } from "./exchange.ts";
import { GrantModel, type RefreshToken, type ReuseKind } from "./grant-model.ts";
import type { Moments } from "./remote.ts";
import type { Actor, Scheduler } from "./scheduler.ts";
import { respond, type Send, type SendFault } from "./sends.ts";

type Options = { scheduler: Scheduler; moments: Moments };

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

  clientOf(actor: Actor): Pick<OAuthClient, "requestToken" | "ask"> {
    return {
      requestToken: (call) => new Promise((resolve) => new Exchange(this.#parts(actor), call, resolve).start()),
      ask: async ({ request }) => {
        const value = new URLSearchParams(request.body).get("token") ?? "";
        this.#scheduler.after(this.latencyMs(), null, () => this.grants.revoke(value));
        return { ok: true, status: 200, body: null, detail: "" };
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
  answer(send: Send, body: URLSearchParams, lives: { accessSeconds: number }): HttpResponse {
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

  #grant(send: Send, issued: RefreshToken | null, lifeSeconds: number): HttpResponse {
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
