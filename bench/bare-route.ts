import { fastify } from "fastify";

/** The yardstick: a route that answers from memory and does nothing else. */
const app = fastify();
const token = { connection: "bench", access_token: "x".repeat(64), token_type: "Bearer", expires_in: 3600, version: 1 };
app.get("/tokens/:connection", async () => token);
await app.listen({ host: "127.0.0.1", port: Number(process.argv[2]) });
process.send?.("ready");
