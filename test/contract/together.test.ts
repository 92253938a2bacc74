import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createDatabaseHealth, type Database, openPostgres } from "../../src/store/database.ts";
import type { Direct } from "../../src/store/direct.ts";
import type { PermitKey } from "../../src/store/row-sql.ts";
import type { TokenRow } from "../../src/store/token-row.ts";
import { createTokenStatements } from "../../src/store/token-statements.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { ifAbandoned, sealedBytes, sealedGrant, StoreStage } from "./store/stage.ts";

const keyOf = ({ id, generation }: TokenRow): PermitKey => ({
  connectionId: id,
  generation,
  attemptId: randomUUID(),
});
const asked = (key: PermitKey) => ({
  ...key,
  leaseSeconds: 30,
  statuses: ["connected"] as const,
  ifAbandoned,
  exclusive: true,
  takeover: null,
});

describeWithServices(["postgres"], "permits and answers that come together", () => {
  let url: string;
  let database: Database;
  let stage: StoreStage;
  let other: Client;
  let sent: string[] = [];
  /** Names of statements that fail. */
  let faulty: string[] = [];

  const noted =
    (direct: Direct): Direct =>
    async (statement, values) => {
      sent.push(statement.name);
      if (faulty.includes(statement.name)) throw new Error("a fault of the statement");
      return await direct(statement, values);
    };

  beforeAll(async () => {
    url = await useDatabase();
    const health = createDatabaseHealth(() => performance.now());
    database = await openPostgres(url, health);
    stage = new StoreStage({
      ...database,
      direct: noted(database.direct),
      directCommits: noted(database.directCommits),
    });
    other = new Client({ connectionString: url });
    await other.connect();
  });
  afterAll(async () => {
    await other.end();
    await database.close();
  });

  const connectMany = async (count: number) =>
    await Promise.all(Array.from({ length: count }, async () => await stage.connect()));
  const permitMany = async (rows: readonly TokenRow[]) => {
    const keys = rows.map(keyOf);
    const taken = await Promise.all(keys.map((key) => stage.rows.takePermit(asked(key))));
    return { keys, taken };
  };
  const during = async <Result>(work: () => Promise<Result>): Promise<[Result, string[]]> => {
    sent = [];
    return [await work(), sent];
  };
  /** What comes of these while another session holds a row; the first is for that row. */
  const whileLocked = async ({ id }: TokenRow, begin: () => Promise<TokenRow | null>[]) => {
    await other.query("BEGIN");
    try {
      await other.query("SELECT 1 FROM connections WHERE id = $1 FOR UPDATE", [id]);
      const [waiting, ...rest] = begin().map((work) => work.then((row) => row?.id ?? null));
      // On a slow machine the time for the lock may be over before the other session lets go.
      waiting?.catch(() => null);
      return await Promise.all(rest);
    } finally {
      await other.query("ROLLBACK");
    }
  };

  it("are one statement each, and each row gets what is its own", async () => {
    const rows = await connectMany(20);
    const [{ keys, taken }, forPermits] = await during(async () => await permitMany(rows));
    expect(forPermits).toEqual(["take_permits"]);
    expect(taken.map((row) => [row?.id, row?.attemptId])).toEqual(keys.map((key) => [key.connectionId, key.attemptId]));
    const grants = keys.map(() => sealedGrant({ grantedScopes: ["é ☃", 'quote "'], captured: { shop: "north" } }));
    const [stored, forAnswers] = await during(
      async () =>
        await Promise.all(
          keys.map((key, index) =>
            stage.rows.commitRefresh(key, grants[index] ?? sealedGrant(), { attempt: key.attemptId }),
          ),
        ),
    );
    expect(forAnswers).toEqual(["commit_refreshes"]);
    for (const [index, row] of stored.entries()) {
      const {
        refreshFingerprint: _,
        refreshDueAt: __,
        keepsRefreshToken: ___,
        lastError: ____,
        ...given
      } = grants[index] as (typeof grants)[number];
      expect(row).toMatchObject({
        ...given,
        generation: 2,
        version: 2,
        attemptId: null,
        lastAttemptId: keys[index]?.attemptId,
      });
    }
    const ids = rows.map(({ id }) => id);
    const [{ events, answers } = { events: 0, answers: 0 }] = await query<{ events: number; answers: number }>(
      url,
      `SELECT (SELECT count(DISTINCT connection_id)::int FROM connection_events e WHERE type = 'refreshed' AND connection_id = ANY('{${ids.join()}}')
        AND detail->>'attempt' = (SELECT last_attempt_id::text FROM connections WHERE id = e.connection_id)) AS events,
        (SELECT count(*)::int FROM stored_answers WHERE attempt_id = ANY('{${keys.map(({ attemptId }) => attemptId).join()}}')) AS answers`,
    );
    expect([events, answers]).toEqual([20, 20]);
  });

  it("the second answer of a day is counted in the line of the first, for each connection", async () => {
    const rows = await connectMany(3);
    let generations = rows;
    for (let turn = 0; turn < 3; turn++) {
      const { keys } = await permitMany(generations);
      const stored = await Promise.all(
        keys.map((key) => stage.rows.commitRefresh(key, sealedGrant(), { attempt: key.attemptId })),
      );
      generations = stored.map((row) => row as TokenRow);
    }
    for (const { id } of rows) {
      const lines = await query<{ count: number }>(
        url,
        `SELECT (detail->>'count')::int AS count FROM connection_events WHERE connection_id = '${id}' AND type = 'refreshed'`,
      );
      // Midnight may have passed.
      expect(lines.reduce((sum, { count }) => sum + (count ?? 1), 0)).toBe(3);
      expect(lines.length).toBeLessThanOrEqual(2);
    }
  });

  it("a row that another session holds keeps no other permit waiting", async () => {
    const rows = await connectMany(6);
    const begin = () => rows.map((row) => stage.rows.takePermit(asked(keyOf(row))));
    const [others, names] = await during(async () => await whileLocked(rows[0] as TokenRow, begin));
    expect([others, names]).toEqual([rows.slice(1).map(({ id }) => id), ["take_permits", "take_permit"]]);
  });

  it("a row that another session holds keeps no other answer waiting", async () => {
    const rows = await connectMany(6);
    const { keys } = await permitMany(rows);
    const begin = () => keys.map((key) => stage.rows.commitRefresh(key, sealedGrant(), {}));
    const [others, names] = await during(async () => await whileLocked(rows[0] as TokenRow, begin));
    expect([others, names]).toEqual([rows.slice(1).map(({ id }) => id), ["commit_refreshes", "commit_refresh"]]);
  });

  it("of two for one row, and of two rows with one refresh token, one gets a permit", async () => {
    const row = await stage.connect();
    const both = await permitMany([row, row]);
    expect(both.taken.filter((one) => one !== null)).toHaveLength(1);
    const free = await stage.connect();
    const refused = [row, { ...free, generation: 9 }].map((one) => stage.rows.takePermit(asked(keyOf(one))));
    expect(await Promise.all(refused)).toEqual([null, null]);
    const pair = await connectMany(2);
    const fingerprint = `\\x${Buffer.from(sealedBytes()).toString("hex")}`;
    for (const { id } of pair) await stage.set(id, `refresh_fingerprint = '${fingerprint}'`);
    const shared = await permitMany(pair);
    // Who comes after the other has lost its copy has a permit for nothing.
    expect(shared.taken.filter((one) => one !== null && one.refreshToken !== null)).toHaveLength(1);
  });

  it("an answer whose permit is gone is not stored, and the others are", async () => {
    const { keys } = await permitMany(await connectMany(3));
    const [first] = keys as [PermitKey];
    const works = [{ ...first, attemptId: randomUUID() }, { ...first, generation: 7 }, ...keys.slice(1)].map((key) =>
      stage.rows.commitRefresh(key, sealedGrant(), {}),
    );
    const stored = await Promise.all(works);
    expect(stored.map((row) => row?.id ?? null)).toEqual([null, null, keys[1]?.connectionId, keys[2]?.connectionId]);
    expect(await stage.row(first.connectionId)).toMatchObject({ generation: 1, attemptId: first.attemptId });
  });

  it("where the statement for many fails, each is asked for alone", async () => {
    faulty = ["take_permits", "commit_refreshes"];
    const { keys, taken } = await permitMany(await connectMany(3));
    const stored = await Promise.all(keys.map((key) => stage.rows.commitRefresh(key, sealedGrant(), {})));
    faulty = [];
    expect([...taken, ...stored].every((row) => row !== null)).toBe(true);
  });

  it("a second group does not wait for a first one that Postgres leaves unanswered", async () => {
    const [came, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let isFirst = true;
    const holding: Direct = async (statement, values) => {
      if (isFirst) {
        isFirst = false;
        came.resolve();
        await held.promise;
      }
      return await database.direct(statement, values);
    };
    const rows = createTokenStatements({ ...database, direct: holding });
    const [one, two] = (await connectMany(2)) as [TokenRow, TokenRow];
    const waiting = rows.takePermit(asked(keyOf(one)));
    await came.promise;
    expect((await rows.takePermit(asked(keyOf(two))))?.id).toBe(two.id);
    held.resolve();
    expect((await waiting)?.id).toBe(one.id);
  });
});
