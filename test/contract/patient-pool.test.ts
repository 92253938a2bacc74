import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { PatientPool } from "../../src/store/database.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";

const connectMs = 100;

describeWithServices(["postgres"], "a pool of connections", () => {
  it("lets who waits for its turn wait longer than connecting may take", async () => {
    const max = 1;
    const pool = new PatientPool({ connectionString: await useDatabase(), max });
    const first = await pool.connect();
    pool.options.connectionTimeoutMillis = connectMs;
    const second = pool.query<{ one: number }>("SELECT 1 AS one");
    await sleep(3 * connectMs);
    first.release();
    expect((await second).rows).toEqual([{ one: 1 }]);
    await pool.end();
  });

  it("gives out no connection whose end would be an error that nobody hears", async () => {
    const pool = new PatientPool({ connectionString: await useDatabase(), max: 1 });
    const client = await pool.connect();
    expect(client.listenerCount("error")).toBeGreaterThan(0);
    client.release();
    await pool.end();
  });

  it("outlives the loss of a connection that nobody uses", async () => {
    const databaseUrl = await useDatabase();
    const pool = new PatientPool({ connectionString: databaseUrl, max: 1 });
    const { rows } = await pool.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    // An error without a listener would end the process, and here the test.
    const lost = new Promise((resolve) => void pool.once("remove", resolve));
    await query(databaseUrl, `SELECT pg_terminate_backend(${rows[0]?.pid})`);
    await lost;
    expect((await pool.query<{ one: number }>("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await pool.end();
  });
});
