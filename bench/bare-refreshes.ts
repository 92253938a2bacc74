import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool } from "pg";
import { request } from "undici";

/**
 * The yardstick of refreshes: a loop that writes a permit, sends a POST on a fresh connection, and writes what came, for one row after the
 * other and `WIDTH` at a time. It seals, checks, locks and tells nobody. `GET /SECONDS` runs it for so long and says how many were done.
 */
const { DATABASE_URL, TOKEN_URL = "", ROWS = "5000", WIDTH = "8" } = process.env;
const rows = Number(ROWS);
const pool = new Pool({ connectionString: DATABASE_URL, max: Number(WIDTH) });
await pool.query(`CREATE TABLE bare (id int PRIMARY KEY, generation int NOT NULL, attempt text, lease_until timestamptz,
  access_token text, refresh_token text, expires_at timestamptz)`);
await pool.query(`INSERT INTO bare SELECT g, 1, NULL, NULL, 'a', 'r', now() FROM generate_series(1, ${rows}) g`);
const headers = { "content-type": "application/x-www-form-urlencoded", authorization: "Basic YmVuY2g6YmVuY2g=" };
let next = 0;

async function refreshOne(): Promise<void> {
  next = (next % rows) + 1;
  const id = next;
  const { rows: taken } = await pool.query<{ generation: number; refresh_token: string }>(
    `UPDATE bare SET attempt = $2, lease_until = clock_timestamp() + interval '30 s' WHERE id = $1 RETURNING *`,
    [id, `attempt-${id}`],
  );
  const { generation, refresh_token } = taken[0] ?? { generation: 0, refresh_token: "" };
  const body = `grant_type=refresh_token&refresh_token=${refresh_token}`;
  const answer = await request(TOKEN_URL, { method: "POST", headers, body, reset: true });
  const set = (await answer.body.json()) as { access_token: string; refresh_token: string; expires_in: number };
  await pool.query(
    `UPDATE bare SET generation = generation + 1, attempt = NULL, lease_until = NULL, access_token = $3, refresh_token = $4,
      expires_at = clock_timestamp() + make_interval(secs => $5) WHERE id = $1 AND generation = $2`,
    [id, generation, set.access_token, set.refresh_token, set.expires_in],
  );
}

async function run(seconds: number): Promise<number> {
  await pool.query("VACUUM bare");
  const endMs = performance.now() + seconds * 1000;
  let done = 0;
  const work = async () => {
    for (; performance.now() < endMs; done++) await refreshOne();
  };
  await Promise.all(Array.from({ length: Number(WIDTH) }, work));
  return done;
}

async function serve(seconds: number, response: ServerResponse): Promise<void> {
  response.end(String(await run(seconds)));
}

const server = createServer((asked, response) => void serve(Number(asked.url?.slice(1)), response));
server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
