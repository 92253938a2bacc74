import type { AddressInfo } from "node:net";
import { fastify } from "fastify";

/** The yardstick of a fresh read: a route that sends the same status, headers and body as a ready string, and asks nobody for a key. */
const { body, headers } = JSON.parse(process.env["ANSWER"] ?? "{}") as {
  body: string;
  headers: Record<string, string>;
};
const app = fastify();
app.get("/tokens/:connection", (_request, reply) => {
  reply.headers(headers).send(body);
});
await app.listen({ host: "127.0.0.1", port: 0 });
process.send?.((app.server.address() as AddressInfo).port);
