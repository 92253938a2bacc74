import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { isStorageUnavailable, StartupError } from "../../src/errors.ts";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { openPostgres } from "../../src/store/database.ts";
import { freePort } from "../support/free-port.ts";
import { describeWithServices, startPrivatePostgres } from "../support/services/index.ts";
import type { PrivatePostgres } from "../support/services/postgres.ts";
import { ifAbandoned, sealedGrant, StoreStage } from "./store/stage.ts";

async function outcomeOf(statement: Promise<unknown>): Promise<string> {
  return await statement.then(
    () => "done",
    (error: unknown) => (isStorageUnavailable(error) ? "storage unavailable" : String(error)),
  );
}

describeWithServices(["postgres"], "a Postgres that is gone", () => {
  let server: PrivatePostgres;
  beforeAll(async () => void (server = await startPrivatePostgres()));
  afterAll(async () => await server[Symbol.asyncDispose]());

  it("is told from a fault by every kind of statement, and serves again when it is back", async () => {
    let nowMs = 0;
    const health = createDatabaseHealth(() => nowMs);
    const stage = new StoreStage(await openPostgres(server.url, health));
    const { row, key } = await stage.permit();
    const event = { type: "reconnected" as const, detail: {} };
    const given = { ...row, attemptId: randomUUID() };
    const statements = () => [
      stage.rows.readByName([row.name]),
      stage.rows.takePermit({
        ...key,
        leaseSeconds: 30,
        statuses: ["connected"],
        ifAbandoned,
        exclusive: true,
        takeover: null,
      }),
      stage.rows.commitRefresh({ ...key, generation: 0 }, sealedGrant(), {}),
      stage.rows.replaceGrant({ ...given, generation: 0 }, sealedGrant(), { event, exclusive: true }),
      stage.keys.findMany(["any"]),
      stage.clients.findByName("any"),
      stage.requests.find(new Uint8Array(32)),
    ];
    const outcomes = async () => new Set(await Promise.all(statements().map(outcomeOf)));
    expect(await outcomes()).toEqual(new Set(["done"]));
    nowMs = 9000;
    expect(await outcomes()).toEqual(new Set(["done"]));
    expect(health.uninterruptedMs()).toBe(9000);

    await server.kill();
    expect(await outcomes()).toEqual(new Set(["storage unavailable"]));
    expect(health.uninterruptedMs()).toBe(0);

    await server.restart();
    expect(await outcomes()).toEqual(new Set(["done"]));
    expect(health.uninterruptedMs()).toBe(0);
    nowMs = 10_000;
    expect(await outcomes()).toEqual(new Set(["done"]));
    expect(health.uninterruptedMs()).toBe(1000);
    await stage.database.close();
  });

  it("may cut idle connections without harm: the next statements work or say what is missing", async () => {
    const stage = new StoreStage(
      await openPostgres(
        server.url,
        createDatabaseHealth(() => 0),
      ),
    );
    const { row } = await stage.permit();
    const client = new Client({ connectionString: server.url });
    await client.connect();
    await client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
    await client.end();
    const reads = Array.from({ length: 20 }, () => outcomeOf(stage.rows.readById(row.id)));
    const outcomes = new Set(await Promise.all(reads));
    expect([...outcomes].filter((outcome) => outcome !== "done" && outcome !== "storage unavailable")).toEqual([]);
    expect(await outcomeOf(stage.rows.readById(row.id))).toBe("done");
    await stage.database.close();
  });
});

it("a Postgres that cannot be reached at start is a fault of DATABASE_URL, whose password is not shown", async () => {
  const url = `postgresql://freshet:s3cr3t-canary@127.0.0.1:${await freePort()}/freshet`;
  const start = openPostgres(
    url,
    createDatabaseHealth(() => 0),
  );
  await expect(start).rejects.toThrow(StartupError);
  await expect(start).rejects.toThrow(/^DATABASE_URL .*ECONNREFUSED/);
  await expect(start).rejects.not.toThrow(/s3cr3t/);
});
