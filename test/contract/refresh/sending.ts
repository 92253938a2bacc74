import { setTimeout } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { StoreStage } from "../store/stage.ts";
import { abandoned, busy, connectExpired, dead, failed, granted, RefreshBench, silent, tokensOf } from "./bench.ts";

const goneStore = () => Promise.reject(new BrokerError("storage_unavailable", "gone"));

async function grantedSlowly() {
  await setTimeout(20);
  return granted({ accessToken: "a2" });
}

/** One permit, one send, and what becomes of it: steps 1 to 8 of docs/refresh-protocol.md. */
export function sending(stage: () => StoreStage): void {
  describe("a refresh", () => {
    it("spends the refresh token once, under its own permit, stores what came and tells the others", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const outcome = await bench.run(id, [granted({ accessToken: "a2", refreshToken: "second" })]);
      expect([outcome.kind, tokensOf(outcome.row)]).toEqual(["moved", ["a2", "second"]]);
      expect(outcome.row).toMatchObject({ generation: 2, version: 2, attemptId: null, status: "connected" });
      expect(bench.requests).toEqual(["first"]);
      expect(bench.sent[0]?.permit).toBe(outcome.row?.lastAttemptId);
      expect(bench.news.map((news) => news.outcome)).toEqual(["started", "stored"]);
      expect(new Set(bench.news.map(({ attempt }) => attempt))).toEqual(new Set([outcome.row?.lastAttemptId]));
      expect(bench.seen).toEqual(["succeeded"]);
    });

    it("keeps a refresh token that the answer does not replace", async () => {
      const { id } = await connectExpired(stage());
      const rest = { refreshExpiry: { kind: "unstated" }, captured: {} } as const;
      const grant = {
        accessToken: "a2",
        tokenType: "Bearer",
        accessExpiry: { kind: "in", seconds: 300 },
        ...rest,
      } as const;
      const answer = { kind: "granted", grant } as const;
      const { row } = await new RefreshBench(stage()).run(id, [answer]);
      expect(tokensOf(row)).toEqual(["a2", "first"]);
    });

    it("gives its lock back, whatever happens", async () => {
      const { id, generation } = await connectExpired(stage());
      const key = `refresh:${id}:${generation}`;
      const bench = new RefreshBench(stage(), { rows: () => ({ takePermit: goneStore }) });
      await expect(bench.run(id, [])).rejects.toThrow("gone");
      expect((await bench.leases.acquire(key, 1000)).state).toBe("owned");
      expect(bench.sent).toEqual([]);
    });

    it("of eight replicas without a lock between them, one sends and all have the new token", async () => {
      const row = await connectExpired(stage());
      const replicas = Array.from({ length: 8 }, () => new RefreshBench(stage()));
      const outcomes = await Promise.all(replicas.map((bench) => bench.runFrom(row, [grantedSlowly])));
      expect(replicas.flatMap(({ requests }) => requests)).toEqual(["first"]);
      expect(outcomes.map((outcome) => [outcome.kind, tokensOf(outcome.row)?.[0]])).toEqual(
        outcomes.map(() => ["moved", "a2"]),
      );
    });

    it("of a row that has lost its last way to a token sends nothing and frees it", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const before = await stage().row(id);
      await stage().set(id, "refresh_token_sealed = NULL");
      const outcome = await bench.refresh(before, "required");
      expect([outcome.kind, outcome.row?.attemptId, bench.sent]).toEqual(["failed", null, []]);
    });
  });

  describe("the time to send", () => {
    const suspensions: { is: string; pass: (clock: RefreshBench["clock"]) => void }[] = [
      { is: "passed on both clocks", pass: (clock) => clock.advance(2000) },
      { is: "passed while the machine was suspended", pass: (clock) => (clock.wall += 2000) },
      { is: "passed while somebody set the clock back", pass: (clock) => (clock.monotonic += 2000) },
      { is: "cannot be told, since the clock was set back", pass: (clock) => (clock.wall -= 2000) },
    ];

    it.each(suspensions)("$is: the permit goes back as if not taken, and all starts over", async ({ pass }) => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      let times = 0;
      bench.beforeSending = () => {
        if (times++ === 0) pass(bench.clock);
      };
      const outcome = await bench.run(id, [granted()]);
      expect([outcome.kind, times, bench.requests]).toEqual(["moved", 2, ["first"]]);
      expect(await stage().events(id)).toEqual(["created", "connected", "refreshed"]);
    });

    it("just not passed is enough", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      bench.beforeSending = () => bench.clock.advance(1999);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect(bench.requests).toHaveLength(1);
    });

    it("that passes a second time is a failure that backs off, and nothing was ever sent", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      let times = 0;
      bench.beforeSending = () => {
        times++;
        bench.clock.advance(5000);
      };
      const { kind, row } = await bench.run(id, []);
      expect([kind, times, bench.sent]).toEqual(["failed", 2, []]);
      expect(row).toMatchObject({ attemptId: null, status: "connected", lastErrorCode: "send_window_passed" });
      expect(row?.backoffUntil).not.toBeNull();
    });

    it("that passes on a replay leaves the first send unresolved", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      bench.beforeSending = () => bench.clock.advance(5000);
      const outcome = await bench.run(id, []);
      expect(outcome.row).toMatchObject({ attemptOutcome: "unknown", status: "connected" });
      expect(bench.requests).toEqual(["first"]);
    });
  });

  describe("a failure", () => {
    it("before anything was sent gives the permit back, with a back-off", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const outcome = await bench.run(id, [failed({ class: "not_sent", code: "connect_failed" })]);
      expect(outcome).toMatchObject({ kind: "failed", failure: { code: "connect_failed" } });
      expect(outcome.row).toMatchObject({ attemptId: null, status: "connected", lastErrorCode: "connect_failed" });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first"]);
      expect(bench.news.map((news) => news.outcome)).toEqual(["started", "failed"]);
    });

    it("to build the request gives the permit back as well, and says what is lacking", async () => {
      const { id } = await connectExpired(stage(), { clientRef: null });
      const bench = new RefreshBench(stage());
      const { row } = await bench.run(id, []);
      expect(row).toMatchObject({ attemptId: null, status: "connected", lastErrorCode: "connect_failed" });
      expect([row?.lastErrorDetail, bench.sent]).toEqual([expect.stringMatching(/client/), []]);
    });

    it("to find the provider's definition takes no permit, and gives the lock back", async () => {
      const { id, generation } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { isKnown: false });
      await expect(bench.run(id, [])).rejects.toThrow(/no definition of the provider "own"/);
      expect((await stage().row(id)).attemptId).toBeNull();
      expect((await bench.leases.acquire(`refresh:${id}:${generation}`, 1000)).state).toBe("owned");
    });

    it("that says nothing of the grant ten times in a row kills nothing", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      for (let time = 0; time < 10; time++) {
        await bench.run(id, [busy]);
        await stage().set(id, "backoff_until = NULL");
      }
      expect(await stage().row(id)).toMatchObject({ status: "connected", consecutiveFailures: 10, attemptId: null });
      expect((await bench.run(id, [granted()])).row).toMatchObject({ version: 2, consecutiveFailures: 0 });
    });

    it("of the grant ends it, and nothing is sent any more", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      expect((await bench.run(id, [dead])).row).toMatchObject({
        status: "needs_reauthorization",
        lastErrorCode: "invalid_grant",
        attemptId: null,
      });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first"]);
    });

    it("whose outcome nobody knows keeps the permit and the raw answer, sealed", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const unreadable = failed({ class: "unknown", code: "unreadable_answer", rawAnswer: '{"odd":"answer"}' });
      const { row } = await bench.run(id, [unreadable]);
      expect(row).toMatchObject({ attemptOutcome: "unknown", attemptId: bench.sent[0]?.permit, status: "connected" });
      const [sealed] = await stage().query<{ answer: Uint8Array }>(
        "SELECT answer_sealed AS answer FROM unread_answers WHERE connection_id = $1::uuid",
        id,
      );
      expect(sealed?.answer.length).toBeGreaterThan(20);
      expect(Buffer.from(sealed?.answer ?? []).includes("odd")).toBe(false);
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first"]);
    });
  });
}
