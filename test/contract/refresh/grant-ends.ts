import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import { secretsPlace } from "../../../src/tokens/seal.ts";
import { freely, type StoreStage } from "../store/stage.ts";
import {
  abandoned,
  badSecret,
  busy,
  connectExpired,
  dead,
  failed,
  granted,
  RefreshBench,
  refusedWith,
  silent,
  type Step,
  tokensOf,
  unexplained,
  vault,
} from "./bench.ts";

const forbidden = failed({ class: "refused_for_now", code: "provider_unavailable", status: 403, isUnexplained: true });
const explained = failed({ class: "refused_for_now", code: "provider_unavailable", status: 400 });
const overloaded = failed({ class: "refused_for_now", code: "provider_unavailable", status: 503 });
const noConnection = failed({ class: "not_sent", code: "connect_failed" });
const anHourAgo = "refused_since = refused_since - interval '1 hour'";

/** The same answer to one attempt after the other, as if each back-off were over. */
async function refuse(id: string, benches: RefreshBench[], answers: (TokenAnswer | Step)[]): Promise<void> {
  for (const [index, answer] of answers.entries()) {
    const bench = benches[index % benches.length];
    await bench?.stage.set(id, "backoff_until = NULL");
    await bench?.run(id, [answer]);
  }
}

/** A connection with the attention `probably_dead`. */
async function probablyDead(stage: StoreStage) {
  const { id } = await connectExpired(stage);
  const bench = new RefreshBench(stage);
  await refuse(id, [bench], [unexplained, unexplained, unexplained, unexplained]);
  await stage.set(id, anHourAgo);
  await refuse(id, [bench], [unexplained]);
  return { id, bench };
}

/** A connection of whose grant the provider says that it has ended. */
async function ended(stage: StoreStage, rules = "{}", given: Parameters<typeof connectExpired>[1] = {}) {
  const { id } = await connectExpired(stage, given);
  const bench = new RefreshBench(stage, { rules });
  await bench.run(id, [dead]);
  return { id, bench };
}

const lapsed = "lease_until = clock_timestamp() - interval '11 seconds'";
const aMinuteAgo = "retried_at = retried_at - interval '61 seconds'";

