import { describe, expect, it } from "vitest";
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
  makeClient,
  RefreshBench,
  silent,
  tokensOf,
  unexplained,
  vault,
} from "./bench.ts";

async function connectWithClient(stage: StoreStage, client: { changed: boolean }) {
  const clientRef = await makeClient(stage, client);
  const { id } = await connectExpired(stage, { clientRef });
  const previous = async () => (await stage.clients.findById(clientRef))?.previousSecret ?? null;
  return { id, bench: new RefreshBench(stage), previous };
}

async function connectWithPassword(stage: StoreStage) {
  const { id } = await connectExpired(stage, { grant: "password" });
  const row = await stage.row(id);
  const credentials = vault.sealCredentials({ username: "u", password: "p" }, secretsPlace(row, { revision: 1 }));
  await stage.connections.update(row, { credentials }, freely);
  return { id, bench: new RefreshBench(stage) };
}

function secretsOf({ sent }: RefreshBench): (string | undefined)[] {
  return sent.map(({ fields }) => fields["client_secret"]);
}

/** Where one attempt has two requests, each under a permit of its own. */
export function secondWay(stage: () => StoreStage): void {
  describe("a client whose secret was changed", () => {
    it("is tried with the secret before where the new one is refused, under a permit of its own", async () => {
      const { id, bench, previous } = await connectWithClient(stage(), { changed: true });
      const outcome = await bench.run(id, [badSecret, granted()]);
      expect([outcome.kind, secretsOf(bench)]).toEqual(["moved", ["new", "old"]]);
      const [first, second] = bench.sent.map(({ permit }) => permit);
      expect(first).not.toBe(second);
      expect(outcome.row?.lastAttemptId).toBe(second);
      expect(await previous()).not.toBeNull();
      expect(bench.seen).toEqual(["succeeded", "old secret used"]);
    });

    it("loses the secret before once the new one has worked", async () => {
      const { id, bench, previous } = await connectWithClient(stage(), { changed: true });
      await bench.run(id, [busy]);
      expect(await previous()).not.toBeNull();
      await stage().set(id, "backoff_until = NULL");
      await bench.run(id, [granted()]);
      expect([secretsOf(bench), await previous()]).toEqual([["new", "new"], null]);
    });

    it("refused with both keeps its connections, which back off", async () => {
      const { id, bench, previous } = await connectWithClient(stage(), { changed: true });
      const { row, failure } = await bench.run(id, [badSecret, badSecret]);
      expect(failure?.code).toBe("invalid_client");
      expect(row).toMatchObject({
        status: "connected",
        attemptId: null,
        lastErrorCode: "invalid_client",
        consecutiveFailures: 1,
      });
      expect([secretsOf(bench), await previous()]).toEqual([["new", "old"], expect.anything()]);
    });

    it.each([
      {
        newest: "the grant is over",
        older: "a token",
        script: [dead, granted()],
        ends: { status: "connected", generation: 2 },
      },
      {
        newest: "nothing anybody understands",
        older: "a token",
        script: [unexplained, granted()],
        ends: { generation: 2 },
      },
      {
        newest: "the grant is over",
        older: "the same",
        script: [dead, dead],
        ends: { status: "needs_reauthorization" },
      },
      {
        newest: "the grant is over",
        older: "a wrong secret",
        script: [dead, badSecret],
        ends: { status: "needs_reauthorization" },
      },
      {
        newest: "the grant is over",
        older: "gibberish",
        script: [dead, unexplained],
        ends: { status: "needs_reauthorization" },
      },
      {
        newest: "the grant is over",
        older: "not now",
        script: [dead, busy],
        ends: { status: "connected", attemptId: null },
      },
      { newest: "the grant is over", older: "nothing", script: [dead, silent], ends: { attemptOutcome: "unknown" } },
      {
        newest: "gibberish",
        older: "the grant is over",
        script: [unexplained, dead],
        ends: { status: "connected", refusals: 1 },
      },
      {
        newest: "a wrong secret",
        older: "gibberish",
        script: [badSecret, unexplained],
        ends: { lastErrorCode: "invalid_client" },
      },
    ])("is answered $newest, and with the secret before $older", async ({ script, ends }) => {
      const { id, bench } = await connectWithClient(stage(), { changed: true });
      const { row } = await bench.run(id, script);
      expect(secretsOf(bench)).toEqual(["new", "old"]);
      expect(row).toMatchObject(ends);
    });

    it("whose grant is refused, and whose secret before is held back by limits, ends when that one is refused, too", async () => {
      const { id } = await connectWithClient(stage(), { changed: true });
      const bench = new RefreshBench(stage(), { limits: "{ per: connection, spacing_ms: 60000 }" });
      const { row } = await bench.run(id, [dead]);
      expect(row).toMatchObject({ status: "connected", lastErrorCode: "limit_reached" });
      await stage().set(id, "backoff_until = NULL");
      await stage().query("DELETE FROM request_limits WHERE key LIKE $1 RETURNING 1", `connection:${id}%`);
      const next = await bench.run(id, [badSecret]);
      expect([next.row?.status, secretsOf(bench)]).toEqual(["needs_reauthorization", ["new", "old"]]);
    });

    it("of which only the secret before works is told once, until the newest works", async () => {
      const { id, bench } = await connectWithClient(stage(), { changed: true });
      const client = async () => await stage().clients.findById((await stage().row(id)).clientRef ?? "");
      expect(await client()).toMatchObject({ oldSecretSince: null, secretRotatingSince: expect.any(Date) });
      await bench.run(id, [badSecret, granted()]);
      await bench.run(id, [badSecret, granted()]);
      const { oldSecretSince } = (await client()) ?? {};
      expect(oldSecretSince).toBeInstanceOf(Date);
      expect((await stage().events(id)).filter((type) => type === "old_secret_used")).toHaveLength(1);
      expect(bench.seen).toEqual(["succeeded", "old secret used", "succeeded"]);
      expect(await stage().connections.findById(id)).toMatchObject({ newestRefusedSince: oldSecretSince });
      await bench.run(id, [granted()]);
      expect(await client()).toMatchObject({ oldSecretSince: null, secretRotatingSince: null, previousSecret: null });
    });

    it("with one secret only is tried once", async () => {
      const { id, bench } = await connectWithClient(stage(), { changed: false });
      await bench.run(id, [badSecret]);
      expect(secretsOf(bench)).toEqual(["new"]);
    });

    it("a replay stays one with the second secret: what is refused for now stays unresolved", async () => {
      const { id, bench } = await connectWithClient(stage(), { changed: true });
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      const { attemptStartedAt } = await stage().row(id);
      const { row } = await bench.run(id, [badSecret, busy]);
      expect(row).toMatchObject({ attemptOutcome: "unknown", status: "connected", attemptStartedAt });
    });

    it("a replay stays one with the second secret: invalid_grant tells of a lost outcome", async () => {
      const { id, bench } = await connectWithClient(stage(), { changed: true });
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      const { row } = await bench.run(id, [badSecret, dead]);
      expect(row).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "refresh_outcome_lost" });
    });

    it("no second request leaves once somebody else has the permit", async () => {
      const { id, bench } = await connectWithClient(stage(), { changed: true });
      const lose = async () => {
        await stage().set(id, "attempt_id = gen_random_uuid()");
        return badSecret;
      };
      const outcome = await bench.run(id, [lose]);
      expect([outcome.kind, secretsOf(bench)]).toEqual(["failed", ["new"]]);
      expect(outcome.row).toMatchObject({ consecutiveFailures: 0, status: "connected" });
    });
  });

  describe("a client-credentials connection whose answer holds a refresh token", () => {
    const machine = { grant: "client_credentials" };

    it("keeps none that its definition has no use for, and gets its next token as it got the first", async () => {
      const { id } = await stage().insert({ ...machine, clientRef: await makeClient(stage(), { changed: false }) });
      const bench = new RefreshBench(stage());
      const { row } = await bench.run(id, [granted()]);
      expect(row).toMatchObject({ status: "connected", refreshToken: null, noRefreshTokenSince: null });
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect(bench.requests).toEqual(["client_credentials", "client_credentials"]);
    });

    it("gets its next token so with one that was kept before, too, and loses that", async () => {
      const { id } = await connectExpired(stage(), machine);
      const bench = new RefreshBench(stage());
      const { row } = await bench.run(id, [granted()]);
      expect([row?.refreshToken, bench.requests]).toEqual([null, ["client_credentials"]]);
    });

    it("sends it where the definition says how, and asks anew when it has died", async () => {
      const { id } = await connectExpired(stage(), machine);
      const bench = new RefreshBench(stage(), { refreshesMachines: true });
      const { row } = await bench.run(id, [granted({ refreshToken: "second" })]);
      expect(tokensOf(row)?.[1]).toBe("second");
      expect((await bench.run(id, [dead, granted()])).kind).toBe("moved");
      expect(bench.requests).toEqual(["first", "second", "client_credentials"]);
    });
  });

  describe("a password connection", () => {
    it("whose refresh token has died logs in again, once, under a permit of its own", async () => {
      const { id, bench } = await connectWithPassword(stage());
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
      const { id, bench } = await connectWithPassword(stage());
      const { row } = await bench.run(id, [dead, dead]);
      expect(row).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "invalid_grant", attemptId: null });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first", "password"]);
    });

    it("whose login is refused for whatever reason needs a person: a refused login is never repeated by itself", async () => {
      const { id, bench } = await connectWithPassword(stage());
      const locked = failed({ class: "refused_for_now", code: "provider_unavailable", status: 403 });
      const { row } = await bench.run(id, [dead, locked]);
      expect(row).toMatchObject({ status: "needs_reauthorization", attemptId: null });
      expect((await bench.run(id, [])).kind).toBe("failed");
      expect(bench.requests).toEqual(["first", "password"]);
    });

    it("whose password was changed while the old one was refused may be tried at once", async () => {
      const { id, bench } = await connectWithPassword(stage());
      const change = async () => {
        const row = await stage().row(id);
        const place = secretsPlace(row, { revision: 2 });
        const credentials = vault.sealCredentials({ username: "u", password: "p2" }, place);
        await stage().connections.update(row, { credentials }, freely);
        return dead;
      };
      const { row } = await bench.run(id, [dead, change]);
      expect(row).toMatchObject({ status: "connected", attemptId: null });
      expect((await bench.run(id, [dead, granted()])).kind).toBe("moved");
      expect(bench.sent.map(({ fields }) => fields["password"])).toEqual([undefined, "p", undefined, "p2"]);
    });

    it("whose refresh token has died on a replay is resolved: what becomes of the login is no replay", async () => {
      for (const [answer, expected] of [
        [busy, { status: "connected", attemptId: null, lastErrorCode: "rate_limited" }],
        [dead, { status: "needs_reauthorization", attemptId: null, lastErrorCode: "invalid_grant" }],
      ] as const) {
        const { id, bench } = await connectWithPassword(stage());
        await bench.run(id, [silent]);
        await stage().set(id, abandoned);
        const { row } = await bench.run(id, [dead, answer]);
        expect(row).toMatchObject(expected);
      }
    });

    it("whose login is refused for now keeps its row, and starts over with the refresh token", async () => {
      const { id, bench } = await connectWithPassword(stage());
      const { row } = await bench.run(id, [dead, busy]);
      expect(row).toMatchObject({ status: "connected", attemptId: null, lastErrorCode: "rate_limited" });
      await stage().set(id, "backoff_until = NULL");
      expect((await bench.run(id, [dead, granted()])).kind).toBe("moved");
      expect(bench.requests).toEqual(["first", "password", "first", "password"]);
    });
  });
}
