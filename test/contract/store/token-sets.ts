import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { SealedGrant } from "../../../src/store/row-sql.ts";
import { ifAbandoned, sealedBytes, sealedGrant, type StoreStage, freely } from "./stage.ts";

const dead = { code: "invalid_grant", detail: "revoked" };

const lacking = (changes: Partial<SealedGrant> = {}) => {
  const issuedAt = new Date();
  return sealedGrant({
    refreshToken: null,
    refreshFingerprint: null,
    issuedAt,
    noRefreshTokenSince: issuedAt,
    ...changes,
  });
};

const odd = () => sealedGrant({ issuedAt: new Date(), unreadableLifetime: true });

const kept = () => {
  const issuedAt = new Date();
  return sealedGrant({ issuedAt, noRefreshTokenSince: issuedAt, keepsRefreshToken: true });
};

const ofAda = async (stage: StoreStage) => {
  const row = await stage.connect();
  await stage.set(row.id, "account = 'ada', refresh_token_expires_at = '2027-01-01T00:00:00Z'");
  return await stage.row(row.id);
};

/** Ada comes again, and brings no refresh token. */
async function putKept(stage: StoreStage, row: TokenRow, grant = kept()) {
  const given = { ...row, attemptId: randomUUID() };
  const event = { type: "reconnected" as const, detail: {} };
  return await stage.rows.replaceGrant(given, grant, { event, exclusive: false, clientId: "app", oldTokenOf: "ada" });
}

async function replace(
  stage: StoreStage,
  row: Pick<TokenRow, "id" | "generation" | "goneBackFrom">,
  { grant = sealedGrant(), exclusive = false }: { grant?: SealedGrant; exclusive?: boolean } = {},
) {
  const given = { ...row, attemptId: randomUUID() };
  return await stage.rows.replaceGrant(given, grant, {
    event: { type: "reconnected", detail: {} },
    exclusive,
    unlessSent: true,
  });
}

async function disable(stage: StoreStage, { id }: TokenRow, disabled: boolean) {
  return await stage.connections.update(await stage.row(id), { disabled }, freely);
}

/** One more refresh, and what the history says then: types, newest last, without those of the connecting, and the newest line. */
async function refreshOnce(stage: StoreStage, { id }: Pick<TokenRow, "id">) {
  const { generation } = await stage.row(id);
  const key = { connectionId: id, generation, attemptId: randomUUID() };
  const statuses = ["connected"] as const;
  await stage.rows.takePermit({ ...key, leaseSeconds: 30, statuses, ifAbandoned, exclusive: true, takeover: null });
  await stage.rows.commitRefresh(key, sealedGrant(), { generation: generation + 1, attempt: key.attemptId });
  const [newest] = await stage.connections.events(id, { limit: 1, before: null, patterns: ["%"] });
  return { types: (await stage.events(id)).slice(2), newest };
}