/** What people may say about the end of a grant, and what the broker finds out about it by itself. */
export function ends(stage: () => StoreStage): void {
  describe("a refusal that nobody understands", () => {
    it("tells of a grant that is probably dead when it has come five times in an hour: once, and the status stays", async () => {
      const { id, bench } = await probablyDead(stage());
      const row = await stage().row(id);
      expect(row).toMatchObject({ status: "connected", attemptId: null, refusals: 5 });
      expect(row.probablyDeadSince).not.toBeNull();
      await refuse(id, [bench], [unexplained]);
      expect((await stage().row(id)).probablyDeadSince).toEqual(row.probablyDeadSince);
      expect(bench.seen.filter((line) => line === "probably dead")).toHaveLength(1);
      expect((await stage().events(id)).filter((type) => type === "probably_dead")).toHaveLength(1);
    });

    it.each([
      { what: "four of them", answers: 4, moved: anHourAgo },
      { what: "five within the hour", answers: 5, moved: "refused_since = refused_since - interval '59 minutes'" },
      {
        what: "five while the access token lives",
        answers: 5,
        moved: `${anHourAgo}, expires_at = clock_timestamp() + interval '1 hour'`,
      },
    ])("$what tell nothing", async ({ answers, moved }) => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      await refuse(
        id,
        [bench],
        Array.from({ length: answers - 1 }, () => unexplained),
      );
      await stage().set(id, moved);
      await refuse(id, [bench], [unexplained]);
      expect(await stage().row(id)).toMatchObject({ refusals: answers, probablyDeadSince: null });
      expect(bench.seen).not.toContain("probably dead");
    });

    it("is counted by all replicas together, whatever else fails in between", async () => {
      const { id } = await connectExpired(stage());
      const benches = [new RefreshBench(stage()), new RefreshBench(stage())];
      await refuse(id, benches, [unexplained, busy, unexplained, overloaded, badSecret, noConnection, unexplained]);
      await refuse(id, benches, [silent]);
      await stage().set(id, `${abandoned}, ${anHourAgo}`);
      await refuse(id, benches, [explained]);
      // Both are answers to replays: the outcome of the attempt's first send stays unknown.
      for (const bench of benches) {
        await stage().set(id, abandoned);
        await refuse(id, [bench], [unexplained]);
      }
      const row = await stage().row(id);
      expect(row).toMatchObject({ status: "connected", refusals: 5, attemptOutcome: "unknown" });
      expect(row.probablyDeadSince).not.toBeNull();
    });

    it("that is another one begins anew", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      await refuse(id, [bench], [unexplained, unexplained, unexplained, unexplained]);
      await stage().set(id, anHourAgo);
      await refuse(id, [bench], [forbidden, unexplained]);
      expect(await stage().row(id)).toMatchObject({ refusals: 1, probablyDeadSince: null });
    });

    it("is forgotten with the next token", async () => {
      const { id, bench } = await probablyDead(stage());
      await refuse(id, [bench], [granted()]);
      expect(await stage().row(id)).toMatchObject({ refusals: 0, probablyDeadSince: null });
      await refuse(id, [bench], [unexplained]);
      expect(await stage().row(id)).toMatchObject({ refusals: 1, probablyDeadSince: null });
    });
  });

  describe("a connection that is probably dead", () => {
    it("is ended by one call", async () => {
      const { id, bench } = await probablyDead(stage());
      await bench.grantEnds.end(id, "k1");
      const row = await stage().row(id);
      expect(row).toMatchObject({
        status: "needs_reauthorization",
        attemptId: null,
        lastErrorCode: "provider_unavailable",
      });
      expect((await stage().events(id)).at(-1)).toBe("needs_reauthorization");
      expect((await refusedWith(bench.grantEnds.end(id, "k1")))?.code).toBe("conflict");
    });

    it("is not ended while its refresh token may be on its way", async () => {
      const { id, bench } = await probablyDead(stage());
      const whileSent = async () => {
        expect((await refusedWith(bench.grantEnds.end(id, "k1")))?.code).toBe("refresh_in_progress");
        return granted();
      };
      await refuse(id, [bench], [whileSent]);
      expect(await stage().row(id)).toMatchObject({ status: "connected", probablyDeadSince: null });
    });

    it("is ended with the permit of an attempt whose outcome nobody knows, once that has run out", async () => {
      const { id, bench } = await probablyDead(stage());
      await refuse(id, [bench], [silent]);
      expect((await refusedWith(bench.grantEnds.end(id, "k1")))?.code).toBe("refresh_in_progress");
      await stage().set(id, lapsed);
      await bench.grantEnds.end(id, "k1");
      expect(await stage().row(id)).toMatchObject({ status: "needs_reauthorization", attemptId: null });
    });

    it("no other is ended so", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      expect((await refusedWith(bench.grantEnds.end(id, "k1")))?.code).toBe("conflict");
      expect((await stage().row(id)).status).toBe("connected");
    });
  });

  describe("an ended connection whose refresh token is tried once more", () => {
    it("lives on where that works", async () => {
      const { id, bench } = await ended(stage());
      const answer = granted({ refreshToken: "second" });
      const whileSent = async () => {
        expect((await stage().row(id)).status).toBe("needs_reauthorization");
        return answer;
      };
      expect(await bench.retry(id, [whileSent])).toBeNull();
      const row = await stage().row(id);
      expect([tokensOf(row)?.[1], bench.requests]).toEqual(["second", ["first", "first"]]);
      expect(row).toMatchObject({ status: "connected", attemptId: null, lastErrorCode: null });
      expect((await stage().events(id)).slice(-3)).toEqual(["needs_reauthorization", "retried", "refreshed"]);
    });

    it("has ended as before where it does not, whatever is answered", async () => {
      for (const [answer, code] of [
        [dead, "needs_reauthorization"],
        [busy, "provider_unavailable"],
        [badSecret, "client_rejected"],
        [unexplained, "provider_rejected"],
        [noConnection, "provider_unavailable"],
      ] as const) {
        const { id, bench } = await ended(stage());
        const before = await stage().row(id);
        expect((await bench.retry(id, [answer]))?.code).toBe(code);
        const { now: _now, retriedAt, ...after } = await stage().row(id);
        expect(retriedAt).not.toBeNull();
        expect({ ...before, ...after }).toEqual({ ...before, versionFloor: before.version });
        expect((await stage().events(id)).slice(-2)).toEqual(["retried", "retry_failed"]);
      }
    });

    it("is asked for by one of four replicas at once, and once a minute", async () => {
      const { id } = await ended(stage());
      const first = new RefreshBench(stage());
      const benches = [first, ...Array.from({ length: 3 }, () => new RefreshBench(stage(), { beside: first }))];
      const codes = await Promise.all(benches.map(async (bench) => (await bench.retry(id, [busy]))?.code));
      expect(benches.flatMap(({ sent }) => sent)).toHaveLength(1);
      expect(codes.filter((code) => code !== "refresh_in_progress" && code !== "rate_limited")).toEqual([
        "provider_unavailable",
      ]);
      const again = await first.retry(id, [busy]);
      expect(again?.code).toBe("rate_limited");
      expect(again?.context.retryAfterSeconds).toBeLessThanOrEqual(60);
      await stage().set(id, aMinuteAgo);
      const next = new RefreshBench(stage());
      expect([await next.retry(id, [granted()]), next.requests]).toEqual([null, ["first"]]);
    });

    it("is not tried again while nobody knows what came of it, and has ended as before when that lapses", async () => {
      const { id, bench } = await ended(stage());
      expect((await bench.retry(id, [silent]))?.code).toBe("provider_unavailable");
      await stage().set(id, aMinuteAgo);
      expect((await bench.retry(id, []))?.code).toBe("refresh_in_progress");
      await bench.grantEnds.lapse();
      expect(await stage().row(id)).toMatchObject({ attemptOutcome: "unknown", status: "needs_reauthorization" });
      await stage().set(id, lapsed);
      // A replica that has had Postgres only for a moment leaves the row to those that wait to store an answer.
      await new RefreshBench(stage(), { uninterruptedMs: 9999 }).grantEnds.lapse();
      expect(await stage().row(id)).toMatchObject({ attemptOutcome: "unknown" });
      await bench.grantEnds.lapse();
      expect(await stage().row(id)).toMatchObject({ attemptId: null, status: "needs_reauthorization" });
      expect(await bench.retry(id, [granted()])).toBeNull();
      expect(bench.requests).toEqual(["first", "first", "first"]);
    });

    it("lives on by an answer that comes after the retry has lapsed", async () => {
      const { id, bench } = await ended(stage());
      const late = async () => {
        await stage().set(id, lapsed);
        await bench.grantEnds.lapse();
        return granted({ refreshToken: "late" });
      };
      expect(await bench.retry(id, [late])).toBeNull();
      const row = await bench.settledRow(id);
      expect([row.status, tokensOf(row)?.[1]]).toEqual(["connected", "late"]);
      expect(bench.seen).toContain("came late: promoted");
    });

    it("lives on by the answer to the retry before that waits in a spool, and nothing is sent", async () => {
      const { id } = await ended(stage());
      const answers = { away: true };
      const gone = new RefreshBench(stage(), {
        rows: (rows) => ({
          commitRefresh: async (...given) =>
            answers.away
              ? await Promise.reject(new BrokerError("storage_unavailable", "gone"))
              : await rows.commitRefresh(...given),
        }),
      });
      expect(await gone.retry(id, [granted({ refreshToken: "spooled" })])).toBeNull();
      expect(gone.spool.entries.size).toBe(1);
      await stage().set(id, `${lapsed}, ${aMinuteAgo}`);
      const other = new RefreshBench(stage(), { beside: gone });
      await other.grantEnds.lapse();
      expect(await other.retry(id, [])).toBeNull();
      expect([other.sent, tokensOf(await stage().row(id))?.[1]]).toEqual([[], "spooled"]);
      answers.away = false;
      await gone.answerStore.idle();
    });

    it("logs in with no password", async () => {
      const { id } = await connectExpired(stage(), { grant: "password" });
      const row = await stage().row(id);
      const credentials = vault.sealCredentials({ username: "u", password: "p" }, secretsPlace(row, { revision: 1 }));
      await stage().connections.update(row, { credentials }, freely);
      const bench = new RefreshBench(stage());
      await bench.run(id, [dead, dead]);
      expect((await bench.retry(id, [dead]))?.code).toBe("needs_reauthorization");
      expect(bench.requests).toEqual(["first", "password", "first"]);
    });

    it("keeps what stands of a lost answer: should it still come, it is stored", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      await bench.run(id, [dead]);
      expect((await bench.retry(id, [dead]))?.code).toBe("needs_reauthorization");
      expect(await stage().row(id)).toMatchObject({ lastErrorCode: "refresh_outcome_lost" });
      expect(bench.seen.filter((line) => line === "lost")).toHaveLength(1);
    });

    it("is held where its database has gone back in time", async () => {
      const { id, bench } = await ended(stage());
      const row = await stage().row(id);
      bench.marks.raise(id, { ...row, generation: row.generation + 1 });
      expect((await bench.retry(id, []))?.code).toBe("conflict");
      expect(bench.requests).toEqual(["first"]);
    });

    it.each([
      { when: "nobody knows whose accounts they are", own: null, others: null, rules: "{}", code: "conflict" },
      { when: "its account is not known", own: null, others: "b", rules: "{}", code: "conflict" },
      { when: "they are the same account's", own: "a", others: "a", rules: "{}", code: "conflict" },
      {
        when: "its window of grace is over",
        own: "a",
        others: "a",
        rules: "{ reuse: grace, grace_s: 600 }",
        code: "conflict",
      },
      { when: "they are different accounts'", own: "a", others: "b", rules: "{}", code: undefined },
      { when: "a second use ends nothing", own: "a", others: "a", rules: "{ reuse: dead }", code: undefined },
      { when: "no refresh token is ever spent", own: "a", others: "a", rules: "{ rotation: never }", code: undefined },
    ])("beside another connection of the client, when $when: $code", async ({ own, others, rules, code }) => {
      const { id, bench } = await ended(stage(), rules);
      const { clientRef } = await stage().row(id);
      const other = await connectExpired(stage(), { clientRef }, { refreshToken: `other ${randomUUID()}` });
      await stage().set(id, `account = ${own === null ? "NULL" : `'${own}'`}`);
      await stage().set(other.id, `account = ${others === null ? "NULL" : `'${others}'`}`);
      expect((await bench.retry(id, code === undefined ? [granted()] : []))?.code).toBe(code);
      if (code !== undefined) expect(await bench.retry(id, [granted()], { by: "k1", force: true })).toBeNull();
    });

    it.each([
      { what: "connected", change: "status = 'connected', enabled_status = 'connected'", code: "conflict" },
      { what: "pending", change: "status = 'pending', enabled_status = 'pending'", code: "conflict" },
      { what: "without a refresh token", change: "refresh_token_sealed = NULL", code: "grant_not_applicable" },
      { what: "held after a restore", change: "gone_back_from = 7", code: "conflict" },
    ])("is not one that is $what", async ({ change, code }) => {
      const { id, bench } = await ended(stage());
      await stage().set(id, change);
      expect((await bench.retry(id, []))?.code).toBe(code);
      expect((await stage().row(id)).retriedAt).toBeNull();
    });

    it("is not one that is disabled", async () => {
      const { id, bench } = await ended(stage());
      await stage().connections.update(await stage().row(id), { disabled: true }, freely);
      expect((await bench.retry(id, []))?.code).toBe("connection_disabled");
      expect((await stage().row(id)).retriedAt).toBeNull();
    });
  });
}
