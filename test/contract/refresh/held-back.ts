import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { secretsPlace } from "../../../src/tokens/seal.ts";
import { passLimit } from "../store/request-limits.ts";
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
  vault,
} from "./bench.ts";

const seldom = "{ per: connection, max_per_window: 1 in 600 s }";
const quiet = "{ per: client, cool_down_s: 900 }";
/** A wait that is longer than this comes from a limit. */
const longestBackoffSeconds = 300;
const away = failed({ class: "not_sent", code: "connect_failed" });

const secondsLeft = ({ backoffUntil, now }: TokenRow) => ((backoffUntil?.getTime() ?? 0) - now.getTime()) / 1000;

const asked = () => Promise.reject(new Error("asked"));

/** Two connections of one client, each with a replica of its own. */
async function neighbours(stage: StoreStage, limits: string) {
  const clientRef = await makeClient(stage, { changed: false });
  const connect = async (refreshToken: string) => ({
    id: (await connectExpired(stage, { clientRef }, { refreshToken })).id,
    bench: new RefreshBench(stage, { limits }),
  });
  return [await connect("first"), await connect("other")] as const;
}

/** Ends the back-off, and lets so many seconds pass for the limit. */
async function pass(stage: StoreStage, id: string, seconds: number): Promise<void> {
  await stage.set(id, "backoff_until = NULL");
  await passLimit(stage, `connection:${id}`, seconds);
}

