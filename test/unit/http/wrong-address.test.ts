import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { text } from "node:stream/consumers";
import type { FastifyBaseLogger } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AppParts, buildApp } from "../../../src/http/app.ts";
import { createMinuteLimit } from "../../../src/http/limits.ts";
import type { ApiScope } from "../../../src/http/schemas.ts";
import { pageHeaders } from "../../../src/pages/layout.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { NotedAudit } from "../../support/noted-audit.ts";

/** The Accept headers that Chromium, Firefox and Safari send for an address that somebody types in. */
const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const acceptedByPrograms = ["*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0, */*"];
/** What HttpURLConnection sends where nobody sets the header. */
const javas = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";
const pageType = "text/html; charset=utf-8";
const problemType = "application/problem+json; charset=utf-8";

let app: ApiScope;
let port: number;

beforeAll(async () => {
  const log: FastifyBaseLogger = createLogger("silent");
  // No request of these reaches a part of the broker.
  const parts = {
    log,
    trustProxy: [],
    consent: {},
    metricsOnApi: true,
    sandbox: null,
    publicUrl: "https://broker.example",
    organisation: { name: "Bakery B.V.", contact: "help@bakery.example" },
    audit: new NotedAudit(),
    wrongKeys: createMinuteLimit(1000, { monotonicMs: () => 0 }),
  };
  app = await buildApp(parts as unknown as AppParts);
  await app.listen({ host: "127.0.0.1", port: 0 });
  ({ port } = app.server.address() as AddressInfo);
});

afterAll(async () => {
  await app.close();
});

type Method = "GET" | "POST" | "PUT" | "DELETE";
const cases: { url: string; method: Method; status: number; says: string }[] = [
  { url: "/console", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/xyz", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/xyz/", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "//", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "//connect/x", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/%00", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/docs/xyz", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/docs/static/xyz.js", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/openapi.json/", method: "GET", status: 404, says: "There is nothing at this address" },
  { url: "/xyz", method: "POST", status: 404, says: "There is nothing at this address" },
  { url: "/connect", method: "GET", status: 404, says: "This link is not complete" },
  { url: "/connect/a/b", method: "GET", status: 404, says: "This link is not complete" },
  { url: "/callback", method: "GET", status: 404, says: "This link is not complete" },
  { url: "/callback/a/b/c/d", method: "GET", status: 404, says: "This link is not complete" },
  { url: "/connected", method: "GET", status: 404, says: "This link is not complete" },
  { url: "/livez", method: "DELETE", status: 405, says: "This address takes GET, HEAD" },
  { url: "/connect/x", method: "PUT", status: 405, says: "This address takes GET, HEAD, POST" },
  { url: "/", method: "POST", status: 405, says: "This address takes GET, HEAD" },
  { url: "/connections", method: "GET", status: 401, says: "This address is for programs" },
  { url: "/tokens/acme", method: "GET", status: 401, says: "This address is for programs" },
  { url: "/%zz", method: "GET", status: 400, says: "This address could not be read" },
  { url: `/connect/${"x".repeat(600)}`, method: "GET", status: 400, says: "This address could not be read" },
  { url: `/tokens/${"x".repeat(600)}`, method: "GET", status: 400, says: "This address could not be read" },
];

describe("of a wrong address a browser gets a page that says what to do, and a program a problem", () => {
  test.each(cases)("$method $url", async ({ url, method, status, says }) => {
    const page = await app.inject({ method, url, headers: { accept: browser } });
    expect([page.statusCode, page.headers["content-type"]]).toEqual([status, pageType]);
    expect(page.headers).toMatchObject({ ...pageHeaders("nowhere"), vary: "accept, authorization" });
    for (const words of [says, "What now?", "Bakery B.V.", "help@bakery.example"]) expect(page.body).toContain(words);
    const programs = [{}, ...[...acceptedByPrograms, javas].map((accept) => ({ accept }))];
    for (const headers of [...programs, { accept: browser, authorization: "Basic eDp5" }]) {
      const problem = await app.inject({ method, url, headers });
      expect([problem.statusCode, problem.headers["content-type"]]).toEqual([status, problemType]);
      expect(problem.headers).toMatchObject({ vary: "accept, authorization", "cache-control": "no-store" });
      for (const name of ["allow", "www-authenticate"]) expect(page.headers[name]).toBe(problem.headers[name]);
    }
  });
});

test("HEAD of a wrong address has the page's status, and no body", async () => {
  const answer = await fetch(`http://127.0.0.1:${port}/xyz`, { method: "HEAD", headers: { accept: browser } });
  expect([answer.status, answer.headers.get("content-type"), await answer.text()]).toEqual([404, pageType, ""]);
});

test("text of the address stays text on the page", async () => {
  const { body } = await app.inject({ url: "/<script>alert(1)</script>", headers: { accept: browser } });
  expect(body).not.toContain("<script");
});

test.each(["GET", "HEAD"] as const)("%s / leads to the API's documentation", async (method) => {
  for (const accept of [browser, "*/*"]) {
    const { statusCode, headers } = await app.inject({ method, url: "/", headers: { accept } });
    expect([statusCode, headers["location"], headers["cache-control"]]).toEqual([303, "/docs", "no-store"]);
  }
});

/** What comes back for bytes that Node's HTTP parser refuses. */
async function write(bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.end(bytes);
  return await text(socket);
}

const accepting = (accept: string) => `Host: broker\r\nAccept: ${accept}\r\n`;

test.each([
  { what: "20 KB of address", first: `GET /${"x".repeat(20_000)} HTTP/1.1`, says: "larger than 16 KiB" },
  { what: "a method that is none", first: "TAKE / HTTP/1.1", says: "not valid HTTP/1.1" },
  { what: "another protocol", first: "GET / HTTP/9.9", says: "not valid HTTP/1.1" },
])("what is refused before it is a request is a page for a browser, too: $what", async ({ first, says }) => {
  const page = await write(`${first}\r\n${accepting(browser)}\r\n`);
  expect(page).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
  expect(page).toContain(`\r\ncontent-type: ${pageType}\r\n`);
  const expected = [says, "What now?", "help@bakery.example", "content-security-policy"];
  for (const words of expected) expect(page).toContain(words);
  const [head = "", body = ""] = page.split("\r\n\r\n", 2);
  expect(head).toContain(`content-length: ${Buffer.byteLength(page.slice(head.length + 4))}`);
  expect(body).not.toBe("");
  const problem = await write(`${first}\r\n${accepting("*/*")}\r\n`);
  expect(problem).toContain(`\r\ncontent-type: ${problemType}\r\n`);
  expect(problem).toContain(says);
});
