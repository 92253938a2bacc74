import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import { openRecord, openTokens, placeOf } from "../../../src/tokens/seal.ts";
import { sealedGrant, type StoreStage } from "../store/stage.ts";
import {
  abandoned,
  busy,
  connectExpired,
  dead,
  granted,
  RefreshBench,
  silent,
  type Step,
  tokensOf,
  vault,
} from "./bench.ts";

const goneStore = () => Promise.reject(new BrokerError("storage_unavailable", "gone"));

const withoutCandidates = () => ({ addCandidate: () => Promise.reject(new Error("odd")) });

/** A store that takes no answers until it is told to. */
function awayFor(answers: { away: boolean }) {
  return {
    rows: (rows: StoreStage["rows"]) => ({
      commitRefresh: async (...given: Parameters<typeof rows.commitRefresh>) =>
        answers.away ? await goneStore() : await rows.commitRefresh(...given),
    }),
  };
}

/** While this answer is on its way, the attempt is taken over and `meanwhile` happens. */
function late(
  stage: StoreStage,
  id: string,
  { answer, meanwhile }: { answer: TokenAnswer; meanwhile: () => Promise<unknown> },
): Step {
  return async () => {
    await stage.set(id, abandoned);
    await meanwhile();
    return answer;
  };
}

/** A connection whose two answers to one refresh token both live: "the other's" is the newest set, "the late one's" waits. */
async function withCandidate(stage: StoreStage) {
  const { id } = await connectExpired(stage);
  const [frozen, other] = [new RefreshBench(stage), new RefreshBench(stage)];
  const meanwhile = async () => await other.run(id, [granted({ refreshToken: "the other's" })]);
  const answer = granted({ refreshToken: "the late one's" });
  await frozen.run(id, [late(stage, id, { answer, meanwhile })]);
  return { id, bench: new RefreshBench(stage) };
}

async function reconnect(stage: StoreStage, id: string): Promise<void> {
  const row = await stage.row(id);
  const event = { type: "reconnected" as const, detail: {} };
  const place = placeOf({ ...row, generation: row.generation + 1 });
  const sealed = sealedGrant(vault.sealTokens({ accessToken: "a person's", refreshToken: "a person's own" }, place));
  await stage.rows.replaceGrant({ ...row, attemptId: randomUUID() }, sealed, { event, exclusive: false });
}

