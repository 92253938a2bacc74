import { randomUUID } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { ifAbandoned, sealedBytes, sealedGrant, type StoreStage } from "./stage.ts";

const longAgo = "'2000-01-01T00:00:00Z'";
const failure = { code: "rate_limited", detail: "slow down" };
const prompt = { promptly: true, quietSeconds: 10 };

/** Connected rows of a provider of their own. They are due before all other rows. */
async function dueRows(stage: StoreStage, count: number, changes: Parameters<StoreStage["connect"]>[0] = {}) {
  const provider = `due-${randomUUID()}`;
  const rows = await Promise.all(Array.from({ length: count }, () => stage.connect({ provider, ...changes })));
  for (const { id } of rows) await stage.set(id, `next_refresh_at = ${longAgo}`);
  return { provider, ids: rows.map(({ id }) => id) };
}

async function claim(stage: StoreStage, { limit = 1000, busyProviders = [] as string[] } = {}): Promise<string[]> {
  const rows = await stage.rows.claimDue({ limit, claimSeconds: 3600, busyProviders });
  return rows.map(({ id }) => id);
}

async function isDue(stage: StoreStage, id: string): Promise<boolean> {
  return (await claim(stage)).includes(id);
}

/** When the sweeper comes to a row, in seconds from now; null: never. */
async function dueIn(stage: StoreStage, id: string): Promise<number | null> {
  const [found] = await stage.query<{ seconds: number | null }>(
    `SELECT round(extract(epoch FROM next_refresh_at - clock_timestamp()))::float8 AS seconds
     FROM connections WHERE id = $1::uuid`,
    id,
  );
  return found?.seconds ?? null;
}

const marked = ({ id }: { id: string }, generation: number, version = 50) => [
  { connectionId: id, generation, version },
];

/** When the test began, by the monotonic clock. */
let beganMs = 0;

/** So many seconds after something that this test has done, less the time that has passed since the test began. */
const near = (seconds: number) =>
  expect.toSatisfy((left: number | null) => {
    const passedSeconds = (performance.now() - beganMs) / 1000;
    return left !== null && left <= seconds + 5 && left >= seconds - 5 - passedSeconds;
  }) as number;

const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000);

