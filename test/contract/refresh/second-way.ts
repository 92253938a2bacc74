import { entrustedPlace } from "../../../src/tokens/destination.ts";
import { describe, expect, it } from "vitest";
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
  const credentials = vault.sealCredentials({ username: "u", password: "p" }, entrustedPlace(row, { revision: 1 }));
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
      expect(bench.seen).toEqual(["succeeded"]);
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
        const place = entrustedPlace(row, { revision: 2 });
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
