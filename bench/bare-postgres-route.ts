import { createDecipheriv } from "node:crypto";
import type { AddressInfo } from "node:net";
import { fastify } from "fastify";
import { Pool } from "pg";

/**
 * The yardstick of a read that is in no memory: a route that selects one row by its primary key with a prepared statement, opens its token with
 * AES-256-GCM, and sends the same status, headers and body as the broker. It asks nobody for a key.
 */
const { body, headers } = JSON.parse(process.env["ANSWER"] ?? "{}") as {
  body: string;
  headers: Record<string, string>;
};
const key = Buffer.from(process.env["KEY"] ?? "", "base64");
const rest = JSON.parse(body) as Record<string, unknown>;
const pool = new Pool({ connectionString: process.env["DATABASE_URL"], max: 10 });

/** A nonce of 12 bytes, a tag of 16, and the ciphertext. */
function open(sealed: Buffer): string {
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, 12)).setAuthTag(sealed.subarray(12, 28));
  return Buffer.concat([decipher.update(sealed.subarray(28)), decipher.final()]).toString("utf8");
}

const app = fastify();
app.get<{ Params: { connection: string } }>("/tokens/:connection", async (request, reply) => {
  const { connection } = request.params;
  const select = { name: "read", text: "SELECT sealed FROM bench_tokens WHERE name = $1", values: [connection] };
  const { rows } = await pool.query<{ sealed: Buffer }>(select);
  if (rows[0] === undefined) return await reply.code(404).send();
  return await reply.headers(headers).send(JSON.stringify({ ...rest, connection, access_token: open(rows[0].sealed) }));
});
await app.listen({ host: "127.0.0.1", port: 0 });
process.send?.((app.server.address() as AddressInfo).port);
