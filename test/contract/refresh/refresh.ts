import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenAnswer } from "../../../src/providers/grant.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { sealedGrant, type StoreStage } from "../store/stage.ts";
import {
  badSecret,
  busy,
  connectExpired,
  dead,
  failed,
  granted,
  makeClient,
  RefreshBench,
  silent,
  vault,
} from "./bench.ts";

/** As if lease and quiet period of the attempt, and the back-off, were over. */
const abandoned = `lease_until = clock_timestamp() - interval '11 seconds',
  attempt_started_at = clock_timestamp() - interval '41 seconds', backoff_until = NULL`;

const tokensOf = (row: TokenRow | null) => {
  if (row?.accessToken == null || row.refreshToken === null) return null;
  const place = { connectionId: row.id, generation: row.generation };
  return [vault.openAccessToken(row.accessToken, place), vault.openRefreshToken(row.refreshToken, place)];
};

/** What is hard to provoke over HTTP, on a real store. */
export function refresh(stage: () => StoreStage): void {
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
      const answer = { kind: "granted", grant: { ...keptGrant, accessToken: "a2" } } as const;
      const { row } = await new RefreshBench(stage()).run(id, [answer]);
      expect(tokensOf(row)).toEqual(["a2", "first"]);
    });

    it("gives its lock back, whatever happens", async () => {
      const { id, generation } = await connectExpired(stage());
      const key = `refresh:${id}:${generation}`;
      const gone = () => Promise.reject(new BrokerError("storage_unavailable", "gone"));
      const bench = new RefreshBench(stage(), { rows: () => ({ takePermit: gone }) });
      await expect(bench.run(id, [])).rejects.toThrow("gone");
      expect((await bench.leases.acquire(key, 1000)).state).toBe("owned");
      expect(bench.sent).toEqual([]);
    });

    it("of eight replicas without a lock between them, one sends and all have the new token", async () => {
      const { id } = await connectExpired(stage());
      const replicas = Array.from({ length: 8 }, () => new RefreshBench(stage()));
      const slow = async () => {
        await new Promise((resolve) => void setTimeout(resolve, 20));
        return granted({ accessToken: "a2" });
      };
      const outcomes = await Promise.all(replicas.map((bench) => bench.run(id, [slow])));
      expect(replicas.flatMap(({ requests }) => requests)).toEqual(["first"]);
      expect(outcomes.map(({ kind, row }) => [kind, tokensOf(row)?.[0]])).toEqual(outcomes.map(() => ["moved", "a2"]));
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

    it("that passes again and again is not waited for without end, and nothing is ever sent", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      let times = 0;
      bench.beforeSending = () => {
        times++;
        bench.clock.advance(5000);
      };
      const outcome = await bench.run(id, []);
      expect(outcome).toMatchObject({
        kind: "failed",
        row: { attemptId: null, consecutiveFailures: 0, status: "connected" },
      });
      expect([times, bench.sent]).toEqual([12, []]);
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
        "SELECT attempt_answer_sealed AS answer FROM connections WHERE id = $1::uuid",
        id,
      );
      expect(Buffer.from(sealed?.answer ?? []).includes("odd")).toBe(false);
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first"]);
    });
  });

  describe("a send whose outcome nobody knows", () => {
    const unresolved = async (rules?: string) => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), rules === undefined ? {} : { rules });
      await bench.run(id, [silent]);
      return { id, bench };
    };

    it("is taken over after its lease and quiet period: the same token once more, and not before", async () => {
      const { id, bench } = await unresolved();
      await stage().set(id, "lease_until = clock_timestamp() - interval '9 seconds', backoff_until = NULL");
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
      const { id, bench } = await unresolved("{ reuse: kills_family }");
      await stage().set(id, `${abandoned}, expires_at = clock_timestamp() + interval '5 minutes'`);
      expect((await bench.run(id, [], "ahead")).kind).toBe("failed");
      expect(bench.requests).toEqual(["first"]);
      expect((await bench.run(id, [granted()], "required")).kind).toBe("moved");
    });

    it("is left alone by who has not had ten seconds of Postgres without a gap", async () => {
      const { id } = await unresolved("{ reuse: safe }");
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
        const { id, bench } = await unresolved();
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
      const { id, bench } = await unresolved();
      await stage().set(id, abandoned);
      const { row } = await bench.run(id, [dead]);
      expect(row).toMatchObject({
        status: "needs_reauthorization",
        lastErrorCode: "refresh_outcome_lost",
        attemptId: null,
      });
      expect(bench.seen).toEqual(["outcome_unknown", "invalid_grant, replay"]);
    });

    it("whose replay backs off is not asked for again and again", async () => {
      let asked = 0;
      const { id } = await unresolved();
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
      const { id, bench } = await unresolved();
      await stage().set(id, abandoned);
      const before = await stage().row(id);
      await stage().set(id, "status = 'disabled'");
      const outcome = await bench.refresh(before, "required");
      expect([outcome.kind, outcome.row?.status, bench.requests]).toEqual(["failed", "disabled", ["first"]]);
    });
  });

  describe("a client whose secret was changed", () => {
    const setUp = async (changed = true) => {
      const clientRef = await makeClient(stage(), { changed });
      const { id } = await connectExpired(stage(), { clientRef });
      const bench = new RefreshBench(stage());
      const previous = async () => (await stage().clients.findById(clientRef))?.previousSecret ?? null;
      return { id, bench, previous, clientRef };
    };
    const secrets = (bench: RefreshBench) => bench.sent.map(({ fields }) => fields["client_secret"]);

    it("is tried with the secret before where the new one is refused, under a permit of its own", async () => {
      const { id, bench, previous } = await setUp();
      const outcome = await bench.run(id, [badSecret, granted()]);
      expect([outcome.kind, secrets(bench)]).toEqual(["moved", ["new", "old"]]);
      const [first, second] = bench.sent.map(({ permit }) => permit);
      expect(first).not.toBe(second);
      expect(outcome.row?.lastAttemptId).toBe(second);
      expect(await previous()).not.toBeNull();
      expect(bench.seen).toEqual(["succeeded"]);
    });

    it("loses the secret before once the new one has worked", async () => {
      const { id, bench, previous } = await setUp();
      await bench.run(id, [busy]);
      expect(await previous()).not.toBeNull();
      await stage().set(id, "backoff_until = NULL");
      await bench.run(id, [granted()]);
      expect([secrets(bench), await previous()]).toEqual([["new", "new"], null]);
    });

    it("refused with both keeps its connections, which back off", async () => {
      const { id, bench, previous } = await setUp();
      const { row, failure } = await bench.run(id, [badSecret, badSecret]);
      expect(failure?.code).toBe("invalid_client");
      expect(row).toMatchObject({
        status: "connected",
        attemptId: null,
        lastErrorCode: "invalid_client",
        consecutiveFailures: 1,
      });
      expect([secrets(bench), await previous()]).toEqual([["new", "old"], expect.anything()]);
    });

    it("with one secret only is tried once", async () => {
      const { id, bench } = await setUp(false);
      await bench.run(id, [badSecret]);
      expect(secrets(bench)).toEqual(["new"]);
    });

    it("a replay stays one with the second secret: what is refused for now stays unresolved", async () => {
      const { id, bench } = await setUp();
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      const { attemptStartedAt } = await stage().row(id);
      const { row } = await bench.run(id, [badSecret, busy]);
      expect(row).toMatchObject({ attemptOutcome: "unknown", status: "connected", attemptStartedAt });
    });

    it("a replay stays one with the second secret: invalid_grant tells of a lost outcome", async () => {
      const { id, bench } = await setUp();
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      const { row } = await bench.run(id, [badSecret, dead]);
      expect(row).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "refresh_outcome_lost" });
    });

    it("no second request leaves once somebody else has the permit", async () => {
      const { id, bench } = await setUp();
      const lose = async () => {
        await stage().set(id, "attempt_id = gen_random_uuid()");
        return badSecret;
      };
      const outcome = await bench.run(id, [lose]);
      expect([outcome.kind, secrets(bench)]).toEqual(["failed", ["new"]]);
      expect(outcome.row).toMatchObject({ consecutiveFailures: 0, status: "connected" });
    });
  });

  describe("a password connection", () => {
    const setUp = async () => {
      const { id } = await connectExpired(stage(), { grant: "password" });
      const sealed = vault.sealCredentials({ username: "u", password: "p" }, { connectionId: id, revision: 1 });
      await stage().connections.update({ id, credentialsRevision: 0 }, { credentials: sealed });
      return { id, bench: new RefreshBench(stage()) };
    };

    it("whose refresh token has died logs in again, once, under a permit of its own", async () => {
      const { id, bench } = await setUp();
      const outcome = await bench.run(id, [dead, granted({ refreshToken: "second" })]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1], bench.requests]).toEqual([
        "moved",
        "second",
        ["first", "password"],
      ]);
      expect(bench.sent[1]?.fields).toMatchObject({ username: "u", password: "p" });
      expect(new Set(bench.sent.map(({ permit }) => permit)).size).toBe(2);
      expect(outcome.row).toMatchObject({ status: "connected", lastErrorCode: null });
    });

    it("whose login is refused as well needs a person, and is not tried again: accounts get locked", async () => {
      const { id, bench } = await setUp();
      const { row } = await bench.run(id, [dead, dead]);
      expect(row).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "invalid_grant", attemptId: null });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first", "password"]);
    });

    it("whose login is refused for now keeps its row, and starts over with the refresh token", async () => {
      const { id, bench } = await setUp();
      const { row } = await bench.run(id, [dead, busy]);
      expect(row).toMatchObject({ status: "connected", attemptId: null, lastErrorCode: "rate_limited" });
      await stage().set(id, "backoff_until = NULL");
      expect((await bench.run(id, [dead, granted()])).kind).toBe("moved");
      expect(bench.requests).toEqual(["first", "password", "first", "password"]);
    });
  });

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

    it("is kept while the store is gone, for as long as it takes", async () => {
      const { id } = await connectExpired(stage());
      let outages = 40;
      const goAway =
        (rows: StoreStage["rows"]): StoreStage["rows"]["commitRefresh"] =>
        async (key, grant, event) => {
          if (outages-- > 0) throw new BrokerError("storage_unavailable", "gone");
          return await rows.commitRefresh(key, grant, event);
        };
      const bench = new RefreshBench(stage(), { rows: (rows) => ({ commitRefresh: goAway(rows) }) });
      const startedMs = bench.clock.monotonicMs();
      const outcome = await bench.run(id, [granted({ refreshToken: "second" })]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1]]).toEqual(["moved", "second"]);
      expect(bench.clock.monotonicMs() - startedMs).toBeGreaterThan(60_000);
      expect(bench.requests).toEqual(["first"]);
    });

    it("that comes after a person has replaced the grant is reported as lost, and the person's grant stays", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const replaced = sealedGrant();
      const reconnect = async () => {
        const row = await stage().row(id);
        const given = { id, generation: row.generation, attemptId: "0b9a2f4e-8a53-4a7e-a1c8-3c1a3f2f7e11" };
        await stage().rows.replaceGrant(given, replaced, {
          event: { type: "reconnected", detail: {} },
          exclusive: false,
        });
        return granted();
      };
      const outcome = await bench.run(id, [reconnect]);
      expect(outcome).toMatchObject({ kind: "moved", row: { version: 3, accessToken: replaced.accessToken } });
      expect(bench.seen).toEqual(["answer lost", "succeeded"]);
    });

    it("that comes after the connection was deleted is reported as lost", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage());
      const remove = async () => {
        await stage().connections.delete(id);
        return granted();
      };
      expect(await bench.run(id, [remove])).toEqual({ kind: "failed", row: null });
      expect(bench.seen).toEqual(["answer lost", "succeeded"]);
      expect(bench.news.at(-1)?.outcome).toBe("failed");
    });

    it("that comes after another replica took the attempt over is reported as lost, and the other's stays", async () => {
      const { id } = await connectExpired(stage());
      const [late, other] = [new RefreshBench(stage()), new RefreshBench(stage())];
      const freeze = async () => {
        await stage().set(id, abandoned);
        await other.run(id, [granted({ refreshToken: "the other's" })]);
        return granted({ refreshToken: "the late one's" });
      };
      const outcome = await late.run(id, [freeze]);
      expect([outcome.kind, tokensOf(outcome.row)?.[1]]).toEqual(["moved", "the other's"]);
      expect([late.seen, other.seen]).toEqual([["answer lost", "succeeded"], ["succeeded, replay"]]);
    });
  });

  describe("a lock that somebody else holds", () => {
    /** Runs `bench` while `other` waits for this answer of the provider. */
    const during = (bench: RefreshBench, id: string, answer: TokenAnswer) => {
      const { promise, resolve } = Promise.withResolvers<Awaited<ReturnType<RefreshBench["run"]>>>();
      const step = async () => {
        resolve(bench.run(id, []));
        await new Promise((answered) => void setTimeout(answered, 20));
        return answer;
      };
      return { step, outcome: promise };
    };

    it.each(["with messages", "without messages"])(
      "is waited for, %s, and the other's token is the answer",
      async (how) => {
        const { id, generation } = await connectExpired(stage());
        const other = new RefreshBench(stage());
        const bench = new RefreshBench(stage(), how === "with messages" ? { beside: other } : {});
        if (how !== "with messages") await bench.leases.acquire(`refresh:${id}:${generation}`, 30_000);
        const { step, outcome } = during(bench, id, granted({ accessToken: "the other's" }));
        await other.run(id, [step]);
        const { kind, row } = await outcome;
        expect([kind, tokensOf(row)?.[0], bench.sent]).toEqual(["moved", "the other's", []]);
      },
    );

    it.each(["with messages", "without messages"])(
      "a failure is the answer to who waits too, %s: nobody sends again",
      async (how) => {
        const { id, generation } = await connectExpired(stage());
        const other = new RefreshBench(stage());
        const bench = new RefreshBench(stage(), how === "with messages" ? { beside: other } : {});
        if (how !== "with messages") await bench.leases.acquire(`refresh:${id}:${generation}`, 30_000);
        const { step, outcome } = during(bench, id, busy);
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

const keptGrant = {
  tokenType: "Bearer",
  accessExpiry: { kind: "in", seconds: 300 },
  refreshExpiry: { kind: "unstated" },
  captured: {},
} as const;
