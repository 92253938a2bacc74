import { fastify } from "fastify";
import { expect, test } from "vitest";
import { installErrorHandler, serverOptions } from "../../../src/http/error-handler.ts";
import { answerHeaders } from "../../../src/http/headers.ts";

const answering = { asker: null, headers: answerHeaders("http://localhost:8080") };

test("a request has 30 seconds, headers and body together: Node takes the longer of its two limits for the whole", async () => {
  const options = serverOptions(answering);
  const app = fastify(options);
  await app.ready();
  expect([app.server.requestTimeout, app.server.headersTimeout]).toEqual([30_000, 30_000]);
  expect(options.http.connectionsCheckingInterval).toBeLessThan(app.server.requestTimeout / 10);
  await app.close();
});

test("a wrong method is told from a wrong path, for a route with a wildcard, too", async () => {
  const app = fastify(serverOptions(answering));
  installErrorHandler(app, answering);
  app.get("/connected/*", async () => await Promise.resolve("page"));
  const answerTo = async (url: string) => {
    const { statusCode, headers } = await app.inject({ method: "DELETE", url });
    return [statusCode, headers["allow"]];
  };
  expect(await answerTo("/connected/a/b?c")).toEqual([405, "GET, HEAD"]);
  expect(await answerTo("/connected")).toEqual([404, undefined]);
  await app.close();
});
