import { execFileSync } from "node:child_process";
import { Client } from "pg";
import { expect, it } from "vitest";
import {
  describeWithServices,
  startPrivatePostgres,
  startPrivateRedis,
  statementsIn,
  useDatabase,
  useRedis,
} from "../../support/services/index.ts";
import { withRedis } from "../../support/services/redis.ts";

describeWithServices(["postgres"], "Postgres for tests", () => {
  it("gives each caller a database of its own with the schema", async () => {
    const [first, second] = await Promise.all([useDatabase(), useDatabase()]);
    expect(first).not.toBe(second);
    await query(first, "INSERT INTO api_keys (id, name, secret_hash) VALUES ('a', 'a', '\\x00')");
    expect(await query(first, "SELECT count(*)::int AS n FROM api_keys")).toEqual([{ n: 1 }]);
    expect(await query(second, "SELECT count(*)::int AS n FROM api_keys")).toEqual([{ n: 0 }]);
  });

  it("keeps committed rows through a kill and a restart, under the same URL", async () => {
    await using postgres = await startPrivatePostgres();
    await query(postgres.url, "CREATE TABLE kept AS SELECT 7 AS n");
    await query(postgres.url, "CHECKPOINT");
    await postgres.kill();
    await expect(query(postgres.url, "SELECT 1")).rejects.toThrow(/ECONNREFUSED/);
    await postgres.restart();
    expect(await query(postgres.url, "SELECT n FROM kept")).toEqual([{ n: 7 }]);
    await postgres.stop();
    await expect(query(postgres.url, "SELECT 1")).rejects.toThrow(/ECONNREFUSED/);
  });

  it("can be killed and started again at once, as often as one likes, in the middle of its clients' work", async () => {
    await using postgres = await startPrivatePostgres();
    for (let turn = 1; turn <= 3; turn++) {
      const clients = Array.from({ length: 30 }, () => new Client({ connectionString: postgres.url }));
      const ends = clients.map((client) => new Promise((resolve) => client.once("end", resolve)));
      for (const client of clients) client.on("error", () => {});
      await Promise.all(clients.map((client) => client.connect()));
      for (const client of clients) client.query("SELECT pg_sleep(3600)").catch(() => {});
      await postgres.kill();
      await postgres.restart();
      expect(await query(postgres.url, "SELECT 1 AS n")).toEqual([{ n: 1 }]);
      await Promise.all(ends);
    }
  });

  it("tells which statements a private server was asked to run", async () => {
    await using postgres = await startPrivatePostgres({ logStatements: true });
    await query(postgres.url, "SELECT\n 41 + $1::int AS n", [1]);
    await query(postgres.url, "CREATE TABLE plain ()");
    const statements = statementsIn(await postgres.log());
    expect(statements).toContain("SELECT\n\t 41 + $1::int AS n");
    expect(statements).toContain("CREATE TABLE plain ()");
  });

  it("leaves neither process nor folder behind", async () => {
    const postgres = await startPrivatePostgres();
    await postgres[Symbol.asyncDispose]();
    const port = new URL(postgres.url).port;
    expect(execFileSync("ps", ["-eo", "args"], { encoding: "utf8" })).not.toContain(`-p ${port}`);
  });
});

describeWithServices(["redis"], "Redis for tests", () => {
  it("gives each caller an empty database of its own", async () => {
    const [first, second] = await Promise.all([useRedis(), useRedis()]);
    await withRedis(first, (redis) => redis.set("key", "value"));
    expect(await withRedis(second, (redis) => redis.get("key"))).toBeNull();
  });

  it("can be frozen, and goes on afterwards", async () => {
    await using redis = await startPrivateRedis();
    await withRedis(redis.url, async (client) => {
      await redis.pause();
      const answer = client.ping();
      const first = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 200, "silence"))]);
      expect(first).toBe("silence");
      await redis.resume();
      expect(await answer).toBe("PONG");
    });
  });
});

async function query(url: string, sql: string, parameters: unknown[] = []): Promise<unknown[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql, parameters)).rows;
  } finally {
    await client.end();
  }
}
