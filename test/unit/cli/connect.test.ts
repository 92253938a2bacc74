import { expect, test } from "vitest";
import { run } from "./run.ts";
import { problem, startStubBroker } from "./stub-broker.ts";

const link = { id: "l1", url: "http://localhost:8080/connect/l1", expires_at: "2026-11-20T13:00:00.000Z" };
const made = { "POST /connections/a/consent-links": { status: 201, body: link } };
const connection = (status: string) => ({ body: { name: "a", status, version: 1 } });
const events = (...types: string[]) => ({
  body: {
    items: types.map((type, index) => ({ id: types.length - index, at: "2026-11-20T12:00:00Z", type, detail: {} })),
    next_cursor: null,
  },
});

test("connect prints the link, waits, and says when it is connected", async () => {
  await using broker = await startStubBroker({
    ...made,
    "GET /connections/a": [connection("pending"), connection("pending"), connection("connected")],
    "GET /connections/a/events": [events("created"), events("consent_denied", "created")],
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result.exitCode).toBe(0);
  expect(result.out).toBe(`${link.url}\nConnection a is connected.\n`);
  expect(result.err.match(/consent_denied/g)).toHaveLength(1);
});

test("reconnecting waits for the new consent, not for the status that it has already", async () => {
  await using broker = await startStubBroker({
    ...made,
    "GET /connections/a": connection("connected"),
    "GET /connections/a/events": [
      events("connected"),
      events("refreshed", "connected"),
      events("reconnected", "refreshed", "connected"),
    ],
  });
  const result = await run(["connect", "a", "--json"], { env: { FRESHET_URL: broker.url } });
  const lines = result.out
    .trim()
    .split("\n")
    .map((line): unknown => JSON.parse(line));
  expect(lines).toEqual([link, { name: "a", status: "connected", version: 1 }]);
  expect(broker.requests.filter(({ path }) => path.endsWith("/events"))).toHaveLength(3);
});

test("--no-wait prints the link and leaves", async () => {
  await using broker = await startStubBroker(made);
  const args = ["connect", "a", "--no-wait", "--expires-in", "60", "--return-to", "https://x.example", "--manual"];
  const result = await run(args, { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: `${link.url}\n`, err: "" });
  expect(broker.requests.at(-1)?.body).toEqual({ expires_in: 60, return_to: "https://x.example", manual: true });
});

test.each([
  ["the time given is over", ["--timeout", "5"]],
  ["the link is over", []],
])("waiting ends with exit code 1 when %s", async (_case, args) => {
  await using broker = await startStubBroker({
    "POST /connections/a/consent-links": { status: 201, body: { ...link, expires_at: "2026-11-20T12:00:05.000Z" } },
    "GET /connections/a": connection("pending"),
    "GET /connections/a/events": events(),
  });
  const result = await run(["connect", "a", ...args], { env: { FRESHET_URL: broker.url } });
  expect(result.exitCode).toBe(1);
  expect(result.err).toMatch(/freshet: a has not been connected in time \(not_connected\)\n$/);
  expect(broker.requests.filter(({ path }) => path.endsWith("/events"))).toHaveLength(1 + 5);
});

test.each([
  ["disabled", connection("disabled"), "connection_disabled"],
  ["deleted", problem(404, "connection_not_found", "There is no connection a."), "connection_not_found"],
])("waiting ends at once when the connection is %s meanwhile", async (_case, later, code) => {
  await using broker = await startStubBroker({
    ...made,
    "GET /connections/a": [connection("pending"), later],
    "GET /connections/a/events": events(),
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result.exitCode).toBe(1);
  expect(result.err).toContain(`(${code})\n`);
});

test("a broker that restarts meanwhile is waited for", async () => {
  const away = problem(503, "storage_unavailable", "Postgres is away.");
  await using broker = await startStubBroker({
    ...made,
    "GET /connections/a": [connection("pending"), away, { status: 502, raw: "no server" }, connection("connected")],
    "GET /connections/a/events": events(),
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 0 });
});
