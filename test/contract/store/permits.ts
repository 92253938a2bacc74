import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { PermitRequest } from "../../../src/store/permits.ts";
import type { PermitKey } from "../../../src/store/row-sql.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { hangMs } from "../../support/patience.ts";
import { freely, ifAbandoned, sealedBytes, sealedGrant, type StoreStage } from "./stage.ts";

const statuses = ["connected"] as const;
const busy = { code: "rate_limited", detail: "slow down", status: 429 };

const ask = (row: TokenRow, changes: Partial<PermitRequest> = {}): PermitRequest => ({
  connectionId: row.id,
  generation: row.generation,
  attemptId: randomUUID(),
  leaseSeconds: 30,
  statuses,
  exclusive: true,
  ifAbandoned,
  takeover: null,
  ...changes,
});

/** Used instead of seconds, so that the time that a test takes decides nothing. */
const hour = 3600;

type Takeover = NonNullable<PermitRequest["takeover"]>;
const takeover = (row: TokenRow, changes: Partial<Takeover> = {}): Takeover => ({
  seenAttemptId: row.attemptId ?? randomUUID(),
  quietSeconds: 10 * hour,
  promptly: true,
  graceSeconds: 0,
  graceQuietSeconds: 2 * hour,
  ...changes,
});

const ago = (seconds: number) => `clock_timestamp() - interval '${seconds} seconds'`;
/** A permit whose lease ended so many seconds ago. */
const abandoned = (seconds: number) => `lease_until = ${ago(seconds)}, attempt_started_at = ${ago(seconds + 30)}`;

/** What is kept of answers that nobody could read, the newest first. */
async function unreadAnswers(stage: StoreStage, id: string): Promise<string[]> {
  const rows = await stage.query<{ answer: string }>(
    "SELECT encode(answer_sealed, 'hex') AS answer FROM unread_answers WHERE connection_id = $1::uuid ORDER BY received_at DESC",
    id,
  );
  return rows.map(({ answer }) => answer);
}

/** Columns that a permit is made of. */
const permitOf = (columns: Record<string, unknown>) => ({
  attempt: columns["attempt_id"],
  started: columns["attempt_started_at"],
  lease: columns["lease_until"],
  outcome: columns["attempt_outcome"],
});
const noPermit = { attempt: null, started: null, lease: null, outcome: null };

const differentKeys: { is: string; change: (key: PermitKey) => Partial<PermitKey> }[] = [
  { is: "of another attempt", change: () => ({ attemptId: randomUUID() }) },
  { is: "of the generation before", change: ({ generation }) => ({ generation: generation - 1 }) },
  { is: "of the next generation", change: ({ generation }) => ({ generation: generation + 1 }) },
  { is: "of another connection", change: () => ({ connectionId: randomUUID() }) },
];

/** Connections that hold the same refresh token. No statement of today makes such rows. */
async function sharing(stage: StoreStage, count: number): Promise<TokenRow[]> {
  const { refreshFingerprint } = sealedGrant();
  const rows: TokenRow[] = [];
  while (rows.length < count) {
    const row = await stage.connect();
    await stage.set(row.id, `refresh_fingerprint = '\\x${Buffer.from(refreshFingerprint ?? []).toString("hex")}'`);
    rows.push(row);
  }
  return rows;
}

