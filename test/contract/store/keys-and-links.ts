import { createHash, randomBytes, randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type ApiKeyRow, createApiKeys } from "../../../src/store/api-keys.ts";
import { createConsentLinks } from "../../../src/store/consents.ts";
import { consentTimes } from "../../../src/time.ts";
import { createKeyList, createKeyring, sealKeyCheck } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { proveByHand } from "../../support/prove-by-hand.ts";
import { type StoreStage, vault } from "./stage.ts";

const hash = (text: string) => new Uint8Array(createHash("sha256").update(text).digest());
const browsers = Array.from({ length: 8 }, (_, number) => hash(`browser ${number}`));
const [mine, other] = [hash("browser 0"), hash("browser 1")];
const passed = (answers: boolean[]) => answers.filter(Boolean).length;

/** Two replicas in the middle of a rotation: one already seals with a newer key, which the other does not have. */
export function replicasOf({ encryptionKeys }: StoreStage) {
  const keyList = createKeyList(async () => (await encryptionKeys.list()).map(({ id }) => id));
  const lacking = createTokenVault(createKeyring([older]), { isSilent: (error) => keyList.isSilent(error) });
  return { newer: createTokenVault(createKeyring([newest, older])), lacking };
}
const [older, newest] = [
  { id: "older", key: randomBytes(32) },
  { id: "newest", key: randomBytes(32) },
];

export async function nameNewerKey(stage: StoreStage): Promise<void> {
  const check = sealKeyCheck(createKeyring([newest]), newest.id);
  await stage.database.prisma.encryptionKey.upsert({
    where: { id: "newest" },
    create: { id: "newest", check },
    update: {},
  });
}

const at = (minute: number) => new Date(Date.UTC(2027, 0, 31, 12, minute));

