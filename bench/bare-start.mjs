import { fastify } from "fastify";
import { Client } from "pg";

// The yardstick for a start on Postgres: Fastify, one question to the database, and a route.
const client = new Client({ connectionString: process.env["DATABASE_URL"] });
await client.connect();
await client.query("SELECT 1");
const app = fastify();
app.get("/livez", async () => ({ status: "ok" }));
await app.listen({ host: "127.0.0.1", port: Number(process.env["PORT"]) });