/** Every statement that stores a grant or ends one. For each of its guards there is a case that must not match. */
export function tokenSets(stage: () => StoreStage): void {
  describe("a grant", () => {
    describe("that a refresh brought", () => {
      it("is stored with the next generation and version, and frees the row", async () => {
        const { row, key } = await stage().permit();
        await stage().set(
          row.id,
          "consecutive_failures = 3, last_error_code = 'rate_limited', last_error_at = now(), last_error_detail = 'x'",
        );
        const grant = sealedGrant({ captured: { shop: "north" }, grantedScopes: ["read", "write"] });
        const stored = await stage().rows.commitRefresh(key, grant, { generation: 2 });
        expect(stored).toMatchObject({
          status: "connected",
          generation: 2,
          version: 2,
          authorization: row.authorization,
          accessToken: grant.accessToken,
          refreshToken: grant.refreshToken,
          captured: { shop: "north" },
          grantedScopes: ["read", "write"],
          issuedAt: grant.issuedAt,
          expiresAt: grant.expiresAt,
          attemptId: null,
          attemptStartedAt: null,
          leaseUntil: null,
          lastAttemptId: key.attemptId,
          consecutiveFailures: 0,
          lastErrorCode: null,
          lastErrorDetail: null,
          backoffUntil: null,
        });
        const columns = await stage().columns(row.id);
        expect(columns).toMatchObject({ last_error_at: null, enabled_status: "connected" });
        expect(columns["last_refreshed_at"]).not.toBeNull();
        const [event] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
        expect(event).toMatchObject({ type: "refreshed", detail: { generation: 2 } });
      });

      describe("is counted in the newest line of the history", () => {
        it("where that is a refresh of the same day", async () => {
          const row = await stage().connect();
          const { newest: first } = await refreshOnce(stage(), row);
          expect(first?.detail).toMatchObject({ generation: 2 });
          await refreshOnce(stage(), row);
          const { types, newest } = await refreshOnce(stage(), row);
          expect(types).toEqual(["refreshed"]);
          expect(newest?.detail).toMatchObject({ generation: 4, count: 3, first: expect.any(String) });
          expect(Date.parse(String(newest?.detail["first"]))).toBeLessThanOrEqual(newest?.at.getTime() ?? 0);
        });

        it("but not where something else came in between, nor on another day", async () => {
          const row = await stage().connect();
          await refreshOnce(stage(), row);
          await stage().connections.addEvent(row.id, "consent_failed", {});
          expect((await refreshOnce(stage(), row)).types).toEqual(["refreshed", "consent_failed", "refreshed"]);
          await stage().query(
            "UPDATE connection_events SET at = at - interval '1 day' WHERE connection_id = $1::uuid RETURNING 1 AS done",
            row.id,
          );
          const { types, newest } = await refreshOnce(stage(), row);
          expect([types.length, newest?.detail]).toEqual([
            4,
            expect.not.objectContaining({ count: expect.anything() }),
          ]);
        });

        it("and no line that somebody has spoilt keeps a token set from being stored", async () => {
          const row = await stage().connect();
          await refreshOnce(stage(), row);
          for (const detail of ['{"count": "many"}', '{"count": {}, "first": 7}', "[]", "7", "null"]) {
            await stage().query(
              "UPDATE connection_events SET detail = $2::jsonb WHERE connection_id = $1::uuid AND type = 'refreshed' RETURNING 1 AS done",
              row.id,
              detail,
            );
            await refreshOnce(stage(), row);
          }
          expect((await stage().row(row.id)).generation).toBe(7);
        });
      });

      it("is stored once: a repetition changes nothing, and the row tells that it was this attempt", async () => {
        const { row, key } = await stage().permit();
        const grant = sealedGrant();
        await stage().rows.commitRefresh(key, grant, {});
        const before = await stage().columns(row.id);
        const again = await Promise.all(Array.from({ length: 5 }, () => stage().rows.commitRefresh(key, grant, {})));
        expect(again).toEqual([null, null, null, null, null]);
        expect(await stage().columns(row.id)).toEqual(before);
        expect((await stage().row(row.id)).lastAttemptId).toBe(key.attemptId);
        expect(await stage().events(row.id)).toEqual(["created", "connected", "refreshed"]);
      });

      it("is stored by one of twenty who hold the same permit", async () => {
        const { row, key } = await stage().permit();
        const commits = Array.from({ length: 20 }, () => stage().rows.commitRefresh(key, sealedGrant(), {}));
        expect((await Promise.all(commits)).filter((answer) => answer !== null)).toHaveLength(1);
        expect(await stage().row(row.id)).toMatchObject({ generation: 2, version: 2 });
      });

      it("without an access token gets no version: there is nothing to hand out", async () => {
        const { key } = await stage().permit();
        const now = new Date();
        const grant = sealedGrant({ accessToken: null, issuedAt: now, expiresAt: now });
        const stored = await stage().rows.commitRefresh(key, grant, {});
        expect(stored).toMatchObject({ generation: 2, version: 1, accessToken: null });
      });

      it("that is already over backs off, so that it is not asked for again at once; one that never ends does not", async () => {
        const now = new Date();
        const over = await stage().permit();
        const stored = await stage().rows.commitRefresh(over.key, sealedGrant({ issuedAt: now, expiresAt: now }), {});
        const pauseMs = (stored?.backoffUntil?.getTime() ?? 0) - (stored?.now.getTime() ?? 0);
        expect(Math.round(pauseMs / 1000)).toBe(30);
        const endless = await stage().permit();
        expect(
          (await stage().rows.commitRefresh(endless.key, sealedGrant({ expiresAt: null }), {}))?.backoffUntil,
        ).toBeNull();
      });

      it("that names no scopes leaves those that were granted before", async () => {
        const { key } = await stage().permit();
        const stored = await stage().rows.commitRefresh(key, sealedGrant({ grantedScopes: null }), {});
        expect(stored?.grantedScopes).toEqual(["read"]);
      });

      it("that keeps the refresh token keeps its end, and a new one has its own", async () => {
        const end = new Date("2027-01-01T00:00:00.000Z");
        const endOf = async (keepsRefreshToken: boolean) => {
          const { row, key } = await stage().permit();
          await stage().set(row.id, `refresh_token_expires_at = '${end.toISOString()}'`);
          await stage().rows.commitRefresh(key, sealedGrant({ keepsRefreshToken, refreshTokenExpiresAt: null }), {});
          return (await stage().connections.findById(row.id))?.refreshTokenExpiresAt;
        };
        expect([await endOf(true), await endOf(false)]).toEqual([end, null]);
      });
    });

    describe("without a refresh token", () => {
      it("says so in the history, by the statement that stores it, and in the row; one with a refresh token ends that", async () => {
        const row = await stage().connect();
        const grant = lacking();
        const stored = await replace(stage(), row, { grant });
        expect(stored).toMatchObject({ refreshToken: null, noRefreshTokenSince: grant.issuedAt });
        const [newest] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
        expect(newest).toMatchObject({ type: "no_refresh_token", detail: { kept: false } });
        expect(await stage().connections.findById(row.id)).toMatchObject({ holdsRefresh: false });
        expect((await replace(stage(), await stage().row(row.id)))?.noRefreshTokenSince).toBeNull();
        const told = ["created", "connected", "reconnected", "no_refresh_token", "reconnected"];
        expect(await stage().events(row.id)).toEqual(told);
      });

      it("is told once while it lasts: by the sets that came after the first, no more", async () => {
        const { row, key } = await stage().permit();
        const earlier = new Date("2026-11-20T12:00:00.000Z");
        const stored = await stage().rows.commitRefresh(key, lacking({ noRefreshTokenSince: earlier }), {});
        expect(stored?.noRefreshTokenSince).toEqual(earlier);
        expect(await stage().events(row.id)).toEqual(["created", "connected", "refreshed"]);
      });
    });

    describe("with an access token that no header can carry", () => {
      it("says so in last_error until a set comes that can be handed out, and once a grant in the history", async () => {
        const row = await stage().connect();
        const lastError = { code: "unusable_token", detail: "It is odd." };
        const unusable = sealedGrant({ issuedAt: new Date(), lastError });
        await replace(stage(), row, { grant: unusable });
        const seen = async () => {
          const { lastErrorCode, lastErrorDetail, lastErrorAt } = (await stage().connections.findById(row.id)) ?? {};
          return [lastErrorCode, lastErrorDetail, lastErrorAt instanceof Date];
        };
        expect(await seen()).toEqual(["unusable_token", "It is odd.", true]);
        expect((await stage().row(row.id)).consecutiveFailures).toBe(0);
        expect(await stage().events(row.id)).toEqual(["created", "connected", "reconnected", "token_unusable"]);
        await replace(stage(), await stage().row(row.id), { grant: sealedGrant() });
        expect(await seen()).toEqual([null, null, false]);
      });
    });

    describe("with a life that cannot be read", () => {
      it("is told with the first set of a grant, and in the row until a set states one", async () => {
        const row = await stage().connect();
        expect((await replace(stage(), row, { grant: odd() }))?.unreadableLifetime).toBe(true);
        const { id: connectionId, generation } = await stage().row(row.id);
        const key = { connectionId, generation, attemptId: randomUUID() };
        await stage().rows.takePermit({
          ...key,
          leaseSeconds: 30,
          statuses: ["connected"],
          ifAbandoned,
          exclusive: true,
          takeover: null,
        });
        expect((await stage().rows.commitRefresh(key, odd(), {}))?.unreadableLifetime).toBe(true);
        const told = ["created", "connected", "reconnected", "lifetime_unreadable", "refreshed"];
        expect(await stage().events(row.id)).toEqual(told);
        expect((await replace(stage(), await stage().row(row.id), { grant: odd() }))?.unreadableLifetime).toBe(true);
        expect(await stage().events(row.id)).toEqual([...told, "reconnected", "lifetime_unreadable"]);
        expect((await replace(stage(), await stage().row(row.id), { grant: sealedGrant() }))?.unreadableLifetime).toBe(
          false,
        );
      });
    });

    describe("that keeps the refresh token of the account's former grant", () => {
      it("is stored with its end, the client id, and a word that it has not worked yet", async () => {
        const row = await ofAda(stage());
        const grant = kept();
        expect(await putKept(stage(), row, grant)).toMatchObject({
          refreshToken: grant.refreshToken,
          refreshTokenExpiresAt: new Date("2027-01-01T00:00:00Z"),
          authorizedClientId: "app",
          noRefreshTokenSince: grant.issuedAt,
          backoffUntil: null,
        });
        const [newest] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
        expect(newest).toMatchObject({ type: "no_refresh_token", detail: { kept: true } });
      });

      it("waits for the end of a request that is on its way with it: nobody sends it a second time meanwhile", async () => {
        const row = await ofAda(stage());
        const key = { connectionId: row.id, generation: row.generation, attemptId: randomUUID() };
        const wish = {
          leaseSeconds: 30,
          statuses: ["connected"] as const,
          ifAbandoned,
          exclusive: true,
          takeover: null,
        };
        const permitted = await stage().rows.takePermit({ ...key, ...wish });
        const stored = await putKept(stage(), permitted ?? row);
        expect(stored?.backoffUntil).toEqual(permitted?.leaseUntil);
        const next = { connectionId: row.id, generation: row.generation + 1, attemptId: randomUUID() };
        expect(await stage().rows.takePermit({ ...next, ...wish })).toBeNull();
        // The answer to that request comes when the grant has been replaced.
        expect(await stage().rows.commitRefresh(key, sealedGrant(), {})).toBeNull();
        expect(await stage().rows.endGrant(key, dead)).toBeNull();
        await stage().set(row.id, "backoff_until = clock_timestamp() - interval '1 second'");
        expect(await stage().rows.takePermit({ ...next, ...wish })).not.toBeNull();
      });

      it.each([
        ["was refused meanwhile", "status = 'needs_reauthorization', enabled_status = 'needs_reauthorization'"],
        ["is of a disabled connection", "status = 'disabled'"],
        ["went back in time with its database", "gone_back_from = 5"],
        ["is another account's meanwhile", "account = 'bob'"],
        ["is nobody's known account's meanwhile", "account = NULL"],
      ])("is not stored where that grant %s", async (_is, change) => {
        const row = await ofAda(stage());
        await stage().set(row.id, change);
        const before = await stage().columns(row.id);
        expect(await putKept(stage(), row)).toBeNull();
        expect(await stage().columns(row.id)).toEqual(before);
      });
    });

    describe("that a person brought", () => {
      it("takes the place of what was there: version 1 at first, then two further, with a new authorization", async () => {
        const row = await stage().insert();
        const first = await replace(stage(), row);
        expect(first).toMatchObject({ status: "connected", generation: 1, version: 1, authorization: 1 });
        const second = await replace(stage(), first as TokenRow);
        expect(second).toMatchObject({ generation: 2, version: 3, authorization: 2 });
        expect((await stage().columns(row.id))["authorized_at"]).not.toBeNull();
        expect(await stage().events(row.id)).toEqual(["created", "reconnected", "reconnected"]);
      });

      it("opens a connection whose grant had ended, and ends its back-off", async () => {
        const { row, key } = await stage().permit();
        await stage().rows.endGrant(key, dead);
        await stage().set(row.id, "backoff_until = clock_timestamp() + interval '1 hour'");
        const stored = await replace(stage(), row);
        expect(stored).toMatchObject({
          status: "connected",
          backoffUntil: null,
          lastErrorCode: null,
          consecutiveFailures: 0,
        });
      });

      it("frees a row that somebody is sending for, whose late answer is then refused", async () => {
        const { row, key } = await stage().permit();
        const stored = await replace(stage(), row);
        expect(stored).toMatchObject({ attemptId: null, version: 3 });
        expect(await stage().rows.commitRefresh(key, sealedGrant(), {})).toBeNull();
        expect(await stage().rows.endGrant(key, dead)).toBeNull();
        expect((await stage().row(row.id)).accessToken).toEqual(stored?.accessToken);
      });

      it("is refused when the row has moved since it was read, and of twenty at once one is stored", async () => {
        const row = await stage().connect();
        expect(await replace(stage(), { ...row, generation: 0 })).toBeNull();
        expect(await replace(stage(), { ...row, generation: 2 })).toBeNull();
        expect(await replace(stage(), { ...row, id: randomUUID() })).toBeNull();
        const answers = await Promise.all(Array.from({ length: 20 }, () => replace(stage(), row)));
        expect(answers.filter((answer) => answer !== null)).toHaveLength(1);
        expect(await stage().row(row.id)).toMatchObject({ generation: 2, version: 3, authorization: 2 });
      });
    });

    describe("whose refresh token another connection holds", () => {
      it("is refused where a token must be held once, and stored where it may be held often", async () => {
        const refreshFingerprint = sealedBytes();
        const grant = sealedGrant({ refreshFingerprint });
        const [holder, other] = [await stage().insert(), await stage().insert()];
        await replace(stage(), holder, { grant, exclusive: true });
        expect(await replace(stage(), other, { grant, exclusive: true })).toBeNull();
        expect(await stage().row(other.id)).toMatchObject({ status: "pending", generation: 0 });
        expect(await stage().rows.holdersElsewhere(other.id, refreshFingerprint)).toEqual([holder.name]);
        expect(await stage().rows.holdersElsewhere(holder.id, refreshFingerprint)).toEqual([]);
        expect(await replace(stage(), other, { grant, exclusive: false })).toMatchObject({ status: "connected" });
      });

      it("may be given to its own connection again, and to another once that one holds another", async () => {
        const grant = sealedGrant();
        const [holder, other] = [await stage().insert(), await stage().insert()];
        const first = await replace(stage(), holder, { grant, exclusive: true });
        const again = await replace(stage(), first as TokenRow, { grant, exclusive: true });
        expect(again?.generation).toBe(2);
        await replace(stage(), again as TokenRow, { exclusive: true });
        expect(await replace(stage(), other, { grant, exclusive: true })).not.toBeNull();
      });

      it("is not stored over itself while it is being sent: the answer in flight would be lost", async () => {
        const { row, key } = await stage().permit();
        const refreshFingerprint = sealedBytes();
        await stage().set(row.id, `refresh_fingerprint = '\\x${Buffer.from(refreshFingerprint).toString("hex")}'`);
        const same = sealedGrant({ refreshFingerprint });
        expect(await replace(stage(), row, { grant: same, exclusive: true })).toBeNull();
        expect((await stage().row(row.id)).attemptId).toBe(key.attemptId);
        expect(await replace(stage(), row, { grant: sealedGrant(), exclusive: true })).toMatchObject({ version: 3 });
      });

      it("is stored over itself by a person's new consent, and is not sent again before the request in flight is over", async () => {
        const { row } = await stage().permit();
        const refreshFingerprint = sealedBytes();
        await stage().set(row.id, `refresh_fingerprint = '\\x${Buffer.from(refreshFingerprint).toString("hex")}'`);
        const given = { event: { type: "reconnected" as const, detail: {} }, exclusive: true };
        const place = { ...row, attemptId: randomUUID() };
        const stored = await stage().rows.replaceGrant(place, sealedGrant({ refreshFingerprint }), given);
        expect([stored?.attemptId, stored?.backoffUntil]).toEqual([null, row.leaseUntil]);
        const other = await stage().permit();
        const fresh = { ...other.row, attemptId: randomUUID() };
        expect((await stage().rows.replaceGrant(fresh, sealedGrant(), given))?.backoffUntil).toBeNull();
      });

      it("goes to one of ten connections that ask for it at once", async () => {
        const grant = sealedGrant();
        const rivals = await Promise.all(Array.from({ length: 10 }, () => stage().insert()));
        const answers = await Promise.all(rivals.map((row) => replace(stage(), row, { grant, exclusive: true })));
        expect(answers.filter((answer) => answer !== null)).toHaveLength(1);
      });

      it("without a refresh token nothing can be held twice", async () => {
        const grant = sealedGrant({ refreshToken: null, refreshFingerprint: null });
        const [one, other] = [await stage().insert(), await stage().insert()];
        expect(await replace(stage(), one, { grant, exclusive: true })).not.toBeNull();
        expect(await replace(stage(), other, { grant, exclusive: true })).not.toBeNull();
      });
    });

    describe("of a disabled connection", () => {
      it("is stored and not served: the answer in flight shows when it is enabled", async () => {
        const { row, key } = await stage().permit();
        await disable(stage(), row, true);
        const stored = await stage().rows.commitRefresh(key, sealedGrant(), {});
        expect(stored).toMatchObject({ status: "disabled", generation: 2 });
        expect(await disable(stage(), row, false)).toMatchObject({ status: "connected", generation: 2 });
      });

      it("may end meanwhile, which shows when it is enabled", async () => {
        const { row, key } = await stage().permit();
        await disable(stage(), row, true);
        expect(await stage().rows.endGrant(key, dead)).toMatchObject({
          status: "disabled",
          lastErrorCode: "invalid_grant",
        });
        expect(await disable(stage(), row, false)).toMatchObject({ status: "needs_reauthorization" });
      });

      it("may be replaced meanwhile, which shows when it is enabled", async () => {
        const row = await stage().insert();
        await disable(stage(), row, true);
        expect(await replace(stage(), row)).toMatchObject({ status: "disabled", version: 1 });
        expect(await disable(stage(), row, false)).toMatchObject({ status: "connected" });
      });

      it("gives no permit", async () => {
        const row = await stage().connect();
        await disable(stage(), row, true);
        const request = {
          connectionId: row.id,
          generation: 1,
          attemptId: randomUUID(),
          leaseSeconds: 30,
          ifAbandoned,
          exclusive: true,
          takeover: null,
        };
        expect(await stage().rows.takePermit({ ...request, statuses: ["connected", "pending"] })).toBeNull();
      });
    });

    describe("that cannot be refreshed by anybody", () => {
      it("ends, if the row is still as it was read", async () => {
        const row = await stage().connect();
        const ended = await stage().rows.endUnrefreshable(row, { code: "no_refresh_token", detail: "none" });
        expect(ended).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "no_refresh_token" });
        expect(await stage().events(row.id)).toEqual(["created", "connected", "needs_reauthorization"]);
      });

      it.each([
        ["has moved on", "generation = generation + 1"],
        ["is disabled", "status = 'disabled'"],
        ["is pending", "status = 'pending'"],
        ["has ended before", "status = 'needs_reauthorization'"],
        [
          "has a permit",
          "attempt_id = gen_random_uuid(), attempt_started_at = clock_timestamp(), lease_until = clock_timestamp()",
        ],
      ])("does not end when the row %s", async (_is, set) => {
        const row = await stage().connect();
        await stage().set(row.id, set);
        const before = await stage().columns(row.id);
        expect(await stage().rows.endUnrefreshable(row, dead)).toBeNull();
        expect(await stage().columns(row.id)).toEqual(before);
        expect(await stage().events(row.id)).toEqual(["created", "connected"]);
      });
    });

    it("rows are read by name, and names without a connection are left out", async () => {
      const [one, other] = [await stage().connect(), await stage().connect()];
      const rows = await stage().rows.readByName([one.name, "nobody", other.name]);
      expect(rows.map(({ row }) => row.name).sort()).toEqual([one.name, other.name].sort());
      expect(await stage().rows.readByName([])).toEqual([]);
      expect(await stage().rows.readById(randomUUID())).toBeNull();
    });

    it("a row counts as changed after whatever was written that it is read from, and after nothing else", async () => {
      const client = await stage().clients.insert({
        id: randomUUID(),
        name: `app-${randomUUID()}`,
        provider: "own",
        clientId: "app",
        scopes: [],
        patterns: ["*"],
        inputs: {},
        ownRedirectUri: false,
        secretRevision: 0,
        secret: sealedBytes(),
      });
      const own = await stage().connect({ client });
      const further = await stage().connect({ name: `${own.name}#page` });
      await stage().set(further.id, `parent_id = '${own.id}', chain = 'page'`);
      const names = [own.name, further.name];
      const nameOf = new Map([own, further].map(({ id, name }) => [id, name]));
      const changedBy = async (sql: string) => {
        const known = (await stage().rows.readByName(names)).map(({ row, asOf }) => ({ id: row.id, asOf }));
        await stage().query(sql);
        const { ids } = await stage().rows.changedSince(known);
        return ids.map((id) => nameOf.get(id) ?? "").sort();
      };
      const update = (set: string, id = own.id) =>
        `UPDATE connections SET ${set} WHERE id = '${id}' RETURNING 1 AS done`;
      expect(await changedBy("SELECT 1 AS done")).toEqual([]);
      expect(await changedBy(`SELECT 1 AS done FROM connections WHERE id = '${own.id}' FOR UPDATE`)).toEqual([]);
      for (const set of [
        "status = 'disabled'",
        "generation = 9",
        'labels = \'{"a": "b"}\'',
        "mac = 'x'",
        "in_use = NOT in_use",
      ]) {
        expect(await changedBy(update(set)), set).toEqual(names);
      }
      expect(await changedBy(update("mac = mac", further.id))).toEqual([further.name]);
      expect(
        await changedBy(`UPDATE clients SET inputs = '{"a": "b"}' WHERE id = '${client.id}' RETURNING 1 AS done`),
      ).toEqual([own.name]);
      expect(await changedBy(`DELETE FROM connections WHERE id = '${own.id}' RETURNING 1 AS done`)).toEqual(names);
      expect((await stage().rows.changedSince([])).ids).toEqual([]);
    });

    it("a connection that has never been granted anything has no scopes, not none that are known", async () => {
      const row = await stage().insert();
      expect(row.grantedScopes).toEqual([]);
      expect((await stage().connections.findById(row.id))?.grantedScopes).toEqual([]);
    });
  });
}