/** Every statement on API keys and on encryption keys. */
export function keys(stage: () => StoreStage): void {
  const ask = async ({ giver = null, ...changes }: Partial<ApiKeyRow> & { giver?: string | null } = {}) => {
    const id = randomUUID();
    const bounds = { connections: ["acme-*"], labels: {}, expiresAt: new Date("2030-01-01") };
    const fields = { id, name: "billing", ...bounds, ...changes };
    const find = giver === null ? null : async () => await stage().keys.giver(giver);
    return await stage().keys.insert({ ...fields, abilities: ["tokens", "admin"], secretHash: hash(id) }, find);
  };
  const insert = async (changes: Partial<ApiKeyRow> & { giver?: string | null } = {}): Promise<ApiKeyRow> => {
    const row = await ask(changes);
    if (row === null) throw new Error("the key was not made");
    return row;
  };
  const all = { patterns: ["%"], labels: {} };
  const usesOf = async (...ids: string[]) =>
    Object.fromEntries(
      (await stage().keys.list({ limit: 100, after: null }, all))
        .filter(({ id }) => ids.includes(id))
        .map(({ id, lastUsedAt }) => [id, lastUsedAt]),
    );

  describe("an API key", () => {
    it("is found by its id, with what it may do", async () => {
      const key = await insert();
      expect(await stage().keys.findMany([key.id, "nobody"])).toEqual([key]);
      expect(key).toMatchObject({
        abilities: ["tokens", "admin"],
        connections: ["acme-*"],
        expiresAt: new Date("2030-01-01"),
        revokedAt: null,
      });
      expect(Buffer.from(key.secretHash)).toEqual(Buffer.from(hash(key.id)));
    });

    it("is revoked once: the second time changes nothing, and an unknown one is told", async () => {
      const key = await insert();
      expect(await stage().keys.revoke(key.id, all)).toBe(true);
      const [first] = await stage().keys.findMany([key.id]);
      expect(first?.revokedAt).not.toBeNull();
      expect(await stage().keys.revoke(key.id, all)).toBe(true);
      expect(await stage().keys.findMany([key.id])).toEqual([first]);
      expect(await stage().keys.revoke("nobody", all)).toBe(false);
    });

    it("works until it is revoked or over, and only one of ours does", async () => {
      const wide = { patterns: ["mine-%"], labels: {} };
      const of = async (changes: Partial<ApiKeyRow>) => (await insert({ connections: ["mine-*"], ...changes })).id;
      const [first, revoked, , forged, last] = [
        await of({}),
        await of({}),
        await of({ expiresAt: new Date("2027-01-01") }),
        await of({}),
        await of({ expiresAt: null }),
      ];
      await insert();
      await stage().keys.revoke(revoked, wide);
      await stage().query("UPDATE api_keys SET name = 'forged' WHERE id = $1 RETURNING 1 AS done", forged);
      const working = await stage().keys.working(Date.parse("2027-01-01"), wide);
      expect(working.map(({ id }) => id)).toEqual([first, last]);
    });

    it("stands in a list in pages without gap or repetition, revoked ones too, though made at the same moment", async () => {
      const made = await Promise.all(Array.from({ length: 5 }, () => insert()));
      await stage().keys.revoke(made[0]?.id ?? "", all);
      const ids = made.map(({ id }) => id);
      await stage().query(
        "UPDATE api_keys SET created_at = '2026-01-01' WHERE id = ANY($1::text[]) RETURNING 1 AS done",
        ids,
      );
      const seen: string[] = [];
      for (let after: ApiKeyRow | null = null; ;) {
        const position: { createdAt: Date; id: string } | null = after && { createdAt: after.createdAt, id: after.id };
        const page: ApiKeyRow[] = await stage().keys.list({ limit: 2, after: position }, all);
        seen.push(...page.map(({ id }) => id));
        after = page.at(-1) ?? null;
        if (page.length < 2) break;
      }
      expect(new Set(seen).size).toBe(seen.length);
      expect(seen.filter((id) => ids.includes(id)).sort()).toEqual([...ids].sort());
      const times = (await stage().keys.list({ limit: 100, after: null }, all)).map(({ createdAt }) =>
        createdAt.getTime(),
      );
      expect(times).toEqual([...times].sort((one, next) => next - one));
    });
  });

  describe("the last use of keys", () => {
    it("is written for all of them at once, and never goes back; of a key that was never used there is none", async () => {
      const [one, two, idle] = [await insert(), await insert(), await insert()].map(({ id }) => id) as [
        string,
        string,
        string,
      ];
      await stage().keys.noteUses(
        new Map([
          [one, at(1)],
          [two, at(2)],
        ]),
      );
      await stage().keys.noteUses(
        new Map([
          [one, at(5)],
          [two, at(0)],
        ]),
      );
      expect(await usesOf(one, two, idle)).toEqual({ [one]: at(5), [two]: at(2), [idle]: null });
    });

    it("neither waits for a key that is being revoked, nor undoes that; a key that is gone fails nothing", async () => {
      const { id } = await insert();
      await stage().keys.revoke(id, all);
      await stage().keys.noteUses(
        new Map([
          [id, at(1)],
          ["nobody", at(1)],
        ]),
      );
      expect((await stage().keys.findMany([id]))[0]?.revokedAt).not.toBeNull();
      expect(await usesOf(id)).toEqual({ [id]: at(1) });
    });
  });

  describe("an API key that is proven with an encryption key which this replica lacks", () => {
    it("is left to the replicas that have it as long as the database names it, and else is as good as unknown", async () => {
      const { newer, lacking } = replicasOf(stage());
      const [theirs, here] = [createApiKeys(stage().database, newer), createApiKeys(stage().database, lacking)];
      const row = {
        abilities: ["tokens" as const],
        connections: ["left-*"],
        labels: {},
        expiresAt: null,
        name: "billing",
      };
      const id = randomUUID();
      const key = await theirs.insert({ ...row, id, secretHash: hash(id) }, null);
      expect(await here.findMany([id])).toEqual([]);
      await nameNewerKey(stage());
      expect(await here.findMany([id])).toEqual([{ ...key, isSilent: true }]);
      expect(
        (await here.working(Date.now(), { patterns: ["left-%"], labels: {} })).map((working) => working.id),
      ).toEqual([id]);
      const gift = { ...row, id: randomUUID(), secretHash: hash("gift") };
      await expect(here.insert(gift, async () => await here.giver(id))).rejects.toMatchObject({
        code: "encryption_key_missing",
      });
      // At the replicas that have the key, a row that somebody has changed does not count.
      await stage().query("UPDATE api_keys SET name = 'forged' WHERE id = $1 RETURNING 1 AS done", id);
      expect(await theirs.findMany([id])).toEqual([]);
    });
  });

  describe("keys beyond a caller's patterns", () => {
    it("are neither listed nor revoked: all of a key's patterns must lie within one of the caller's each", async () => {
      const run = randomUUID();
      const within = [[`${run}-a-*`], [`${run}-a-x`, `${run}-b`], [`${run}-a-*-z`]];
      const beyond = [[`${run}-*`], ["*"], [], [`${run}-a-x`, `${run}-c`], [`${run}-a*`]];
      const made = await Promise.all([...within, ...beyond].map((connections) => insert({ connections })));
      const bounds = { patterns: [`${run}-a-%`, `${run}-b`], labels: {} };
      const seen = new Set((await stage().keys.list({ limit: 200, after: null }, bounds)).map(({ id }) => id));
      expect(made.map(({ id }) => seen.has(id))).toEqual([true, true, true, false, false, false, false, false]);
      const revoked = await Promise.all(made.map(({ id }) => stage().keys.revoke(id, bounds)));
      expect(revoked).toEqual([true, true, true, false, false, false, false, false]);
      const rows = await stage().keys.findMany(made.map(({ id }) => id));
      expect(rows.filter(({ revokedAt }) => revokedAt !== null)).toHaveLength(3);
    });
  });

  describe("keys beyond a caller's labels", () => {
    it("are neither listed nor revoked: a key must be bound to each of the caller's labels", async () => {
      const run = randomUUID();
      const within = [{ customer: "acme" }, { customer: "acme", team: "orders" }];
      const beyond = [{}, { customer: "beta" }, { team: "acme" }, { Customer: "acme" }];
      const made = await Promise.all(
        [...within, ...beyond].map((labels) => insert({ connections: [`${run}-*`], labels })),
      );
      const bounds = { patterns: ["%"], labels: { customer: "acme" } };
      const seen = new Set((await stage().keys.list({ limit: 200, after: null }, bounds)).map(({ id }) => id));
      expect(made.map(({ id }) => seen.has(id))).toEqual([true, true, false, false, false, false]);
      const revoked = await Promise.all(made.map(({ id }) => stage().keys.revoke(id, bounds)));
      expect(revoked).toEqual([true, true, false, false, false, false]);
      expect(await stage().keys.working(Date.now(), { ...bounds, patterns: [`${run}-%`] })).toEqual([]);
    });

    it("count only as the broker wrote them: with labels added, changed or taken away by hand it is no key", async () => {
      const [free, bound] = [await insert(), await insert({ labels: { customer: "acme" } })];
      expect(await stage().keys.findMany([bound.id])).toMatchObject([{ labels: { customer: "acme" } }]);
      const write = async (id: string, labels: unknown) =>
        await stage().query(
          "UPDATE api_keys SET labels = $2::jsonb WHERE id = $1 RETURNING 1 AS done",
          id,
          JSON.stringify(labels),
        );
      for (const labels of [{}, { customer: "beta" }, { customer: "acme", team: "x" }, null, ["customer"], 1]) {
        await write(bound.id, labels);
        expect(await stage().keys.findMany([bound.id]), JSON.stringify(labels)).toEqual([]);
      }
      await write(free.id, { customer: "acme" });
      expect(await stage().keys.findMany([free.id])).toEqual([]);
      // Later tests sign all keys of the table.
      await write(bound.id, {});
    });
  });

  describe("a key that makes keys", () => {
    it("makes none once it is revoked or has expired, and none without being there", async () => {
      const [good, revoked] = [await insert(), await insert()];
      const expired = await insert({ expiresAt: new Date("2020-01-01") });
      await stage().keys.revoke(revoked.id, all);
      expect(await insert({ giver: good.id })).toMatchObject({ connections: ["acme-*"] });
      for (const giver of [revoked.id, expired.id, "nobody"]) expect(await ask({ giver })).toBeNull();
    });
  });
}

