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

test("connect makes a link that an app completes, and says whose browser is to open it", async () => {
  await using broker = await startStubBroker({
    ...made,
    "GET /connections/a": [connection("pending"), connection("connected")],
    "GET /connections/a/events": [events("created"), events("connected", "created")],
  });
  const forApp = ["--completion", "app", "--end-user", "42", "--return-to", "https://app.example/"];
  const result = await run(["connect", "a", ...forApp], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 0, out: `${link.url}\nConnection a is connected.\n` });
  expect(result.err).toContain("of the user 42, who is signed in to your app");
  expect(broker.requests.find(({ method }) => method === "POST")?.body).toEqual({
    completion: "app",
    end_user: "42",
    return_to: "https://app.example/",
  });
});

test("connect says what to do where only apps may connect accounts", async () => {
  const why = "A plain consent link is forbidden here (CONSENT_COMPLETION=app): no app says whose it is.";
  await using broker = await startStubBroker({
    "POST /connections/a/consent-links": problem(409, "grant_not_applicable", why),
    "GET /connections/a": connection("pending"),
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result.exitCode).toBe(1);
  expect(result.err).toContain("freshet connect a --completion app --end-user ID --return-to URL");
});

test("connect says at once what a new connection lacks", async () => {
  const attention = { code: "no_refresh_token", since: "2026-11-20T12:00:00.000Z", detail: "It ends with its token." };
  const connected = { body: { ...connection("connected").body, attention } };
  await using broker = await startStubBroker({
    ...made,
    "GET /connections/a": [connection("pending"), connected],
    "GET /connections/a/events": [events("created"), events("no_refresh_token", "connected", "created")],
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 0, out: `${link.url}\nConnection a is connected.\n` });
  expect(result.err).toContain("freshet: warning: It ends with its token. (no_refresh_token)\n");
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
  await using broker = await startStubBroker({ ...made, "GET /connections/a": connection("pending") });
  const args = [
    "connect",
    "a",
    "--no-wait",
    "--expires-in",
    "60",
    "--return-to",
    "https://x.example",
    "--manual",
    "--purpose",
    "Invoices",
  ];
  const result = await run(args, { env: { FRESHET_URL: broker.url } });
  expect(result).toEqual({ exitCode: 0, out: `${link.url}\n`, err: "" });
  expect(broker.requests.at(-1)?.body).toEqual({
    expires_in: 60,
    return_to: "https://x.example",
    manual: true,
    purpose: "Invoices",
  });
});

test.each([
  [
    "the time given is over, and says that the link still works",
    ["--timeout", "5"],
    "2026-11-20T13:00:00.000Z",
    "The link still works, until 2026-11-20T13:00:00.000Z; see later: freshet connections show a",
  ],
  [
    "the link is over, and says how to get another one",
    [],
    "2026-11-20T12:00:05.000Z",
    "The link works no more; for another one: freshet connect a",
  ],
  [
    "the link is over before the time given",
    ["--timeout", "60"],
    "2026-11-20T12:00:05.000Z",
    "The link works no more; for another one: freshet connect a",
  ],
])("waiting ends with exit code 1 when %s", async (...[, args, expires_at, remedy]) => {
  await using broker = await startStubBroker({
    "POST /connections/a/consent-links": { status: 201, body: { ...link, expires_at } },
    "GET /connections/a": connection("pending"),
    "GET /connections/a/events": events(),
  });
  const result = await run(["connect", "a", ...args], { env: { FRESHET_URL: broker.url } });
  expect(result.exitCode).toBe(1);
  expect(result.err).toContain(`freshet: a has not been connected in time. ${remedy} (not_connected)\n`);
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

const deviceCode = {
  user_code: "WDJB-MJHT",
  verification_uri: "https://id.example/device",
  verification_uri_complete: "https://id.example/device?user_code=WDJB-MJHT",
  expires_at: "2026-11-20T12:10:00.000Z",
  interval: 5,
};
const byDevice = (status: string) => ({ body: { name: "a", status, version: 1, grant: "device_code" } });

test("a device_code connection is connected with a code, which is shown with the address to type it in at", async () => {
  await using broker = await startStubBroker({
    "GET /connections/a": [byDevice("pending"), byDevice("pending"), byDevice("connected")],
    "GET /connections/a/events": events("created"),
    "POST /connections/a/device": { body: deviceCode },
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({
    exitCode: 0,
    out: "WDJB-MJHT  https://id.example/device\nConnection a is connected.\n",
    err: expect.stringContaining(deviceCode.verification_uri_complete),
  });
  expect(broker.requests.map(({ method, path }) => `${method} ${path}`).slice(0, 3)).toEqual([
    "GET /connections/a",
    "GET /connections/a/events",
    "POST /connections/a/device",
  ]);
});

test("--json prints the code and, when it is connected, the connection", async () => {
  await using broker = await startStubBroker({
    "GET /connections/a": [byDevice("pending"), byDevice("connected")],
    "GET /connections/a/events": events(),
    "POST /connections/a/device": { body: deviceCode },
  });
  const result = await run(["connect", "a", "--json"], { env: { FRESHET_URL: broker.url } });
  const lines = result.out.trim().split("\n");
  expect(lines.map((line): unknown => JSON.parse(line))).toEqual([deviceCode, byDevice("connected").body]);
});

test.each([
  ["consent_denied", /code works no more \(not_connected\)\n$/],
  ["consent_failed", /code works no more \(not_connected\)\n$/],
  ["other_account_held", /another account's owner: freshet connections confirm a .* \(account_changed\)\n$/],
])("after %s the code works no more, and waiting ends", async (type, said) => {
  await using broker = await startStubBroker({
    "GET /connections/a": byDevice("pending"),
    "GET /connections/a/events": [events("created"), events("created"), events(type, "created")],
    "POST /connections/a/device": { body: deviceCode },
  });
  const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringMatching(said) });
  expect(result.err).toContain(type);
  expect(broker.requests.filter(({ path }) => path.endsWith("/events"))).toHaveLength(3);
});

test.each([
  ["ends with the code", [], "2026-11-20T12:00:05.000Z", "The code works no more"],
  ["that ends before the code says that it still works", ["--timeout", "5"], "2026-11-20T12:15:00.000Z", "still works"],
])("waiting for a code %s", async (...[, args, expires_at, said]) => {
  await using broker = await startStubBroker({
    "GET /connections/a": byDevice("pending"),
    "GET /connections/a/events": events(),
    "POST /connections/a/device": { body: { ...deviceCode, expires_at } },
  });
  const result = await run(["connect", "a", ...args], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringMatching(/in time\. .* \(not_connected\)\n$/) });
  expect(result.err).toContain(said);
  expect(broker.requests.filter(({ path }) => path.endsWith("/events"))).toHaveLength(1 + 5);
});

test("what is for links is refused where a code is typed in, before there is one", async () => {
  await using broker = await startStubBroker({ "GET /connections/a": byDevice("pending") });
  const result = await run(["connect", "a", "--return-to", "https://x.example"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 2, err: expect.stringContaining("are for links") });
  expect(broker.requests.map(({ method }) => method)).toEqual(["GET"]);
});
