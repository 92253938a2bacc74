import { setImmediate } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { HttpRequest } from "../../../src/providers/http/exchange.ts";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import type { Asked } from "../../../src/providers/oauth/oauth-client.ts";
import type { Admission, Admitted, LimitedRequest } from "../../../src/store/request-limits.ts";
import { createRequestLimiter } from "../../../src/tokens/limits.ts";
import type { RequestContext } from "../../../src/tokens/request.ts";
import { simClient } from "../../support/simulation/sim-catalog.ts";
import { define } from "../providers/definitions.ts";
import { fakeClock } from "./fake-clock.ts";
import { tokenRow } from "./token-row.ts";

const granted: TokenAnswer = {
  kind: "granted",
  grant: { tokenType: "Bearer", accessExpiry: { kind: "never" }, refreshExpiry: { kind: "never" }, captured: {} },
};
const busy = {
  kind: "failed",
  failure: { class: "refused_for_now", code: "rate_limited", detail: "", status: 429 },
} as const satisfies TokenAnswer;

const refresh = { cannotWait: false, isProven: true };

/** The limits on a store that lets everything through, or gives the answer that a test sets. */
class Stage {
  readonly asked: LimitedRequest[] = [];
  readonly settled: { admitted: Admitted; sent: boolean; closeSeconds: number }[] = [];
  readonly errors: unknown[] = [];
  admission: () => Promise<Admission> = async () => this.#admit();
  settling: Promise<void> = Promise.resolve();
  host = "login.example:8443";
  readonly clock = fakeClock();
  readonly answerStore = createRequestLimiter({
    limits: {
      admit: async (request) => {
        this.asked.push(request);
        return await this.admission();
      },
      closeAdmission: async (admitted, given) => {
        this.settled.push({ admitted, ...given });
        await this.settling;
      },
    },
    sender: { hostOf: () => this.host },
    clock: this.clock,
    onError: (error) => void this.errors.push(error),
  });

  #admit(): Admission {
    const { key, client, travelSeconds } = this.asked.at(-1) ?? { key: "", client: "", travelSeconds: 0 };
    return { admitted: { key, client, at: new Date(0), travelSeconds } };
  }
}

function context(limits: string, changes: Partial<RequestContext> = {}): RequestContext {
  const definition = define(`limits: ${limits}`);
  const row = tokenRow({ id: "chain" });
  return { row, owner: tokenRow({ id: "owner" }), definition, client: simClient, clientSecrets: [], ...changes };
}

const at = (host: string) => ({ url: `https://${host}/device` }) as HttpRequest;