/** Every statement on consent links and on authorization requests. */
export function consent(stage: () => StoreStage): void {
  const makeLink = async ({ expiresInSeconds = 60, manual = false, provider = "own" } = {}) => {
    const { id: connectionId } = await stage().insert({ provider });
    const key = { id: randomUUID(), secretHash: hash(connectionId) };
    const given = {
      ...key,
      connectionId,
      returnTo: "https://app.example/",
      manual,
      purpose: "Invoices",
      endUser: null,
      createdBy: "k1",
      expiresInSeconds,
    };
    const { expiresAt } = await stage().links.insert(given);
    return { key, connectionId, expiresAt };
  };

  type Link = Awaited<ReturnType<typeof makeLink>>;
  const insertRequest = async (link: Link, { mostOpen = 5 } = {}) => {
    const stateHash = hash(randomUUID());
    const id = randomUUID();
    const retryAfterSeconds = await stage().requests.insert({
      id,
      stateHash,
      connectionId: link.connectionId,
      linkId: link.key.id,
      browserHash: mine,
      request: hash("request"),
      expiresInSeconds: 600,
      mostOpen,
    });
    return { ...link, id, stateHash, retryAfterSeconds };
  };
  const makeRequest = async (changes: { expiresInSeconds?: number; provider?: string } = {}) =>
    await insertRequest(await makeLink(changes));
  const prove = async () => await proveByHand((sql, values) => stage().query(sql, ...values), vault);
  const passTime = async (table: string, id: string) => {
    await stage().query(
      `UPDATE ${table} SET expires_at = clock_timestamp() - interval '1 ms' WHERE id::text = $1 RETURNING 1 AS done`,
      id,
    );
    await prove();
  };

  const makeAttempt = async () => {
    const { key, connectionId } = await makeLink();
    return { attempt: { attemptHash: hash(key.id), browserHash: mine, linkId: key.id }, connectionId };
  };
  const ticketOf = async ({ attemptHash }: { attemptHash: Uint8Array<ArrayBuffer> }) =>
    (await stage().attempts.find(attemptHash))?.ticket;

  describe("a consent link", () => {
    it("opens with its id and secret, and with neither alone", async () => {
      const { key, connectionId, expiresAt } = await makeLink({ manual: true });
      expect(await stage().links.find(key)).toMatchObject({
        id: key.id,
        connectionId,
        returnTo: "https://app.example/",
        manual: true,
        purpose: "Invoices",
        claimedBy: null,
        used: false,
        expired: false,
        expiresAt,
      });
      expect(await stage().links.find({ ...key, secretHash: other })).toBeNull();
      expect(await stage().links.find({ ...key, id: randomUUID() })).toBeNull();
      const row = await stage().row(connectionId);
      expect(Math.round((expiresAt.getTime() - row.now.getTime()) / 10_000)).toBe(6);
    });

    it("that is proven with an encryption key which this replica lacks is neither opened nor unknown here", async () => {
      const { newer, lacking } = replicasOf(stage());
      const { prisma } = stage().database;
      const [theirs, here] = [createConsentLinks(prisma, newer), createConsentLinks(prisma, lacking)];
      const { id: connectionId } = await stage().insert();
      const key = { id: randomUUID(), secretHash: hash(connectionId) };
      const rest = { returnTo: "https://app.example/", manual: false, purpose: null, endUser: null, createdBy: "k1" };
      await theirs.insert({ ...key, ...rest, connectionId, expiresInSeconds: 60 });
      await nameNewerKey(stage());
      const missing = { code: "encryption_key_missing" };
      await expect(here.find(key)).rejects.toMatchObject(missing);
      await expect(here.claim(key, mine)).rejects.toMatchObject(missing);
      await expect(here.returnTo(key.id)).rejects.toMatchObject(missing);
      expect(await theirs.claim(key, mine)).toBe(true);
    });

    it("goes to one of eight browsers, which may come again", async () => {
      const { key } = await makeLink();
      const claims = await Promise.all(browsers.map((browser) => stage().links.claim(key, browser)));
      expect(passed(claims)).toBe(1);
      expect(await Promise.all(browsers.map((browser) => stage().links.claim(key, browser)))).toEqual(claims);
      expect(
        await stage().links.claim({ ...key, secretHash: hash("guess") }, browsers[claims.indexOf(true)] ?? mine),
      ).toBe(false);
    });

    it("that is used or has expired goes to nobody, its own browser included", async () => {
      const [used, expired] = [await makeLink(), await makeLink()];
      for (const { key } of [used, expired]) expect(await stage().links.claim(key, mine)).toBe(true);
      await stage().links.reserve(used.key.id);
      await passTime("consent_links", expired.key.id);
      for (const { key } of [used, expired]) expect(await stage().links.claim(key, mine)).toBe(false);
      expect(await stage().links.find(used.key)).toMatchObject({ used: true, expired: false });
      expect(await stage().links.find(expired.key)).toMatchObject({ used: false, expired: true });
    });

    it("is used up by one of eight exchanges, and can be given back", async () => {
      const { key } = await makeLink();
      const reserve = async () => await stage().links.reserve(key.id);
      expect(passed(await Promise.all(browsers.map(reserve)))).toBe(1);
      await stage().links.release(key.id);
      expect([await reserve(), await reserve()]).toEqual([true, false]);
      expect(await stage().links.reserve("nobody")).toBe(false);
    });

    it("a new one sweeps away those of its connection that ran out thirty days ago, and no others", async () => {
      const [{ key, connectionId }, foreign] = [await makeLink(), await makeLink()];
      const age = async (id: string, days: number) =>
        await stage().query(
          `UPDATE consent_links SET expires_at = clock_timestamp() - interval '${days} days' WHERE id = $1 RETURNING 1 AS done`,
          id,
        );
      await age(key.id, 31);
      await age(foreign.key.id, 31);
      await prove();
      const recent = { id: randomUUID(), secretHash: mine };
      const given = {
        connectionId,
        returnTo: null,
        manual: false,
        purpose: null,
        endUser: null,
        createdBy: "k1",
        expiresInSeconds: 60,
      };
      await stage().links.insert({ ...given, ...recent });
      await age(recent.id, 29);
      await prove();
      await stage().links.insert({ ...given, id: randomUUID(), secretHash: mine });
      expect(await stage().links.find(key)).toBeNull();
      expect(await stage().links.find(recent)).not.toBeNull();
      expect(await stage().links.find(foreign.key)).not.toBeNull();
    });
  });

  describe("an authorization request", () => {
    it("is refused beyond the number that one link may have open, of many at once too, until one is over", async () => {
      const [link, neighbour] = [await makeLink(), await makeLink()];
      const answers = await Promise.all(Array.from({ length: 12 }, () => insertRequest(link, { mostOpen: 3 })));
      const [stored, refused] = [true, false].map((is) =>
        answers.filter(({ retryAfterSeconds }) => (retryAfterSeconds === null) === is),
      );
      expect([stored?.length, refused?.length]).toEqual([3, 9]);
      for (const { retryAfterSeconds } of refused ?? []) expect(retryAfterSeconds).toBeGreaterThan(0);
      const count = "SELECT count(*)::int AS open FROM authorization_requests WHERE link_id = $1";
      expect(await stage().query(count, link.key.id)).toEqual([{ open: 3 }]);
      expect((await insertRequest(neighbour, { mostOpen: 3 })).retryAfterSeconds).toBeNull();
      await passTime("authorization_requests", stored?.[0]?.id ?? "");
      expect((await insertRequest(link, { mostOpen: 3 })).retryAfterSeconds).toBeNull();
      expect((await insertRequest(link, { mostOpen: 3 })).retryAfterSeconds).not.toBeNull();
    });

    it("is found by its state as often as wanted, with what it binds, and taken out once", async () => {
      const { id, stateHash, connectionId, key } = await makeRequest();
      const found = { id, connectionId, linkId: key.id, browserHash: mine, request: hash("request") };
      for (let look = 0; look < 2; look++) {
        const { connection, ...request } = (await stage().requests.find(stateHash)) ?? {};
        expect(request).toEqual(found);
        expect(connection).toMatchObject({ row: { id: connectionId } });
      }
      expect(await stage().requests.find(other)).toBeNull();
      const taken = await Promise.all(browsers.map(() => stage().requests.consume(id, { usesLink: false })));
      expect(passed(taken.map((answer) => answer !== null))).toBe(1);
      expect(await stage().requests.find(stateHash)).toBeNull();
      expect(await stage().requests.consume(randomUUID(), { usesLink: false })).toBeNull();
    });

    it("that was taken out is noted as an attempt of its browser, which all find who came too late", async () => {
      const { id, stateHash, key } = await makeRequest();
      const found = await Promise.all(
        browsers.map(async () =>
          (await stage().requests.consume(id, { usesLink: false })) ? null : await stage().attempts.find(stateHash),
        ),
      );
      const attempt = { attemptHash: stateHash, browserHash: mine, linkId: key.id, ticket: null, isOverdue: false };
      const late = found.filter((answer) => answer !== null);
      expect(late).toEqual(Array.from({ length: browsers.length - 1 }, () => attempt));
    });

    it("notes one error of many that end nothing, and none of a request that was taken out", async () => {
      const [{ id }, neighbour] = [await makeRequest(), await makeRequest()];
      expect(passed(await Promise.all(browsers.map(() => stage().requests.noteError(id))))).toBe(1);
      expect(await stage().requests.noteError(neighbour.id)).toBe(true);
      expect(await stage().requests.consume(id, { usesLink: false })).not.toBeNull();
      expect(await stage().requests.noteError(id)).toBe(false);
    });

    it("that has run out is neither found nor taken out, and is swept away by the next one", async () => {
      const { id, stateHash } = await makeRequest();
      await passTime("authorization_requests", id);
      expect(await stage().requests.find(stateHash)).toBeNull();
      expect(await stage().requests.consume(id, { usesLink: false })).toBeNull();
      await makeRequest();
      expect(await stage().query("SELECT 1 AS found FROM authorization_requests WHERE id = $1::uuid", id)).toEqual([]);
    });
  });

  describe("an attempt", () => {
    it("begins once, and once more only by whoever knows how it ended", async () => {
      const { attempt } = await makeAttempt();
      const begun = await Promise.all(browsers.map(() => stage().attempts.begin(attempt)));
      expect(begun.filter(Boolean)).toHaveLength(1);
      await stage().attempts.end(attempt, "refused");
      expect(await stage().attempts.begin(attempt)).toBe(false);
      expect(await stage().attempts.beginAgain(attempt.attemptHash, "another")).toBe(false);
      const again = browsers.map(() => stage().attempts.beginAgain(attempt.attemptHash, "refused"));
      expect((await Promise.all(again)).filter(Boolean)).toHaveLength(1);
      expect(await ticketOf(attempt)).toBeNull();
    });

    it("tells how it ended last, for ten minutes, also one that nobody saw begin", async () => {
      const { attempt } = await makeAttempt();
      for (const ticket of ["asked", "kept"]) {
        await stage().attempts.end(attempt, ticket);
        expect(await ticketOf(attempt)).toBe(ticket);
      }
      await stage().query(
        "UPDATE consent_attempts SET expires_at = clock_timestamp() - interval '1 second' WHERE link_id = $1",
        attempt.linkId,
      );
      expect(await stage().attempts.find(attempt.attemptHash)).toBeNull();
      await makeRequest();
      const left = "SELECT 1 AS found FROM consent_attempts WHERE link_id = $1";
      expect(await stage().query(left, attempt.linkId)).toEqual([]);
    });

    it("is overdue once none can be under way for so long, and not when its end is known, or it was begun again", async () => {
      const { attempt } = await makeAttempt();
      const seen = async () => (await stage().attempts.find(attempt.attemptHash))?.isOverdue;
      const age = async (seconds: number) =>
        await stage().query(
          `UPDATE consent_attempts SET expires_at = expires_at - make_interval(secs => ${seconds}) WHERE link_id = $1`,
          attempt.linkId,
        );
      await stage().attempts.begin(attempt);
      await age(consentTimes.longestAttemptSeconds - 60);
      expect(await seen()).toBe(false);
      await age(60);
      expect(await seen()).toBe(true);
      await stage().attempts.end(attempt, "refused");
      await age(consentTimes.longestAttemptSeconds);
      expect(await seen()).toBe(false);
      await stage().attempts.beginAgain(attempt.attemptHash, "refused");
      expect(await seen()).toBe(false);
    });

    it("that never ended stands in the history once its time is over, unless the connection was connected since", async () => {
      const made = [await makeAttempt(), await makeAttempt(), await makeAttempt()];
      const [killed, ended, connected] = made as [(typeof made)[0], (typeof made)[0], (typeof made)[0]];
      for (const { attempt } of made) await stage().attempts.begin(attempt);
      await stage().attempts.end(ended.attempt, "refused");
      const since = "UPDATE connections SET authorized_at = clock_timestamp() WHERE id = $1::uuid";
      await stage().query(since, connected.connectionId);
      for (const { attempt } of made) {
        const over = "UPDATE consent_attempts SET expires_at = expires_at - interval '11 minutes' WHERE link_id = $1";
        await stage().query(over, attempt.linkId);
      }
      await Promise.all([makeRequest(), makeRequest(), stage().attempts.begin((await makeAttempt()).attempt)]);
      const failed = async ({ connectionId }: { connectionId: string }) =>
        (await stage().connections.events(connectionId, { limit: 10, before: null, patterns: ["%"] }))
          .filter(({ type }) => type === "consent_failed")
          .map(({ detail }) => detail);
      expect(await failed(killed)).toEqual([{ error: "interrupted" }]);
      expect([await failed(ended), await failed(connected)]).toEqual([[], []]);
    });

    it("goes with its connection, and its end is then noted nowhere", async () => {
      const { attempt, connectionId } = await makeAttempt();
      await stage().attempts.begin(attempt);
      await stage().query("DELETE FROM connections WHERE id = $1::uuid RETURNING 1 AS done", connectionId);
      expect(await stage().attempts.find(attempt.attemptHash)).toBeNull();
      await stage().attempts.end(attempt, "connected");
      expect(await stage().attempts.find(attempt.attemptHash)).toBeNull();
    });
  });
}
