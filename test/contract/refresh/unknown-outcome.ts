import { describe, expect, it } from "vitest";
import type { StoreStage } from "../store/stage.ts";
import {
  abandoned,
  badSecret,
  busy,
  connectExpired,
  dead,
  failed,
  granted,
  RefreshBench,
  silent,
  tokensOf,
} from "./bench.ts";

/** A connection that was refreshed without an answer. */
async function unresolved(stage: StoreStage, rules?: string) {
  const { id } = await connectExpired(stage);
  const bench = new RefreshBench(stage, rules === undefined ? {} : { rules });
  await bench.run(id, [silent]);
  return { id, bench };
}

/** An unknown outcome, and what a crash leaves behind: docs/refresh-protocol.md, "Replay and takeover". */
export function unknownOutcome(stage: () => StoreStage): void {
  describe("a send whose outcome nobody knows", () => {
    it("is taken over after its lease and quiet period: the same token once more, and not before", async () => {
      const { id, bench } = await unresolved(stage());
      await stage().set(id, "lease_until = clock_timestamp() - interval '1 second', backoff_until = NULL");
      expect((await bench.run(id, [])).kind).toBe("failed");
      await stage().set(id, abandoned);
      const outcome = await bench.run(id, [granted({ refreshToken: "second" })]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1], bench.requests]).toEqual([
        "moved",
        "second",
        ["first", "first"],
      ]);
      expect(bench.seen).toEqual(["outcome_unknown", "succeeded, replay"]);
    });

    it("that nobody reported, since its process died, is taken over just so", async () => {
      const { id } = await connectExpired(stage());
      await stage().set(id, `attempt_id = gen_random_uuid(), ${abandoned}`);
      const bench = new RefreshBench(stage());
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect([bench.requests, bench.seen]).toEqual([["first"], ["succeeded, replay"]]);
    });

    it("is left alone where a second use kills the family, as long as nobody needs a new token", async () => {
      const { id, bench } = await unresolved(stage(), "{ reuse: kills_family }");
      await stage().set(id, `${abandoned}, expires_at = clock_timestamp() + interval '5 minutes'`);
      expect((await bench.run(id, [], "ahead")).kind).toBe("failed");
      expect(bench.requests).toEqual(["first"]);
      expect((await bench.run(id, [granted()], "required")).kind).toBe("moved");
    });

    it("is not waited for by who needs nothing yet, once its lease is over", async () => {
      const { id } = await connectExpired(stage());
      const live = "expires_at = clock_timestamp() + interval '5 minutes'";
      await stage().set(id, `attempt_id = gen_random_uuid(), ${abandoned}, ${live}`);
      await stage().set(id, "lease_until = clock_timestamp() - interval '1 second'");
      const bench = new RefreshBench(stage());
      const startedMs = bench.clock.monotonicMs();
      expect((await bench.run(id, [], "ahead")).kind).toBe("failed");
      expect([bench.sent, bench.clock.monotonicMs() - startedMs]).toEqual([[], 0]);
    });

    it("is left alone by who has not had ten seconds of Postgres without a gap", async () => {
      const { id } = await unresolved(stage(), "{ reuse: safe }");
      await stage().set(id, abandoned);
      const bench = new RefreshBench(stage(), { rules: "{ reuse: safe }", uninterruptedMs: 9999 });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.sent).toEqual([]);
    });

    it.each([
      ["refused for now", busy],
      ["not sent", failed({ class: "not_sent", code: "connect_failed" })],
      ["refused for the client's sake", badSecret],
    ])(
      "stays unresolved when its replay is %s, and is replayed again after a quiet period of its own",
      async (_is, answer) => {
        const { id, bench } = await unresolved(stage());
        await stage().set(id, abandoned);
        const { row } = await bench.run(id, [answer]);
        expect(row).toMatchObject({
          attemptOutcome: "unknown",
          attemptId: bench.sent[1]?.permit,
          consecutiveFailures: 2,
        });
        expect(row?.leaseUntil?.getTime()).toBeLessThanOrEqual((row?.now.getTime() ?? 0) + 1);
        await stage().set(id, "backoff_until = NULL");
        expect((await bench.run(id, [])).kind).toBe("failed");
        await stage().set(id, "lease_until = lease_until - interval '10 seconds'");
        expect((await bench.run(id, [granted()])).kind).toBe("moved");
        expect(bench.seen.at(-1)).toBe("succeeded, replay");
      },
    );

    it("is lost with invalid_grant on its replay, and said to be", async () => {
      const { id, bench } = await unresolved(stage());
      await stage().set(id, abandoned);
      const { row } = await bench.run(id, [dead]);
      expect(row).toMatchObject({
        status: "needs_reauthorization",
        lastErrorCode: "refresh_outcome_lost",
        attemptId: null,
      });
      expect(bench.seen).toEqual(["outcome_unknown", "invalid_grant, replay", "lost"]);
    });

    it("whose row others hold is left to them, and is not taken over before they have had their time", async () => {
      const { id } = await unresolved(stage());
      await stage().set(id, abandoned);
      const bench = new RefreshBench(stage(), { rows: () => ({ takePermit: async () => null }) });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect([bench.sent, new Set(bench.busyRows)]).toEqual([[], new Set([id])]);
    });

    it("whose replay backs off is not asked for again and again", async () => {
      let asked = 0;
      const { id } = await unresolved(stage());
      await stage().set(id, abandoned);
      await stage().set(id, "backoff_until = clock_timestamp() + interval '5 minutes'");
      const takePermit =
        (rows: StoreStage["rows"]): StoreStage["rows"]["takePermit"] =>
        async (request) => {
          asked++;
          return await rows.takePermit(request);
        };
      const bench = new RefreshBench(stage(), { rows: (rows) => ({ takePermit: takePermit(rows) }) });
      const startedMs = bench.clock.monotonicMs();
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect([asked, bench.sent, bench.clock.monotonicMs() - startedMs]).toEqual([1, [], 0]);
    });

    it("of a connection that was disabled meanwhile is not asked for again and again either", async () => {
      const { id, bench } = await unresolved(stage());
      await stage().set(id, abandoned);
      const before = await stage().row(id);
      await stage().set(id, "status = 'disabled'");
      const outcome = await bench.refresh(before, "required");
      expect([outcome.kind, outcome.row?.status, bench.requests]).toEqual(["failed", "disabled", ["first"]]);
    });
  });
}