/** What the definition's limits do to refreshes. */
export function heldBack(stage: () => StoreStage): void {
  describe("a refresh that the limits hold back", () => {
    it("sends nothing, gives its permit back, and is not tried before the limits let it", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { limits: seldom });
      await bench.run(id, [granted({ refreshToken: "second" })]);
      const { kind, row, failure } = await bench.run(id, []);
      expect([kind, failure?.class, failure?.code, bench.requests]).toEqual([
        "failed",
        "not_sent",
        "limit_reached",
        ["first"],
      ]);
      const free = { status: "connected", attemptId: null, lastErrorCode: "limit_reached" };
      // Nothing has failed: it must change neither the history nor the next back-off.
      expect(row).toMatchObject({ ...free, consecutiveFailures: 0 });
      expect(await stage().events(id)).toEqual(["created", "connected", "refreshed"]);
      expect(failure?.retryAfterSeconds).toBeGreaterThan(longestBackoffSeconds);
      expect(row === null ? 0 : secondsLeft(row)).toBeGreaterThan(longestBackoffSeconds);
      await pass(stage(), id, 601);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
    });

    it("of an attempt without a known outcome stays unresolved", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { limits: seldom });
      await bench.run(id, [silent]);
      await stage().set(id, abandoned);
      const { row } = await bench.run(id, []);
      expect(row).toMatchObject({ attemptOutcome: "unknown", lastErrorCode: "limit_reached", status: "connected" });
      expect(row === null ? 0 : secondsLeft(row)).toBeGreaterThan(longestBackoffSeconds);
      expect(bench.requests).toEqual(["first"]);
    });

    it("is sent at once where the request before never left", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { limits: seldom });
      await bench.run(id, [away]);
      await stage().set(id, "backoff_until = NULL");
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
    });

    it.each([
      { error: new BrokerError("storage_unavailable", "gone"), told: [] },
      { error: new Error("a fault of ours"), told: ["Error: a fault of ours"] },
    ])("is not sent either while the limits cannot be asked: $error.message", async ({ error, told }) => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), {
        limits: seldom,
        requestLimits: { admit: () => Promise.reject(error) },
      });
      const { row, failure } = await bench.run(id, []);
      expect([failure?.code, bench.sent]).toEqual(["limit_reached", []]);
      expect(row).toMatchObject({ attemptId: null, status: "connected" });
      expect(bench.seen).toEqual([...told, "limit_reached"]);
    });

    it("does not know of limits where the definition has none: they are not asked", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), { requestLimits: { admit: asked, closeAdmission: asked } });
      expect([(await bench.run(id, [granted()])).kind, bench.seen]).toEqual(["moved", ["succeeded"]]);
    });
  });

  describe("connections that have never worked", () => {
    it("take half of what the limits allow, and leave the rest to a connected one", async () => {
      const clientRef = await makeClient(stage(), { changed: false });
      const limits = "{ per: client, max_per_window: 4 in 600 s }";
      const connected = await connectExpired(stage(), { clientRef });
      const tryOne = async () => {
        const { id } = await stage().insert({ clientRef, grant: "client_credentials" });
        return (await new RefreshBench(stage(), { limits }).run(id, [badSecret])).failure?.code;
      };
      expect([await tryOne(), await tryOne(), await tryOne(), await tryOne()]).toEqual([
        "invalid_client",
        "invalid_client",
        "limit_reached",
        "limit_reached",
      ]);
      expect((await new RefreshBench(stage(), { limits }).run(connected.id, [granted()])).kind).toBe("moved");
    });

    it.each([
      { is: "a set that a person handed over", change: "untried = true" },
      { is: "credentials", change: "credentials" },
    ])("count as such with $is, until a refresh has succeeded", async ({ change }) => {
      const limits = "{ per: connection, max_per_window: 4 in 600 s }";
      const { id } = await connectExpired(stage());
      if (change === "credentials") {
        const row = await stage().row(id);
        const credentials = vault.sealCredentials({ username: "u", password: "p" }, secretsPlace(row, { revision: 1 }));
        await stage().connections.update(row, { credentials }, freely);
      } else await stage().set(id, change);
      const bench = new RefreshBench(stage(), { limits });
      const failing = async (...answers: (typeof busy)[]) => {
        const { failure } = await bench.run(id, answers);
        await stage().set(id, "backoff_until = NULL");
        return failure?.code;
      };
      expect([await failing(busy), await failing(busy), await failing()]).toEqual([
        "rate_limited",
        "rate_limited",
        "limit_reached",
      ]);
      await pass(stage(), id, 4000);
      expect(await bench.run(id, [granted({ refreshToken: "second" })])).toMatchObject({
        kind: "moved",
        row: { untried: false },
      });
      await stage().set(id, "expires_at = clock_timestamp(), backoff_until = NULL");
      expect([await failing(busy), await failing(busy), await failing(busy)]).toEqual([
        "rate_limited",
        "rate_limited",
        "rate_limited",
      ]);
    });
  });

  describe("an answer that says to go slower", () => {
    it.each([
      { is: "429", answer: busy, seconds: 900 },
      { is: "a block", answer: failed({ class: "refused_for_now", code: "blocked", status: 403 }), seconds: 900 },
      {
        is: "a longer Retry-After",
        answer: failed({ class: "refused_for_now", code: "rate_limited", status: 429, retryAfterSeconds: 1200 }),
        seconds: 1200,
      },
      {
        is: "a Retry-After of a year, of which an hour is believed",
        answer: failed({ class: "refused_for_now", code: "rate_limited", status: 429, retryAfterSeconds: 3e7 }),
        seconds: 3600,
      },
    ])("silences all who share the limit: $is", async ({ answer, seconds }) => {
      const [one, other] = await neighbours(stage(), quiet);
      const { row } = await one.bench.run(one.id, [answer]);
      const toldSeconds = ((row?.backoffUntil?.getTime() ?? 0) - (row?.now.getTime() ?? 0)) / 1000;
      expect([toldSeconds > seconds - 300, toldSeconds <= seconds + 1]).toEqual([true, true]);
      const { failure } = await other.bench.run(other.id, []);
      expect([failure?.code, other.bench.sent]).toEqual(["limit_reached", []]);
      expect(failure?.retryAfterSeconds).toBeLessThanOrEqual(seconds + 1);
      expect(failure?.retryAfterSeconds).toBeGreaterThan(seconds - 300);
    });

    it("silences nobody who does not share it, and no other refusal does", async () => {
      const [one, other] = await neighbours(stage(), quiet);
      await one.bench.run(one.id, [failed({ class: "refused_for_now", code: "provider_unavailable", status: 503 })]);
      expect((await other.bench.run(other.id, [busy])).failure?.code).toBe("rate_limited");
      const [stranger] = await neighbours(stage(), quiet);
      expect((await stranger.bench.run(stranger.id, [granted()])).kind).toBe("moved");
    });
  });

  describe("one request at a time", () => {
    const single = "{ per: client, concurrency: 1 }";

    it("lets the next through when the answer is there", async () => {
      const [one, other] = await neighbours(stage(), single);
      const meanwhile = async () => {
        expect((await other.bench.run(other.id, [])).failure?.code).toBe("limit_reached");
        return busy;
      };
      await one.bench.run(one.id, [meanwhile]);
      await stage().set(other.id, "backoff_until = NULL");
      expect((await other.bench.run(other.id, [granted()])).kind).toBe("moved");
    });

    it("counts one without an answer, at which the provider may be still at work, until its lease ends", async () => {
      const [one, other] = await neighbours(stage(), single);
      await one.bench.run(one.id, [silent]);
      expect((await other.bench.run(other.id, [])).failure?.code).toBe("limit_reached");
    });

    it("has room for the second request of an attempt", async () => {
      const clientRef = await makeClient(stage(), { changed: true });
      const { id } = await connectExpired(stage(), { clientRef });
      const bench = new RefreshBench(stage(), { limits: single });
      expect((await bench.run(id, [badSecret, granted()])).kind).toBe("moved");
    });
  });

  describe("a second way that the limits hold back", () => {
    it("is what the next attempt begins with: an older secret", async () => {
      const clientRef = await makeClient(stage(), { changed: true });
      const { id } = await connectExpired(stage(), { clientRef });
      const bench = new RefreshBench(stage(), { limits: seldom });
      const held = await bench.run(id, [badSecret]);
      expect([held.failure?.code, held.row?.attemptId]).toEqual(["limit_reached", null]);
      await pass(stage(), id, 601);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect(bench.sent.map(({ fields }) => fields["client_secret"])).toEqual(["new", "old"]);
    });

    it("does not take the place of a replay: what is sent again is what nobody knows the outcome of", async () => {
      const { id } = await connectExpired(stage(), { grant: "password" });
      const row = await stage().row(id);
      const credentials = vault.sealCredentials({ username: "u", password: "p" }, secretsPlace(row, { revision: 1 }));
      await stage().connections.update(row, { credentials }, freely);
      const [bench, other] = [
        new RefreshBench(stage(), { limits: seldom }),
        new RefreshBench(stage(), { limits: seldom }),
      ];
      expect((await bench.run(id, [dead])).failure?.code).toBe("limit_reached");
      await pass(stage(), id, 601);
      expect((await other.run(id, [silent])).failure?.code).toBe("outcome_unknown");
      await stage().set(id, abandoned);
      await pass(stage(), id, 606);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect([bench.requests, other.requests]).toEqual([["first", "first"], ["first"]]);
    });

    it("is what the next attempt begins with: a login, unless there is another password by then", async () => {
      const { id } = await connectExpired(stage(), { grant: "password" });
      const give = async (credentialsRevision: number) => {
        const row = await stage().row(id);
        const place = secretsPlace(row, { revision: credentialsRevision + 1 });
        const credentials = vault.sealCredentials({ username: "u", password: "p" }, place);
        await stage().connections.update(row, { credentials }, freely);
      };
      await give(0);
      const bench = new RefreshBench(stage(), { limits: seldom });
      expect((await bench.run(id, [dead])).failure?.code).toBe("limit_reached");
      await give(1);
      await pass(stage(), id, 601);
      expect((await bench.run(id, [dead])).failure?.code).toBe("limit_reached");
      await pass(stage(), id, 601);
      expect((await bench.run(id, [granted()])).kind).toBe("moved");
      expect(bench.requests).toEqual(["first", "first", "password"]);
    });
  });
}