/** What the sweeper asks of the store, and the guard against restored databases. */
export function dueness(stage: () => StoreStage): void {
  beforeEach(() => void (beganMs = performance.now()));

  describe("a row whose time has come", () => {
    it("is claimed once for as long as the claim lasts, and is due again then", async () => {
      const { ids } = await dueRows(stage(), 1);
      const [id = ""] = ids;
      expect(await isDue(stage(), id)).toBe(true);
      expect([await isDue(stage(), id), await dueIn(stage(), id)]).toEqual([false, near(3600)]);
      await stage().set(id, "next_refresh_at = clock_timestamp() - interval '1 millisecond'");
      expect(await isDue(stage(), id)).toBe(true);
    });

    it("is claimed by one of many who claim at once, oldest first and no more than they want", async () => {
      const { ids } = await dueRows(stage(), 30);
      const claims = await Promise.all(Array.from({ length: 10 }, () => claim(stage(), { limit: 3 })));
      const claimed = claims.flat();
      expect(Math.max(...claims.map(({ length }) => length))).toBe(3);
      expect(new Set(claimed).size).toBe(claimed.length);
      const rest = await claim(stage());
      expect([...claimed, ...rest].filter((id) => ids.includes(id)).sort()).toEqual([...ids].sort());
    });

    it("of a provider that is busy is left where it is", async () => {
      const [busy, idle] = [await dueRows(stage(), 2), await dueRows(stage(), 2)];
      const claimed = await claim(stage(), { busyProviders: [busy.provider] });
      expect(busy.ids.filter((id) => claimed.includes(id))).toEqual([]);
      expect(idle.ids.filter((id) => claimed.includes(id)).sort()).toEqual([...idle.ids].sort());
      expect(await isDue(stage(), busy.ids[0] ?? "")).toBe(true);
    });

    it.each([
      ["disabled", false, "status = 'disabled'"],
      ["in need of a person", false, "status = 'needs_reauthorization'"],
      ["held since the database went back", false, "gone_back_from = 9"],
      ["pending", true, "status = 'pending'"],
      ["due only in an hour", false, "next_refresh_at = clock_timestamp() + interval '1 hour'"],
      ["never due", false, "next_refresh_at = NULL"],
    ] as const)("%s: %s", async (_is, expected, set) => {
      const { ids } = await dueRows(stage(), 1);
      await stage().set(ids[0] ?? "", set);
      expect(await isDue(stage(), ids[0] ?? "")).toBe(expected);
    });
  });

  describe("when a row is due", () => {
    it("is the end of its refresh token or grant as long as nobody reads it, and the end of the access token then", async () => {
      const grant = sealedGrant({ refreshDueAt: inSeconds(2700), keepAliveAt: inSeconds(8000) });
      const { row, key } = await stage().permit();
      await stage().rows.commitRefresh(key, grant, {});
      expect(await dueIn(stage(), row.id)).toEqual(near(8000));
      await stage().rows.markInUse([{ id: row.id, generation: 2 }]);
      expect([await dueIn(stage(), row.id), (await stage().row(row.id)).inUse]).toEqual([near(2700), true]);
    });

    it("is never for who reads nothing and whose grant does not end, and the next set is unread again", async () => {
      const { row, key } = await stage().permit();
      await stage().set(row.id, "in_use = true");
      await stage().rows.commitRefresh(key, sealedGrant(), {});
      expect([await dueIn(stage(), row.id), (await stage().row(row.id)).inUse]).toEqual([null, false]);
    });

    it("is not before a back-off is over, read or not", async () => {
      const row = await stage().connect();
      await stage().set(row.id, "backoff_until = clock_timestamp() + interval '4000 seconds'");
      await stage().rows.markInUse([row]);
      expect(await dueIn(stage(), row.id)).toEqual(near(4000));
    });

    it("is the sooner of both ends", async () => {
      const { row, key } = await stage().permit();
      await stage().rows.commitRefresh(key, sealedGrant({ keepAliveAt: inSeconds(100) }), {});
      await stage().rows.markInUse([{ id: row.id, generation: 2 }]);
      expect(await dueIn(stage(), row.id)).toEqual(near(100));
    });

    it("is, with a permit, when its owner must have left it behind: after lease and quiet period, where that is prompt", async () => {
      const row = await stage().connect();
      const request = {
        connectionId: row.id,
        generation: 1,
        attemptId: randomUUID(),
        leaseSeconds: 30,
        exclusive: true,
        takeover: null,
      };
      await stage().rows.takePermit({ ...request, statuses: ["connected"], ifAbandoned: prompt });
      expect(await dueIn(stage(), row.id)).toEqual(near(40));
      const cautious = await stage().permit();
      expect(await dueIn(stage(), cautious.row.id)).toEqual(near(3600));
      await stage().set(cautious.row.id, "next_refresh_at = NULL, expires_at = NULL");
      await stage().rows.leaveUnknown(cautious.key, failure, {
        backoffSeconds: 1,
        answer: null,
        endLease: false,
        ifAbandoned,
      });
      expect(await dueIn(stage(), cautious.row.id)).toBeNull();
    });

    it("is, with an outcome that nobody knows, not before the back-off is over either", async () => {
      const { row, key } = await stage().permit();
      const given = { answer: null, endLease: true, ifAbandoned: prompt };
      await stage().rows.leaveUnknown(key, failure, { ...given, backoffSeconds: 1 });
      expect(await dueIn(stage(), row.id)).toEqual(near(10));
      await stage().rows.leaveUnknown(key, failure, { ...given, backoffSeconds: 200 });
      expect(await dueIn(stage(), row.id)).toEqual(near(200));
    });

    it("is after the back-off of a permit that was given back, and as before for one that was dropped", async () => {
      const given = await stage().permit();
      await stage().set(given.row.id, "in_use = true");
      await stage().rows.returnPermit(given.key, failure, 5000);
      expect(await dueIn(stage(), given.row.id)).toEqual(near(5000));
      const dropped = await stage().permit();
      await stage().set(dropped.row.id, "in_use = true");
      await stage().rows.dropPermit(dropped.key);
      expect(await dueIn(stage(), dropped.row.id)).toEqual(near(2700));
    });

    it("is a minute after its creation where no person is needed, should nobody come to fetch its first token", async () => {
      const [alone, person] = [await stage().insert({ grant: "client_credentials" }), await stage().insert()];
      expect([await dueIn(stage(), alone.id), await dueIn(stage(), person.id)]).toEqual([near(60), null]);
    });

    it("is never once the grant has ended", async () => {
      const { row, key } = await stage().permit();
      await stage().set(row.id, "in_use = true, keep_alive_at = clock_timestamp()");
      await stage().rows.endGrant(key, failure);
      expect(await dueIn(stage(), row.id)).toBeNull();
    });
  });

  describe("a read", () => {
    it("is noted for its own generation, once, and moves nobody who is being refreshed", async () => {
      const row = await stage().connect();
      await stage().rows.markInUse([{ id: row.id, generation: 0 }]);
      expect((await stage().row(row.id)).inUse).toBe(false);
      await stage().rows.markInUse([row, { id: randomUUID(), generation: 1 }]);
      expect(await dueIn(stage(), row.id)).toEqual(near(2700));
      await stage().set(row.id, "next_refresh_at = clock_timestamp() + interval '60 seconds'");
      await stage().rows.markInUse([row]);
      expect(await dueIn(stage(), row.id)).toEqual(near(60));
      const { row: sending } = await stage().permit();
      await stage().rows.markInUse([sending]);
      expect([await dueIn(stage(), sending.id), (await stage().row(sending.id)).inUse]).toEqual([near(3600), true]);
    });

    it("of nothing, and of a thousand at once, is noted", async () => {
      await stage().rows.markInUse([]);
      const row = await stage().connect();
      const others = Array.from({ length: 1000 }, () => ({ id: randomUUID(), generation: 1 }));
      await stage().rows.markInUse([...others, row]);
      expect((await stage().row(row.id)).inUse).toBe(true);
    });
  });

  describe("a claimed row", () => {
    it("is put back for later, or for good", async () => {
      const { ids } = await dueRows(stage(), 2);
      const [later, never] = await Promise.all(ids.map((id) => stage().row(id)));
      await stage().rows.postpone(later as TokenRow, 300);
      await stage().rows.postpone(never as TokenRow, null);
      expect([await dueIn(stage(), later?.id ?? ""), await dueIn(stage(), never?.id ?? "")]).toEqual([near(300), null]);
    });

    it("that has moved on meanwhile is left as it is", async () => {
      const { ids } = await dueRows(stage(), 1);
      const row = await stage().row(ids[0] ?? "");
      await stage().rows.postpone({ ...row, generation: 0 }, 300);
      expect(await isDue(stage(), row.id)).toBe(true);
      const { row: sending } = await stage().permit();
      await stage().rows.postpone(sending, 1);
      expect(await dueIn(stage(), sending.id)).toEqual(near(3600));
      const idle = await stage().connect();
      await stage().rows.postpone(idle, 1);
      expect(await dueIn(stage(), idle.id)).toBeNull();
    });
  });

  describe("a row that somebody needs at once", () => {
    it("is due now, whether it was to be later or never; one that is being refreshed, or has moved on, is left as it is", async () => {
      const { ids } = await dueRows(stage(), 1);
      const [id = ""] = ids;
      await stage().rows.postpone(await stage().row(id), 300);
      const never = await stage().connect();
      for (const row of [await stage().row(id), never]) await stage().rows.hasten(row);
      const due = await claim(stage());
      expect([due.includes(id), due.includes(never.id)]).toEqual([true, true]);
      const { row: sending } = await stage().permit();
      await stage().rows.hasten(sending);
      expect(await dueIn(stage(), sending.id)).toBeGreaterThan(0);
      const later = await stage().connect();
      await stage().rows.hasten({ ...later, generation: later.generation - 1 });
      expect(await dueIn(stage(), later.id)).toBeNull();
    });
  });

  describe("a row behind its mark", () => {
    it("is held: no permit, no sweeping; and its next versions come after all that were handed out", async () => {
      const row = await stage().connect();
      const [held] = await stage().rows.suspendRestored(marked(row, 7));
      expect(held).toMatchObject({ id: row.id, generation: 1, goneBackFrom: 7, versionFloor: 50, status: "connected" });
      const request = {
        connectionId: row.id,
        generation: 1,
        attemptId: randomUUID(),
        leaseSeconds: 30,
        exclusive: true,
        takeover: null,
      };
      expect(await stage().rows.takePermit({ ...request, statuses: ["connected"], ifAbandoned })).toBeNull();
      const stored = await stage().rows.replaceGrant(
        { ...(held as TokenRow), attemptId: randomUUID() },
        sealedGrant(),
        {
          event: { type: "reconnected", detail: {} },
          exclusive: false,
        },
      );
      expect(stored).toMatchObject({ generation: 8, version: 52, goneBackFrom: null });
      expect((await stage().events(row.id)).slice(2)).toEqual(["held_after_restore", "reconnected"]);
    });

    it("is told from one that is not: equal, newer or unknown rows are left alone", async () => {
      const row = await stage().connect();
      const before = await stage().columns(row.id);
      expect(await stage().rows.suspendRestored(marked(row, 1))).toEqual([]);
      expect(await stage().rows.suspendRestored(marked(row, 0))).toEqual([]);
      expect(await stage().rows.suspendRestored(marked({ id: randomUUID() }, 9))).toEqual([]);
      expect(await stage().rows.suspendRestored([])).toEqual([]);
      expect(await stage().columns(row.id)).toEqual(before);
    });

    it("is held once: looking again writes no second line of history", async () => {
      const row = await stage().connect();
      await stage().rows.suspendRestored(marked(row, 7));
      await stage().rows.suspendRestored(marked(row, 7));
      expect((await stage().events(row.id)).filter((type) => type === "held_after_restore")).toHaveLength(1);
    });

    it("is listed for the operator, who may release it as it was read, under the generation it had", async () => {
      const row = await stage().connect();
      await stage().set(row.id, "in_use = true, backoff_until = clock_timestamp() + interval '1 hour'");
      await stage().rows.suspendRestored(marked(row, 7));
      expect((await stage().rows.goneBack()).map(({ id }) => id)).toContain(row.id);
      const tokens = { accessToken: sealedBytes(), refreshToken: sealedBytes() };
      const seen = { id: row.id, generation: 1, goneBackFrom: 7 };
      for (const stale of [{ goneBackFrom: 8 }, { generation: 2 }, { id: randomUUID() }]) {
        expect(await stage().rows.releaseGoneBack({ ...seen, ...stale }, tokens, "ops")).toBeNull();
      }
      const released = await stage().rows.releaseGoneBack(seen, tokens, "ops");
      expect(released).toMatchObject({ generation: 7, goneBackFrom: null, backoffUntil: null, ...tokens });
      expect(await dueIn(stage(), row.id)).toEqual(near(2700));
      expect((await stage().rows.goneBack()).map(({ id }) => id)).not.toContain(row.id);
      const [event] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
      expect(event).toMatchObject({ type: "released_after_restore", detail: { by: "ops" } });
    });
  });

  it("generations are read in batches, each connection once, with the version that none may go below", async () => {
    const rows = [await stage().connect(), await stage().connect(), await stage().insert()];
    await stage().set(rows[1]?.id ?? "", "version_floor = 40");
    const seen = new Map<string, unknown>();
    let last: string | null = null;
    for (;;) {
      const batch = await stage().rows.generationsAfter(last, 50);
      for (const { connectionId, ...mark } of batch) {
        expect(seen.has(connectionId)).toBe(false);
        seen.set(connectionId, mark);
      }
      last = batch.at(-1)?.connectionId ?? null;
      if (batch.length < 50) break;
    }
    expect(rows.map(({ id }) => seen.get(id))).toEqual([
      { generation: 1, version: 1 },
      { generation: 1, version: 40 },
      { generation: 0, version: 0 },
    ]);
  });
}