/** Every statement that moves a permit. For each of its guards there is a case that must not match. */
export function permits(stage: () => StoreStage): void {
  describe("a permit to send", () => {
    describe("is given for a free row", () => {
      it("with a lease by Postgres's clock, and changes nothing else", async () => {
        const row = await stage().connect();
        await stage().set(row.id, "next_refresh_at = date_trunc('milliseconds', clock_timestamp())");
        const before = await stage().columns(row.id);
        const request = ask(row);
        const permitted = await stage().rows.takePermit(request);
        expect(permitted).toMatchObject({
          attemptId: request.attemptId,
          attemptOutcome: null,
          generation: 1,
          version: 1,
        });
        const [lease, start] = [permitted?.leaseUntil?.getTime() ?? 0, permitted?.attemptStartedAt?.getTime() ?? 0];
        expect(Math.abs(lease - start - 30_000)).toBeLessThanOrEqual(1);
        const nowMs = permitted?.now.getTime() ?? 0;
        expect([nowMs >= start - 1, nowMs <= start + hangMs]).toEqual([true, true]);
        const { attempt_id, attempt_started_at, lease_until, next_refresh_at, ...others } = await stage().columns(
          row.id,
        );
        expect([attempt_id, attempt_started_at, lease_until]).not.toContain(null);
        // If the owner does not come back, the sweeper looks at the row when the access token ends.
        expect(next_refresh_at).toBe(others["expires_at"]);
        expect(before).toMatchObject(others);
      });

      it("to one of twenty who ask at once", async () => {
        const row = await stage().connect();
        const requests = Array.from({ length: 20 }, () => ask(row));
        const answers = await Promise.all(requests.map((request) => stage().rows.takePermit(request)));
        const given = answers.flatMap((answer, index) => (answer === null ? [] : [requests[index]?.attemptId]));
        expect(given).toHaveLength(1);
        expect((await stage().row(row.id)).attemptId).toBe(given[0]);
      });

      it("to one of ten connections that hold the same refresh token; the others lose their copy of it", async () => {
        const rows = await sharing(stage(), 10);
        const answers = await Promise.all(rows.map((row) => stage().rows.takePermit(ask(row))));
        // Later ones may still get a permit, but they have no refresh token to send.
        const senders = answers.filter((answer) => answer !== null && answer.refreshToken !== null);
        expect(senders).toHaveLength(1);
        const after = await Promise.all(rows.map(({ id }) => stage().row(id)));
        const holders = after.filter(({ refreshToken }) => refreshToken !== null);
        expect(holders.map(({ id }) => id)).toEqual([senders[0]?.id]);
        for (const row of after.filter(({ id }) => id !== holders[0]?.id)) {
          // Their access tokens are served until they end. Then a person must connect the account.
          expect(row).toMatchObject({ status: "connected", accessToken: expect.anything() });
          expect(row.noRefreshTokenSince).not.toBeNull();
          expect((await stage().events(row.id)).at(-1)).toBe("no_refresh_token");
        }
      });

      it("to none while another connection has one for the same refresh token, which stays the other's", async () => {
        const [one, other] = (await sharing(stage(), 2)) as [TokenRow, TokenRow];
        await stage().rows.takePermit(ask(one, { exclusive: false }));
        expect(await stage().rows.takePermit(ask(other))).toBeNull();
        expect((await stage().row(one.id)).refreshToken).not.toBeNull();
        expect((await stage().row(other.id)).refreshToken).toBeNull();
      });

      it("to each of them where a refresh token is not spent when it is sent", async () => {
        for (const row of await sharing(stage(), 3)) {
          expect(await stage().rows.takePermit(ask(row, { exclusive: false }))).not.toBeNull();
          expect((await stage().row(row.id)).refreshToken).not.toBeNull();
        }
      });

      it.each<{ is: string; set?: string; request?: (row: TokenRow) => Partial<PermitRequest>; given: boolean }>([
        { is: "at the generation before", request: (row) => ({ generation: row.generation - 1 }), given: false },
        { is: "at the next generation", request: (row) => ({ generation: row.generation + 1 }), given: false },
        { is: "of another connection", request: () => ({ connectionId: randomUUID() }), given: false },
        { is: "that is disabled", set: "status = 'disabled'", given: false },
        { is: "that needs a person", set: "status = 'needs_reauthorization'", given: false },
        { is: "that is pending", set: "status = 'pending'", given: false },
        {
          is: "that is pending, where that is a status to refresh in",
          set: "status = 'pending'",
          request: () => ({ statuses: ["connected", "pending"] }),
          given: true,
        },
        { is: "that backs off", set: "backoff_until = clock_timestamp() + interval '1 hour'", given: false },
        { is: "whose back-off is over", set: `backoff_until = ${ago(0.001)}`, given: true },
        {
          is: "seen with a permit that is gone by now",
          request: (row) => ({ takeover: takeover(row) }),
          given: true,
        },
      ])("$is: $given", async ({ set, request, given }) => {
        const row = await stage().connect();
        if (set !== undefined) await stage().set(row.id, set);
        expect((await stage().rows.takePermit(ask(row, request?.(row)))) !== null).toBe(given);
      });

      it("names no time zone: a lease of 30 s is over after 30 s for a database anywhere", async () => {
        const { row } = await stage().permit();
        const [left] = await stage().query<{ seconds: number }>(
          "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 AS seconds FROM connections WHERE id = $1::uuid",
          row.id,
        );
        // A zone would make it an hour more or less.
        expect(left?.seconds).toBeGreaterThan(30 - 1800);
        expect(left?.seconds).toBeLessThanOrEqual(30);
      });
    });

    describe("is taken over", () => {
      type Case = {
        is: string;
        set: string;
        request?: Partial<Takeover>;
        changes?: Partial<PermitRequest>;
        given: boolean;
      };
      const cases: Case[] = [
        { is: "while its lease runs", set: "attempt_outcome = 'unknown'", given: false },
        { is: "while the quiet period runs", set: abandoned(9 * hour), given: false },
        { is: "after lease and quiet period", set: abandoned(10 * hour), given: true },
        {
          is: "after both, with an unknown outcome",
          set: `${abandoned(10 * hour)}, attempt_outcome = 'unknown'`,
          given: true,
        },
        {
          is: "by who saw another attempt",
          set: abandoned(60 * hour),
          request: { seenAttemptId: randomUUID() },
          given: false,
        },
        {
          is: "not promptly, with a live access token",
          set: `${abandoned(60 * hour)}, expires_at = clock_timestamp() + interval '1 hour'`,
          request: { promptly: false },
          given: false,
        },
        {
          is: "not promptly, with one that never runs out",
          set: `${abandoned(60 * hour)}, expires_at = NULL`,
          request: { promptly: false },
          given: false,
        },
        {
          is: "not promptly, with one that has run out",
          set: `${abandoned(60 * hour)}, expires_at = ${ago(0.001)}`,
          request: { promptly: false },
          given: true,
        },
        {
          is: "not promptly, inside the grace window",
          set: abandoned(2 * hour),
          request: { promptly: false, graceSeconds: 120 * hour },
          given: true,
        },
        {
          is: "inside the grace window, within its shorter quiet period",
          set: abandoned(1 * hour),
          request: { graceSeconds: 120 * hour },
          given: false,
        },
        {
          is: "not promptly, where a replay would end beyond the grace window",
          set: abandoned(20 * hour), // first sent 30 s before that
          request: { promptly: false, graceSeconds: 20 * hour + 59 },
          given: false,
        },
        {
          is: "not promptly, where a replay would end inside it",
          set: abandoned(20 * hour),
          request: { promptly: false, graceSeconds: 21 * hour },
          given: true,
        },
        {
          is: "beyond the grace window, within the whole quiet period",
          set: abandoned(5 * hour),
          request: { graceSeconds: 60 },
          given: false,
        },
        {
          is: "while the row backs off",
          set: `${abandoned(60 * hour)}, backoff_until = clock_timestamp() + interval '1 hour'`,
          given: false,
        },
        { is: "of a disabled connection", set: `${abandoned(60 * hour)}, status = 'disabled'`, given: false },
        { is: "at the generation before", set: abandoned(60 * hour), changes: { generation: 0 }, given: false },
      ];

      it.each(cases)("$is: $given", async ({ set, request, changes, given }) => {
        const { row } = await stage().permit();
        await stage().set(row.id, set);
        const wanted = ask(row, { takeover: takeover(row, request), ...changes });
        expect((await stage().rows.takePermit(wanted)) !== null).toBe(given);
      });

      it("never by who wants a free row only", async () => {
        const { row } = await stage().permit();
        await stage().set(row.id, abandoned(3600));
        expect(await stage().rows.takePermit(ask(row))).toBeNull();
      });

      it("by one of twenty who ask at once", async () => {
        const { row } = await stage().permit();
        await stage().set(row.id, abandoned(60 * hour));
        const requests = Array.from({ length: 20 }, () => ask(row, { takeover: takeover(row) }));
        const answers = await Promise.all(requests.map((request) => stage().rows.takePermit(request)));
        expect(answers.filter((answer) => answer !== null)).toHaveLength(1);
      });

      it("keeping the date of the first send, with a lease of its own and its outcome open", async () => {
        const { row, key } = await stage().permit();
        await stage().set(row.id, `${abandoned(60 * hour)}, attempt_outcome = 'unknown'`);
        const before = await stage().row(row.id);
        const replaying = await stage().rows.takePermit(ask(row, { takeover: takeover(row) }));
        expect(replaying?.attemptStartedAt).toEqual(before.attemptStartedAt);
        expect(replaying?.attemptOutcome).toBeNull();
        expect(replaying?.attemptId).not.toBe(key.attemptId);
        expect(replaying?.leaseUntil?.getTime()).toBeGreaterThan((replaying?.now.getTime() ?? 0) + 25_000);
      });
    });

    describe("is swapped for another send of the same attempt", () => {
      it("with a lease of its own; the date of the first send stays", async () => {
        const { row, key } = await stage().permit();
        await stage().set(row.id, `${abandoned(5)}, attempt_outcome = 'unknown'`);
        const before = await stage().row(row.id);
        const next = randomUUID();
        const swapped = await stage().rows.swapPermit(key, { attemptId: next, leaseSeconds: 30 });
        expect(swapped).toMatchObject({
          attemptId: next,
          attemptOutcome: null,
          attemptStartedAt: before.attemptStartedAt,
        });
        expect(swapped?.leaseUntil?.getTime()).toBeGreaterThan((swapped?.now.getTime() ?? 0) + 25_000);
        expect(await stage().rows.swapPermit(key, { attemptId: randomUUID(), leaseSeconds: 30 })).toBeNull();
      });
    });

    describe("goes back", () => {
      it("after a refusal for now: free, with a back-off, the failure and its history row", async () => {
        const { row, key } = await stage().permit();
        await stage().set(row.id, "consecutive_failures = 2");
        const returned = await stage().rows.returnPermit(key, busy, 42);
        expect(returned).toMatchObject({
          status: "connected",
          attemptId: null,
          consecutiveFailures: 3,
          lastErrorCode: "rate_limited",
          lastErrorDetail: "slow down",
        });
        expect(Math.round(((returned?.backoffUntil?.getTime() ?? 0) - (returned?.now.getTime() ?? 0)) / 1000)).toBe(42);
        const columns = await stage().columns(row.id);
        expect(permitOf(columns)).toEqual(noPermit);
        expect(columns).toMatchObject({ generation: 1, version: 1 });
        const [event] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
        expect(event).toMatchObject({ type: "refresh_failed", detail: busy });
      });

      it("when nothing left the process: free as if it had not been taken, and nothing is written down", async () => {
        const row = await stage().connect();
        const before = await stage().columns(row.id);
        const request = ask(row);
        await stage().rows.takePermit(request);
        await stage().rows.dropPermit(request);
        // A floor of 1 changes nothing: no version may be lower than the present one anyway.
        expect(await stage().columns(row.id)).toEqual({ ...before, version_floor: 1 });
        expect(await stage().events(row.id)).toEqual(["created", "connected"]);
      });
    });

    describe("stays when nobody knows the outcome", () => {
      it("with its lease, the raw answer, a back-off and a history row", async () => {
        const { row, key } = await stage().permit();
        const answer = sealedBytes();
        const left = await stage().rows.leaveUnknown(key, busy, {
          backoffSeconds: 5,
          answer,
          endLease: false,
          ifAbandoned,
        });
        expect(left).toMatchObject({ attemptId: key.attemptId, attemptOutcome: "unknown", consecutiveFailures: 1 });
        expect(left?.leaseUntil).toEqual(row.leaseUntil);
        expect(left?.attemptStartedAt).toEqual(row.attemptStartedAt);
        expect(await unreadAnswers(stage(), row.id)).toEqual([Buffer.from(answer).toString("hex")]);
        expect(await stage().events(row.id)).toEqual(["created", "connected", "refresh_failed"]);
      });

      it("of a refused replay the lease ends now, and the first answer is kept where this one brought none", async () => {
        const { row, key } = await stage().permit();
        const answer = sealedBytes();
        await stage().rows.leaveUnknown(key, busy, { backoffSeconds: 0, answer, endLease: false, ifAbandoned });
        const left = await stage().rows.leaveUnknown(key, busy, {
          backoffSeconds: 0,
          answer: null,
          endLease: true,
          ifAbandoned,
        });
        const lateMs = (left?.now.getTime() ?? 0) - (left?.leaseUntil?.getTime() ?? 0);
        // It would have had 30 s from the permit on.
        expect(lateMs).toBeGreaterThanOrEqual(-1);
        const permitMs = left?.attemptStartedAt?.getTime() ?? NaN;
        expect(left?.leaseUntil?.getTime()).not.toBeCloseTo(permitMs + 30_000, -1);
        expect(await unreadAnswers(stage(), row.id)).toEqual([Buffer.from(answer).toString("hex")]);
      });
    });

    it("of answers that nobody could read the newest three stay, until they are old or the connection is deleted", async () => {
      const { row, key } = await stage().permit();
      const hex = [1, 2, 3, 4, 5].map((byte) => byte.toString(16).padStart(2, "0"));
      for (const one of hex) {
        const answer = new Uint8Array(Buffer.from(one, "hex"));
        await stage().rows.leaveUnknown(key, busy, { backoffSeconds: 0, answer, endLease: false, ifAbandoned });
        // Two statements of one moment have no order.
        await stage().query("UPDATE unread_answers SET received_at = received_at - interval '1 second'");
      }
      expect(await unreadAnswers(stage(), row.id)).toEqual(["05", "04", "03"]);
      await stage().rows.returnPermit(key, busy, 1);
      await stage().query(
        "UPDATE unread_answers SET received_at = clock_timestamp() - interval '31 days' WHERE answer_sealed = '\\x03'",
      );
      await stage().rows.tidy();
      expect(await unreadAnswers(stage(), row.id)).toEqual(["05", "04"]);
      await stage().connections.delete(row.id);
      expect(await unreadAnswers(stage(), row.id)).toEqual([]);
    });

    describe("ends with the grant", () => {
      it("on invalid_grant: free, in need of a person, the access token kept", async () => {
        const { row, key } = await stage().permit();
        await stage().set(row.id, "backoff_until = clock_timestamp()");
        const ended = await stage().rows.endGrant(key, { code: "invalid_grant", detail: "revoked" });
        expect(ended).toMatchObject({
          status: "needs_reauthorization",
          attemptId: null,
          backoffUntil: null,
          lastErrorCode: "invalid_grant",
          accessToken: row.accessToken,
          generation: 1,
        });
        expect(await stage().events(row.id)).toEqual(["created", "connected", "needs_reauthorization"]);
      });
    });

    describe("does not end with the grant", () => {
      it("when a person has given new credentials since: those may work", async () => {
        const { row, key } = await stage().permit({ grant: "password" });
        const { id, credentialsRevision } = row;
        await stage().connections.update(row, { credentials: sealedBytes() }, freely);
        expect(await stage().rows.endGrant({ ...key, credentialsRevision }, busy)).toBeNull();
        expect(await stage().row(id)).toMatchObject({ status: "connected", attemptId: key.attemptId });
        const tried = { ...key, credentialsRevision: credentialsRevision + 1 };
        expect(await stage().rows.endGrant(tried, busy)).toMatchObject({ status: "needs_reauthorization" });
      });
    });

    describe("cannot be used by who does not have it", () => {
      it.each(differentKeys)("a key $is moves nothing and writes no history", async ({ change }) => {
        const { row, key } = await stage().permit();
        const before = await stage().columns(row.id);
        const other = { ...key, ...change(key) };
        const { rows } = stage();
        await rows.dropPermit(other);
        expect(await rows.swapPermit(other, { attemptId: randomUUID(), leaseSeconds: 30 })).toBeNull();
        expect(await rows.returnPermit(other, busy, 1)).toBeNull();
        expect(
          await rows.leaveUnknown(other, busy, { backoffSeconds: 1, answer: null, endLease: true, ifAbandoned }),
        ).toBeNull();
        expect(await rows.endGrant(other, busy)).toBeNull();
        expect(await rows.commitRefresh(other, sealedGrant(), {})).toBeNull();
        expect(await stage().columns(row.id)).toEqual(before);
        expect(await stage().events(row.id)).toEqual(["created", "connected"]);
      });

      it("nor by its former owner, once it was swapped, given back, taken over, used or ended", async () => {
        const { rows } = stage();
        const moves: ((key: PermitKey, row: TokenRow) => Promise<unknown>)[] = [
          async (key) => await rows.swapPermit(key, { attemptId: randomUUID(), leaseSeconds: 30 }),
          async (key) => await rows.returnPermit(key, busy, 1),
          async (key) => await rows.dropPermit(key),
          async (key) => await rows.commitRefresh(key, sealedGrant(), {}),
          async (key) => await rows.endGrant(key, busy),
          async (_key, row) => {
            await stage().set(row.id, abandoned(60 * hour));
            await rows.takePermit(ask(row, { takeover: takeover(row) }));
          },
        ];
        for (const move of moves) {
          const { row, key } = await stage().permit();
          await move(key, row);
          const before = await stage().columns(row.id);
          expect(await rows.endGrant(key, busy)).toBeNull();
          expect(await rows.commitRefresh(key, sealedGrant(), {})).toBeNull();
          expect(await rows.returnPermit(key, busy, 1)).toBeNull();
          expect(await stage().columns(row.id)).toEqual(before);
        }
      });
    });

    it("permits that stand are counted, with the age of the oldest", async () => {
      const before = await stage().rows.permitAges();
      const { row } = await stage().permit();
      await stage().connect();
      await stage().set(row.id, `attempt_started_at = ${ago(1_000_000)}`);
      const after = await stage().rows.permitAges();
      expect(after.count).toBe(before.count + 1);
      expect(after.oldestSeconds).toBeGreaterThanOrEqual(1_000_000 - 1);
      expect(after.oldestSeconds).toBeLessThan(1_000_000 + hangMs / 1000);
    });

    it("half a permit cannot be written", async () => {
      const row = await stage().connect();
      await expect(stage().set(row.id, "attempt_id = gen_random_uuid()")).rejects.toThrow();
      await expect(stage().set(row.id, "lease_until = clock_timestamp()")).rejects.toThrow();
      await expect(stage().set(row.id, "status = 'gone'")).rejects.toThrow();
      await expect(stage().set(row.id, "enabled_status = 'disabled'")).rejects.toThrow();
    });
  });
}
