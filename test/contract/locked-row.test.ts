import { randomBytes, randomUUID } from "node:crypto";
import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { DatabaseBusyError, isStorageUnavailable } from "../../src/errors.ts";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import type { TokenRow } from "../../src/store/token-row.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { ifAbandoned, sealedGrant, StoreStage } from "./store/stage.ts";

const event = { type: "reconnected" as const, detail: {} };
const abandoned =
  "lease_until = clock_timestamp() - interval '1 hour', attempt_started_at = clock_timestamp() - interval '1 hour'";

const lockOf = (table: string, where: string) => `SELECT 1 FROM ${table} WHERE ${where} FOR UPDATE`;
const takeoverBy = (row: TokenRow, seenAttemptId: string) => ({
  connectionId: row.id,
  generation: row.generation,
  attemptId: randomUUID(),
  leaseSeconds: 30,
  statuses: ["connected" as const],
  ifAbandoned,
  exclusive: true,
  takeover: { seenAttemptId, quietSeconds: 10, promptly: true, graceSeconds: 0, graceQuietSeconds: 2 },
});

const errorOf = async (statement: Promise<unknown>) =>
  await statement.then(
    () => null,
    (error: unknown) => error,
  );

const bytes = () => new Uint8Array(randomBytes(32));

describeWithServices(["postgres"], "a row that another session holds for long", () => {
  const health = createDatabaseHealth(() => performance.now());
  let stage: StoreStage;
  let other: Client;
  beforeAll(async () => {
    const url = await useDatabase();
    stage = new StoreStage(await openPostgres(url, health));
    other = new Client({ connectionString: url });
    await other.connect();
  });
  afterAll(async () => {
    await other.end();
    await stage.database.close();
  });

  const whileLocked = async (query: string, work: () => Promise<void>) => {
    await other.query("BEGIN");
    await other.query(query);
    try {
      await work();
    } finally {
      await other.query("ROLLBACK");
    }
  };
  it("keeps each statement on itself from its work, and says nothing about Postgres", async () => {
    const opened = await stage.permit();
    await stage.rows.commitRefresh(opened.key, sealedGrant(), {});
    const { row, key } = await stage.permit();
    const losses = health.losses();
    const given = { ...row, generation: row.generation, attemptId: randomUUID() };
    await whileLocked(lockOf("connections", `id = '${row.id}'`), async () => {
      // One at a time for each pool, whose connections are open already: opening more takes time on a slow machine.
      const atOnce = [
        errorOf(stage.rows.commitRefresh(key, sealedGrant(), {})),
        errorOf(stage.rows.replaceGrant(given, sealedGrant(), { event, exclusive: true })),
      ];
      const errors = [...(await Promise.all(atOnce)), await errorOf(stage.connections.delete(row.id))];
      expect(errors.map((error) => [error instanceof DatabaseBusyError, isStorageUnavailable(error)])).toEqual(
        errors.map(() => [true, false]),
      );
    });
    expect(health.losses()).toBe(losses);
    expect(await stage.rows.commitRefresh(key, sealedGrant(), {})).not.toBeNull();
  });

  it("a takeover does not stand in line for it: whoever waits to store an answer goes first", async () => {
    const { row, key } = await stage.permit();
    await stage.set(row.id, abandoned);
    const request = takeoverBy(row, key.attemptId);
    await whileLocked(lockOf("connections", `id = '${row.id}'`), async () => {
      const storing = stage.rows.commitRefresh(key, sealedGrant(), {});
      expect(await stage.rows.takePermit(request)).toBeNull();
      // The takeover is over, and the store still waits: it is neither done nor refused.
      expect(await Promise.race([storing.catch(() => "refused"), Promise.resolve("waits")])).toBe("waits");
      await other.query("ROLLBACK");
      expect((await storing)?.generation).toBe(row.generation + 1);
    });
    expect(await stage.rows.takePermit(request)).toBeNull();
  });

  it("of two that hold the same refresh token a locked one keeps the other from a takeover, and from that alone", async () => {
    const { row, key } = await stage.permit();
    const twin = await stage.connect();
    await stage.set(row.id, `${abandoned}, refresh_fingerprint = '\\xaa'`);
    await stage.set(twin.id, "refresh_fingerprint = '\\xaa'");
    const request = takeoverBy(row, key.attemptId);
    await whileLocked(lockOf("connections", `id = '${twin.id}'`), async () => {
      expect(await stage.rows.takePermit(request)).toBeNull();
      await stage.rows.commitRefresh(key, sealedGrant(), {});
    });
  });

  it("of the history keeps no token set from being stored", async () => {
    const { row, key } = await stage.permit();
    await stage.rows.commitRefresh(key, sealedGrant(), {});
    const next = { ...key, generation: key.generation + 1, attemptId: randomUUID() };
    await stage.set(
      row.id,
      `attempt_id = '${next.attemptId}', attempt_started_at = now(), lease_until = now() + interval '30 s'`,
    );
    await whileLocked(lockOf("connection_events", `connection_id = '${row.id}'`), async () => {
      expect(await stage.rows.commitRefresh(next, sealedGrant(), {})).toMatchObject({
        generation: next.generation + 1,
      });
    });
    expect((await stage.events(row.id)).slice(-2)).toEqual(["refreshed", "refreshed"]);
  });

  it("is passed over by what works through many rows: noting reads, claiming, tidying up", async () => {
    const [locked, free] = [await stage.connect(), await stage.connect()];
    const read = [locked, free].map(({ id, generation }) => ({ id, generation }));
    await whileLocked(lockOf("connections", `id = '${locked.id}'`), async () => {
      expect(await stage.rows.markInUse(read)).toEqual([read[0]]);
      expect((await stage.row(free.id)).inUse).toBe(true);
    });
    expect(await stage.rows.markInUse(read)).toEqual([]);
    expect((await stage.row(locked.id)).inUse).toBe(true);

    const gone = await stage.connect();
    await stage.connections.delete(gone.id);
    await stage.query("UPDATE tombstones SET deleted_at = now() - interval '2 days'");
    await stage.query(`INSERT INTO connection_events (connection_id, type, detail, at)
      SELECT '${free.id}', 'refreshed', '{}', now() - interval '1 year' FROM generate_series(1, 3)`);
    const old = await stage.query<{ id: bigint }>(
      "SELECT id FROM connection_events WHERE at < now() - interval '300 days'",
    );
    await whileLocked(lockOf("tombstones", "true"), async () => {
      await other.query(lockOf("connection_events", `id = ${old[0]?.id}`));
      await stage.rows.tidy();
    });
    const left = "SELECT id FROM connection_events WHERE at < now() - interval '300 days'";
    expect(await stage.query(left)).toEqual([old[0]]);
    await stage.rows.tidy();
    expect(await stage.query(left)).toEqual([]);
  });

  it("an authorization request or an attempt that is over keeps nobody from beginning another", async () => {
    const { id: connectionId } = await stage.connect();
    const linkId = randomUUID();
    const link = {
      id: linkId,
      connectionId,
      secretHash: bytes(),
      returnTo: null,
      manual: false,
      purpose: null,
      endUser: null,
    };
    await stage.links.insert({ ...link, createdBy: "test", expiresInSeconds: 600 });
    const request = () => ({ id: randomUUID(), stateHash: bytes(), connectionId, linkId, browserHash: bytes() });
    const sealed = { request: bytes(), mostOpen: 5 };
    await stage.requests.insert({ ...request(), ...sealed, expiresInSeconds: 0 });
    await stage.attempts.begin({ attemptHash: bytes(), browserHash: bytes(), linkId });
    await stage.query("UPDATE consent_attempts SET expires_at = now() - interval '1 hour'");
    await whileLocked(lockOf("consent_attempts", "true"), async () => {
      await other.query(lockOf("authorization_requests", "true"));
      const wait = await stage.requests.insert({ ...request(), ...sealed, expiresInSeconds: 60 });
      expect(wait).toBeNull();
    });
  });
});