describe("limits", () => {
  it.each([
    { limits: "{ cool_down_s: 1 }", key: "token_host:login.example:8443" },
    { limits: "{ per: token_host, spacing_ms: 1 }", key: "token_host:login.example:8443" },
    { limits: "{ per: client, concurrency: 1 }", key: `client:${simClient.id} at login.example:8443` },
    { limits: "{ per: connection, max_per_window: 1 in 1 s }", key: "connection:owner at login.example:8443" },
  ])("of $limits are those of $key", async ({ limits, key }) => {
    const stage = new Stage();
    expect(await stage.answerStore.send(context(limits), async () => granted, refresh)).toBe(granted);
    expect(stage.asked.map((request) => request.key)).toEqual([key]);
    expect(stage.settled).toEqual([{ admitted: expect.objectContaining({ key }), sent: true, closeSeconds: 0 }]);
  });

  it("of clients are shared by all connections of a definition that fixes the client, at the same host", async () => {
    const stage = new Stage();
    await stage.answerStore.send(
      context("{ per: client, concurrency: 1 }", { client: null }),
      async () => granted,
      refresh,
    );
    expect(stage.asked.map(({ key }) => key)).toEqual(["client:own at login.example:8443"]);
  });

  it.each(["token_host", "client", "connection"])(
    "per %s are those of one host: another one's answer closes nothing of it",
    async (per) => {
      const stage = new Stage();
      for (const client of [simClient, null]) {
        const [from, keys] = [context(`{ per: ${per}, cool_down_s: 60 }`, { client }), new Set<string>()];
        for (stage.host of ["hostile.example", "shop.example"]) {
          await stage.answerStore.send(from, async () => busy, refresh);
          keys.add(stage.settled.at(-1)?.admitted.key ?? "");
        }
        expect(keys.size).toBe(2);
      }
    },
  );

  it("ask for what the definition says, for 5 s of travel and 30 s under way", async () => {
    const stage = new Stage();
    const limits = "{ concurrency: 2, spacing_ms: 500, max_per_window: 10 in 600 s }";
    await stage.answerStore.send(context(limits), async () => granted, refresh);
    expect(stage.asked).toMatchObject([
      {
        rules: { concurrency: 2, spacingMs: 500, maxPerWindow: { requests: 10, seconds: 600 } },
        client: simClient.id,
        provider: "own",
        kind: "refresh",
        travelSeconds: 5,
        leaseSeconds: 30,
      },
    ]);
  });

  it.each([
    { is: "a refusal", answer: busy, waits: true },
    { is: "a token, which is stored first", answer: granted, waits: false },
  ])("are told of an answer before it goes on, unless it is a token: $is", async ({ answer, waits }) => {
    const stage = new Stage();
    const told = Promise.withResolvers<void>();
    stage.settling = told.promise;
    let isThrough = false;
    const sent = stage.answerStore.send(context("{ cool_down_s: 60 }"), async () => answer, refresh);
    void sent.then(() => (isThrough = true));
    await setImmediate();
    expect([stage.settled.length, isThrough]).toEqual([1, !waits]);
    told.resolve();
    expect(await sent).toMatchObject(answer);
  });

  it("have no share among clients where each client has limits of its own", async () => {
    const stage = new Stage();
    await stage.answerStore.send(context("{ per: client, concurrency: 1 }"), async () => granted, refresh);
    expect(stage.asked.map(({ provider }) => provider)).toEqual([null]);
  });

  it("are told what has never worked, which comes last", async () => {
    const stage = new Stage();
    const unproven = { cannotWait: false, isProven: false };
    await stage.answerStore.send(context("{ concurrency: 5 }"), async () => granted, unproven);
    expect(stage.asked.map(({ kind }) => kind)).toEqual(["first"]);
  });

  it("hold back what can wait, and say how long", async () => {
    const stage = new Stage();
    stage.admission = async () => ({ admitted: null, waitSeconds: 431 });
    const answer = await stage.answerStore.send(
      context("{ max_per_window: 1 in 600 s }"),
      async () => granted,
      refresh,
    );
    const told = { retryAfterSeconds: 431, isOfClient: true };
    expect(answer).toMatchObject({ failure: { class: "not_sent", code: "limit_reached", ...told } });
  });

  it.each([
    { limits: "{ per: connection, concurrency: 1 }", how: refresh, is: "those of one connection" },
    { limits: "{ concurrency: 1 }", how: { ...refresh, isProven: false }, is: "half of them" },
  ])(
    "say nothing about other refreshes of the client where those that are used up are $is",
    async ({ limits, how }) => {
      const stage = new Stage();
      stage.admission = async () => ({ admitted: null, waitSeconds: 431 });
      const answer = await stage.answerStore.send(context(limits), async () => granted, how);
      expect(answer).toMatchObject({ failure: { code: "limit_reached", isOfClient: false } });
    },
  );

  it.each([
    { is: "the cool-down", retryAfterSeconds: 5, told: 900 },
    { is: "what the provider says, up to an hour", retryAfterSeconds: 86_400, told: 3600 },
  ])("say with the very answer that closes them how long they are closed: $is", async ({ retryAfterSeconds, told }) => {
    const stage = new Stage();
    const refused = { ...busy, failure: { ...busy.failure, retryAfterSeconds } } as TokenAnswer;
    const answer = await stage.answerStore.send(context("{ cool_down_s: 900 }"), async () => refused, refresh);
    expect(answer).toMatchObject({ failure: { code: "rate_limited", closedSeconds: told } });
    expect(stage.settled).toMatchObject([{ sent: true, closeSeconds: told }]);
  });

  describe("of a code that cannot wait", () => {
    const code = { cannotWait: true, isProven: false };

    it("count it, and hear what came of it", async () => {
      const stage = new Stage();
      await stage.answerStore.send(context("{ cool_down_s: 60 }"), async () => busy, code);
      expect(stage.asked.map(({ kind }) => kind)).toEqual(["person"]);
      expect(stage.settled).toMatchObject([{ sent: true, closeSeconds: 60 }]);
    });

    it("have it wait for a moment, and not for long", async () => {
      const stage = new Stage();
      const letThrough = stage.admission;
      const waits = [0.5, 1, 8];
      stage.admission = async () => {
        const waitSeconds = waits.shift();
        return waitSeconds === undefined ? await letThrough() : { admitted: null, waitSeconds };
      };
      expect(await stage.answerStore.send(context("{ spacing_ms: 500 }"), async () => granted, code)).toBe(granted);
      expect(stage.asked.length).toBe(4);
      waits.push(3, 8);
      const held = await stage.answerStore.send(context("{ spacing_ms: 500 }"), async () => granted, code);
      const told = { class: "not_sent", code: "limit_reached", retryAfterSeconds: 8, isOfClient: false };
      expect([held, stage.asked.length]).toEqual([
        expect.objectContaining({ failure: expect.objectContaining(told) }),
        6,
      ]);
    });

    it("send nothing when they cannot be asked", async () => {
      const stage = new Stage();
      stage.admission = () => Promise.reject(new Error("a fault"));
      const answer = await stage.answerStore.send(context("{ cool_down_s: 60 }"), async () => granted, code);
      expect(answer).toMatchObject({ failure: { code: "limit_reached" } });
      expect([stage.settled, stage.errors.map(String)]).toEqual([[], ["Error: a fault"]]);
    });

    it("are not asked where the definition has none", async () => {
      const stage = new Stage();
      await stage.answerStore.send(context("{}"), async () => busy, code);
      expect([stage.asked, stage.settled]).toEqual([[], []]);
    });
  });

  describe("of a request beside the token endpoint that a person is sent to the provider with", () => {
    const own = at("login.example:8443");
    const refused = { ok: false, status: 429, body: null, detail: "", retryAfterSeconds: 120 } satisfies Asked;

    it("count it at the host of the token endpoint, and hear that it is told to go slower", async () => {
      const stage = new Stage();
      const send = stage.answerStore.beside(context("{ cool_down_s: 60 }"));
      expect(await send(own, async () => refused)).toBe(refused);
      expect(stage.asked.map(({ key, kind }) => [key, kind])).toEqual([["token_host:login.example:8443", "person"]]);
      expect(stage.settled).toMatchObject([{ sent: true, closeSeconds: 120 }]);
    });

    it("hold it back, and say when to come again", async () => {
      const stage = new Stage();
      stage.admission = async () => ({ admitted: null, waitSeconds: 431 });
      const sent = stage.answerStore.beside(context("{ cool_down_s: 60 }"))(own, async () =>
        expect.fail("it was sent"),
      );
      const told = { code: "provider_unavailable", context: { connection: "acme", retryAfterSeconds: 431 } };
      await expect(sent).rejects.toMatchObject({ name: "ProviderBusyError", ...told });
    });

    it.each([
      { is: "goes to another host", limits: "{ cool_down_s: 60 }", request: at("api.example") },
      { is: "is of a definition without limits", limits: "{}", request: own },
    ])("do not count what $is", async ({ limits, request }) => {
      const stage = new Stage();
      await stage.answerStore.beside(context(limits))(request, async () => refused);
      expect([stage.asked, stage.settled]).toEqual([[], []]);
    });
  });
});
