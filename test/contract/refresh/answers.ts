import { setTimeout } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { RefreshOutcome } from "../../../src/tokens/refresh.ts";
import { sealedGrant, type StoreStage } from "../store/stage.ts";
import { abandoned, busy, connectExpired, granted, RefreshBench, tokensOf } from "./bench.ts";

/** Runs `bench` while another replica waits for this answer of the provider. */
function during(bench: RefreshBench, row: TokenRow, answer: TokenAnswer) {
  const { promise, resolve } = Promise.withResolvers<RefreshOutcome>();
  const step = async () => {
    resolve(bench.runFrom(row, []));
    await setTimeout(20);
    return answer;
  };
  return { step, outcome: promise };
}

function stopwatch({ clock }: RefreshBench): () => number {
  const startedMs = clock.monotonicMs();
  return () => clock.monotonicMs() - startedMs;
}

/** No answer is lost, and those who wait for one get it: steps 8 to 11 of docs/refresh-protocol.md. */
export function answers(stage: () => StoreStage): void {
  describe("an answer", () => {
    it("whose commit was not acknowledged moves the generation once", async () => {
      const { id } = await connectExpired(stage());
      let commits = 0;
      const loseFirst =
        (rows: StoreStage["rows"]): StoreStage["rows"]["commitRefresh"] =>
        async (key, grant, event) => {
          const stored = await rows.commitRefresh(key, grant, event);
          if (commits++ === 0) throw new BrokerError("storage_unavailable", "the acknowledgement was lost");
          return stored;
        };
      const bench = new RefreshBench(stage(), { rows: (rows) => ({ commitRefresh: loseFirst(rows) }) });
      const outcome = await bench.run(id, [granted({ refreshToken: "second" })]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1], commits]).toEqual(["moved", "second", 2]);
      expect(outcome.row).toMatchObject({ generation: 2, version: 2 });
      expect(bench.seen).toEqual(["commit delayed", "succeeded"]);
      expect(await stage().events(id)).toEqual(["created", "connected", "refreshed"]);
    });

    it("is handed out as soon as it is spooled while the store is gone, kept for as long as it takes, and asked about then", async () => {
      const { id } = await connectExpired(stage());
      let outages = 40;
      const goAway =
        (rows: StoreStage["rows"]): StoreStage["rows"]["commitRefresh"] =>
        async (key, grant, event) => {
          if (outages-- > 0) throw new BrokerError("storage_unavailable", "gone");
          return await rows.commitRefresh(key, grant, event);
        };
      const bench = new RefreshBench(stage(), { rows: (rows) => ({ commitRefresh: goAway(rows) }) });
      const passedMs = stopwatch(bench);
      const outcome = await bench.run(id, [granted({ refreshToken: "second" })]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1], bench.spool.entries.size]).toEqual(["moved", "second", 1]);
      expect(passedMs()).toBeGreaterThanOrEqual(200);
      expect([passedMs() < 1000, bench.followed]).toEqual([true, []]);
      const row = await bench.settledRow(id);
      expect(bench.followed).toEqual([2]);
      expect(passedMs()).toBeGreaterThan(60_000);
      expect([tokensOf(row), row.version]).toEqual([tokensOf(outcome.row), outcome.row?.version]);
      expect([bench.requests, bench.spool.entries.size]).toEqual([["first"], 0]);
    });

    it("that is handed out before it is stored is followed by the next refresh once it is: who needs one waits, who needs none does not", async () => {
      const { id } = await connectExpired(stage());
      let isGone = true;
      const bench = new RefreshBench(stage(), {
        rows: (rows) => ({
          commitRefresh: async (key, grant, event) => {
            if (isGone) throw new BrokerError("storage_unavailable", "gone");
            return await rows.commitRefresh(key, grant, event);
          },
          // Called by the replica that waits.
          readByIds: async (ids) => {
            isGone = false;
            return await rows.readByIds(ids);
          },
        }),
      });
      const { row: handedOut } = await bench.run(id, [granted({ refreshToken: "second" })]);
      if (handedOut === null) throw new Error("nothing was handed out");
      expect([(await bench.runFrom(handedOut, [], "ahead")).row?.generation, isGone]).toEqual([1, true]);
      const outcome = await bench.runFrom(handedOut, [granted({ refreshToken: "third" })]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1], outcome.row?.version]).toEqual(["moved", "third", 3]);
      expect(bench.requests).toEqual(["first", "second"]);
    });

    it("that comes after a person has replaced the grant is dropped, and the person's grant stays", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const replaced = sealedGrant();
      const reconnect = async () => {
        const row = await stage().row(id);
        const given = { ...row, attemptId: "0b9a2f4e-8a53-4a7e-a1c8-3c1a3f2f7e11" };
        await stage().rows.replaceGrant(given, replaced, {
          event: { type: "reconnected", detail: {} },
          exclusive: false,
        });
        return granted();
      };
      const outcome = await bench.run(id, [reconnect]);
      expect(outcome).toMatchObject({ kind: "moved", row: { version: 3, accessToken: replaced.accessToken } });
      expect(bench.seen).toEqual(["came late: unwanted", "succeeded"]);
    });

    it("that comes after the connection was deleted is revoked: nobody will use it", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const remove = async () => {
        await stage().connections.delete(id);
        return granted({ accessToken: "a2", refreshToken: "second" });
      };
      expect(await bench.run(id, [remove])).toEqual({ kind: "failed", row: null });
      await bench.answerStore.idle();
      expect(bench.seen).toEqual(["came late: unwanted", "succeeded"]);
      expect([bench.news.at(-1)?.outcome, bench.revoked]).toEqual(["failed", ["second", "a2"]]);
    });

    it("that comes after another replica took the attempt over waits beside the other's, which stays", async () => {
      const { id } = await connectExpired(stage());
      const [late, other] = [new RefreshBench(stage()), new RefreshBench(stage())];
      const freeze = async () => {
        await stage().set(id, abandoned);
        await other.run(id, [granted({ refreshToken: "the other's" })]);
        return granted({ refreshToken: "the late one's" });
      };
      const outcome = await late.run(id, [freeze]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1]]).toEqual(["moved", "the other's"]);
      expect([late.seen, other.seen]).toEqual([["came late: candidate", "succeeded"], ["succeeded, replay"]]);
      const candidate = await stage().rows.newestCandidate(id, outcome.row?.authorization ?? 0);
      expect(candidate).toMatchObject({ baseGeneration: 1 });
    });
  });

  describe("a lock that somebody else holds", () => {
    it.each(["with messages", "without messages"])(
      "is waited for, %s, and the other's token is the answer",
      async (how) => {
        const before = await connectExpired(stage());
        const { id, generation } = before;
        const other = new RefreshBench(stage());
        const bench = new RefreshBench(stage(), how === "with messages" ? { beside: other } : {});
        if (how !== "with messages") await bench.leases.acquire(`refresh:${id}:${generation}`, 30_000);
        const { step, outcome } = during(bench, before, granted({ accessToken: "the other's" }));
        await other.run(id, [step]);
        const { kind, row } = await outcome;
        expect([kind, tokensOf(row)?.[0], bench.sent]).toEqual(["moved", "the other's", []]);
      },
    );

    it.each(["with messages", "without messages"])(
      "a failure is the answer to who waits too, %s: nobody sends again",
      async (how) => {
        const before = await connectExpired(stage());
        const { id, generation } = before;
        const other = new RefreshBench(stage());
        const bench = new RefreshBench(stage(), how === "with messages" ? { beside: other } : {});
        if (how !== "with messages") await bench.leases.acquire(`refresh:${id}:${generation}`, 30_000);
        const { step, outcome } = during(bench, before, busy);
        await other.run(id, [step]);
        expect(await outcome).toMatchObject({ kind: "failed", row: { lastErrorCode: "rate_limited" } });
        expect(bench.sent).toEqual([]);
      },
    );

    it("by nobody who sends is passed by after a second", async () => {
      const { id, generation } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      await bench.leases.acquire(`refresh:${id}:${generation}`, 30_000);
      const startedMs = bench.clock.monotonicMs();
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect(bench.clock.monotonicMs() - startedMs).toBeGreaterThanOrEqual(1000);
      expect(bench.clock.monotonicMs() - startedMs).toBeLessThan(2000);
    });
  });
}
