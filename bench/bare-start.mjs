import { fastify } from "fastify";
import pg from "pg";
const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
await client.query("SELECT 1");
const app = fastify();
app.get("/livez", async () => ({ status: "ok" }));
await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
process.on("SIGINT",()=>process.exit(0));