/** Answers that come when their row has changed: steps 8 and 9, and "Where an answer goes". */
export function lateAnswers(stage: () => StoreStage): void {
  describe("of two answers inside a grace window", () => {
    it("both sets are kept: the one is served, the other waits, sealed", async () => {
      const { id } = await withCandidate(stage());
      const row = await stage().row(id);
      expect([tokensOf(row)?.[1], row.status]).toEqual(["the other's", "connected"]);
      const candidate = await stage().rows.newestCandidate(id, row.authorization);
      const place = { connectionId: id, generation: candidate?.baseGeneration ?? -1 };
      const record = openRecord(vault, candidate?.record ?? new Uint8Array(), place);
      expect(openTokens(vault, record).refreshToken).toBe("the late one's");
    });

    it("the waiting one takes over where the other is refused for good, under a permit of its own", async () => {
      const { id, bench } = await withCandidate(stage());
      const { kind, row } = await bench.run(id, [dead, granted({ refreshToken: "third" })]);
      expect([kind, tokensOf(row)?.[1], row?.status]).toEqual(["moved", "third", "connected"]);
      expect(bench.requests).toEqual(["the other's", "the late one's"]);
      expect(new Set(bench.sent.map(({ permit }) => permit)).size).toBe(2);
      expect(bench.sent[1]?.permit).toBe(row?.lastAttemptId);
      expect(await stage().rows.newestCandidate(id, row?.authorization ?? 0)).toBeNull();
    });

    it("the connection ends only when all that waits was refused too, newest first, each once", async () => {
      const { id, bench } = await withCandidate(stage());
      const { record } = (await stage().rows.newestCandidate(id, 1)) ?? { record: new Uint8Array() };
      const older = { attemptId: randomUUID(), connectionId: id, authorization: 1, baseGeneration: 1, record };
      await stage().rows.addCandidate(older, {});
      await stage().query(
        `UPDATE candidates SET created_at = created_at - interval '1 hour' WHERE attempt_id = $1::uuid RETURNING 1 AS done`,
        older.attemptId,
      );
      const { row } = await bench.run(id, [dead, dead, dead]);
      expect(row).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "invalid_grant", attemptId: null });
      expect(bench.requests).toEqual(["the other's", "the late one's", "the late one's"]);
      expect(await stage().rows.newestCandidate(id, 1)).toBeNull();
    });

    it("nothing waits in vain: a refusal for now tries no other set", async () => {
      const { id, bench } = await withCandidate(stage());
      await bench.run(id, [busy]);
      expect(bench.requests).toEqual(["the other's"]);
      expect(await stage().rows.newestCandidate(id, 1)).not.toBeNull();
    });

    it("a waiting set whose trial has no known outcome is tried again by the rules, not another beside it", async () => {
      const { id, bench } = await withCandidate(stage());
      const { row } = await bench.run(id, [dead, silent]);
      expect(row).toMatchObject({ status: "connected", attemptOutcome: "unknown", attemptReplays: 0 });
      expect((await bench.run(id, [])).kind).toBe("failed");
      await stage().set(id, abandoned);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect(bench.requests).toEqual(["the other's", "the late one's", "the late one's"]);
    });

    it("who lost the permit meanwhile tries nothing, and what waits goes on waiting", async () => {
      const { id, bench } = await withCandidate(stage());
      const lose = async () => {
        await stage().set(id, "attempt_id = gen_random_uuid()");
        return dead;
      };
      await bench.run(id, [lose]);
      expect(bench.requests).toEqual(["the other's"]);
      expect(await stage().rows.newestCandidate(id, 1)).not.toBeNull();
    });

    it("who loses the permit just then leaves what waits to the others", async () => {
      const { id } = await withCandidate(stage());
      const losing = (rows: StoreStage["rows"]): Partial<StoreStage["rows"]> => ({
        tryCandidate: async (...given) => {
          await stage().set(id, "attempt_id = gen_random_uuid()");
          return await rows.tryCandidate(...given);
        },
      });
      const bench = new RefreshBench(stage(), { rows: losing });
      await bench.run(id, [dead]);
      expect(bench.requests).toEqual(["the other's"]);
      expect(await stage().rows.newestCandidate(id, 1)).not.toBeNull();
    });
  });

  describe("an answer that names two refresh tokens", () => {
    const two = granted({ refreshToken: "last", otherRefreshToken: "first" });

    it("the last is stored, and the first waits until the last is refused", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const { row } = await bench.run(id, [two]);
      expect([tokensOf(row)?.[1], row?.status]).toEqual(["last", "connected"]);
      await stage().set(id, "expires_at = clock_timestamp() - interval '1 second'");
      const after = await bench.run(id, [dead, granted({ refreshToken: "third" })]);
      expect([tokensOf(after.row)?.[1], after.row?.status]).toEqual(["third", "connected"]);
      expect(bench.requests.slice(1)).toEqual(["last", "first"]);
    });

    it("the set is stored although the other one cannot be kept", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { rows: withoutCandidates });
      const { kind, row } = await bench.run(id, [two]);
      expect([kind, tokensOf(row)?.[1]]).toEqual(["moved", "last"]);
    });
  });

  describe("an outcome that counted as lost", () => {
    it("is found again when its answer comes after all: the connection lives", async () => {
      const { id } = await connectExpired(stage());
      const [frozen, other] = [new RefreshBench(stage()), new RefreshBench(stage())];
      const meanwhile = async () => {
        await other.run(id, [dead]);
        expect(await stage().row(id)).toMatchObject({ lastErrorCode: "refresh_outcome_lost" });
      };
      const step = late(stage(), id, { answer: granted({ refreshToken: "second" }), meanwhile });
      const { kind, row } = await frozen.run(id, [step]);
      expect([kind, tokensOf(row)?.[1], row?.status, row?.lastErrorCode]).toEqual([
        "moved",
        "second",
        "connected",
        null,
      ]);
      expect([frozen.seen, other.seen]).toEqual([
        ["came late: promoted", "succeeded"],
        ["invalid_grant, replay", "lost"],
      ]);
    });

    it("of a replay counts as lost although a set that waited was refused as well", async () => {
      const { id, bench } = await withCandidate(stage());
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      const { row } = await bench.run(id, [dead, dead]);
      expect(row).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "refresh_outcome_lost" });
      expect(bench.seen).toContain("lost");
    });

    it("is not lost while it waits in a spool: nobody sends the token again", async () => {
      const store = { away: true };
      const { id } = await connectExpired(stage());
      const holder = new RefreshBench(stage(), awayFor(store));
      const peer = new RefreshBench(stage());
      // The holder has spooled the answer and dies: its memory is gone, its spool is still there.
      const handedOut = await holder.run(id, [granted({ refreshToken: "second" })]);
      for (const entry of holder.spool.entries.values()) await peer.spool.put(entry);
      await stage().set(id, abandoned);
      const outcome = await peer.run(id, []);
      expect([outcome.kind, tokensOf(outcome.row), peer.sent, peer.seen]).toEqual([
        "moved",
        tokensOf(handedOut.row),
        [],
        ["drained"],
      ]);
      expect([outcome.row?.version, peer.spool.entries.size]).toEqual([handedOut.row?.version, 0]);
      store.away = false;
      const row = await holder.settledRow(id);
      expect([row.generation, row.version, tokensOf(row)?.[1]]).toEqual([2, handedOut.row?.version, "second"]);
      expect(holder.spool.entries.size).toBe(0);
    });

    it.each([
      ["kills_family", "{ reuse: kills_family }", 0],
      ["dead", "{ reuse: dead }", 0],
      ["safe", "{ reuse: safe }", 1],
      ["until_successor_used, whose successor may be in use", "{ reuse: until_successor_used }", 0],
      ["grace that has passed", "{ reuse: grace, grace_s: 50 }", 0],
      ["grace", "{ reuse: grace, grace_s: 600 }", 1],
    ])(
      "with the spool silent, the token is sent again only where that costs nothing: %s",
      async (_is, rules, times) => {
        const { id } = await connectExpired(stage());
        await stage().set(id, `attempt_id = gen_random_uuid(), ${abandoned}`);
        const bench = new RefreshBench(stage(), { rules });
        bench.spool.isAway = true;
        await bench.run(id, [granted()]);
        expect(bench.sent).toHaveLength(times);
      },
    );
  });

  describe("a late answer that nobody wants any more", () => {
    it.each([
      ["token", ["the late one's", "a2"]],
      ["all", []],
    ] as const)(
      "is revoked after a reconnect only where that ends nothing else: %s",
      async (revocationKills, revoked) => {
        const { id } = await connectExpired(stage());
        const bench = new RefreshBench(stage(), { revocationKills });
        const answer = granted({ accessToken: "a2", refreshToken: "the late one's" });
        const outcome = await bench.run(id, [late(stage(), id, { answer, meanwhile: () => reconnect(stage(), id) })]);
        await bench.answerStore.idle();
        expect([outcome.row?.authorization, bench.revoked]).toEqual([2, revoked]);
        expect(await stage().rows.newestCandidate(id, 1)).toBeNull();
      },
    );

    it("of a deleted connection is revoked after a restart too, with what its tombstone tells", async () => {
      const { id } = await connectExpired(stage());
      const store = { away: true };
      const bench = new RefreshBench(stage(), awayFor(store));
      await bench.run(id, [granted({ accessToken: "a2", refreshToken: "second" })]);
      const restarted = new RefreshBench(stage());
      for (const entry of bench.spool.entries.values()) await restarted.spool.put(entry);
      await stage().connections.delete(id);
      await restarted.recovery.run();
      expect([restarted.revoked, restarted.spool.entries.size]).toEqual([["second", "a2"], 0]);
      store.away = false;
      await bench.answerStore.idle();
    });
  });

  describe("a version", () => {
    it.each([
      [{ version: 5, floor: 0, replays: 0 }, 6],
      [{ version: 5, floor: 40, replays: 0 }, 41],
      [{ version: 5, floor: 40, replays: 3 }, 44],
      [{ version: 5, floor: 2, replays: 1 }, 7],
    ])("that is handed out from the spool is the one that is stored later: %o", async (given, version) => {
      const { id } = await connectExpired(stage());
      const store = { away: true };
      const bench = new RefreshBench(stage(), awayFor(store));
      const replays = given.replays - 1;
      const attempt = replays < 0 ? "" : `, attempt_id = gen_random_uuid(), ${abandoned}, attempt_replays = ${replays}`;
      await stage().set(id, `version = ${given.version}, version_floor = ${given.floor}${attempt}`);
      const { row } = await bench.run(id, [granted()]);
      store.away = false;
      expect([row?.version, (await bench.settledRow(id)).version]).toEqual([version, version]);
    });

    it("never names two sets, although both were handed out before either was stored", async () => {
      const { id } = await connectExpired(stage());
      const [store, peers] = [{ away: true }, { away: true }];
      const [holder, peer] = [new RefreshBench(stage(), awayFor(store)), new RefreshBench(stage(), awayFor(peers))];
      const [first] = [await holder.run(id, [granted({ accessToken: "the first" })])];
      await stage().set(id, abandoned);
      const second = await peer.run(id, [granted({ accessToken: "the second" })]);
      store.away = false;
      await holder.answerStore.idle();
      const stored = await stage().row(id);
      peers.away = false;
      await peer.answerStore.idle();
      const named = new Map<number, Set<string | undefined>>();
      for (const row of [first.row, second.row, stored, await stage().row(id)]) {
        const names = named.get(row?.version ?? -1) ?? new Set();
        named.set(row?.version ?? -1, names.add(tokensOf(row)?.[0]));
      }
      expect([...named.values()].map(({ size }) => size)).toEqual([...named.values()].map(() => 1));
    });
  });

  describe("a row behind its mark", () => {
    it("is not refreshed, by anybody, until an operator has released it", async () => {
      const { id, generation } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      bench.marks.raise(id, { generation: generation + 3, version: 9 });
      const { kind, row } = await bench.run(id, []);
      expect([kind, row?.goneBackFrom, bench.sent, bench.seen]).toEqual([
        "failed",
        generation + 3,
        [],
        ["held after restore"],
      ]);
      bench.marks.isAway = true;
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.sent).toEqual([]);
    });

    it("that was deleted comes from the past, whatever its generation", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      bench.marks.close(id, 9);
      await bench.run(id, []);
      expect(bench.sent).toEqual([]);
    });

    it("adopts what waits in a spool ahead of all that was stored", async () => {
      const { id } = await connectExpired(stage());
      const store = { away: true };
      const holder = new RefreshBench(stage(), awayFor(store));
      await holder.run(id, [granted({ refreshToken: "second" })]);
      const bench = new RefreshBench(stage());
      for (const entry of holder.spool.entries.values()) await bench.spool.put(entry);
      // As if the dump were from before this row's set: it was at generation 1 when the token was sent.
      await stage().set(id, "generation = 0, attempt_id = NULL, attempt_started_at = NULL, lease_until = NULL");
      await stage().rows.suspendRestored([{ connectionId: id, generation: 1, version: 1 }]);
      await bench.recovery.run();
      const row = await stage().row(id);
      expect([tokensOf(row)?.[1], row.generation, row.goneBackFrom, row.status]).toEqual([
        "second",
        2,
        null,
        "connected",
      ]);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      store.away = false;
      await holder.answerStore.idle();
      expect((await stage().row(id)).generation).toBe(3);
    });

    it("the mark is raised with each set that is stored", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const { row } = await bench.run(id, [granted()]);
      await bench.answerStore.idle();
      expect(bench.marks.known.get(id)).toEqual({ generation: row?.generation, version: row?.version });
    });
  });

  describe("a replica that is shutting down", () => {
    it("begins no refresh, and says so", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { isDraining: () => true });
      expect(await bench.run(id, [])).toMatchObject({ kind: "left", row: { id } });
      expect([bench.sent, (await stage().row(id)).attemptId]).toEqual([[], null]);
    });

    it("keeps the answer that is on its way", async () => {
      const { id } = await connectExpired(stage());
      let draining = false;
      const bench = new RefreshBench(stage(), { isDraining: () => draining });
      const drain = () => {
        draining = true;
        return granted({ refreshToken: "second" });
      };
      await bench.run(id, [drain]);
      expect(tokensOf(await bench.settledRow(id))?.[1]).toBe("second");
    });
  });
}
