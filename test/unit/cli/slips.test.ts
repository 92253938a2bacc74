import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { run, testKey } from "./run.ts";
import { problem, providerOf, startStubBroker } from "./stub-broker.ts";

const link = { id: "l1", url: "http://localhost:8080/connect/l1", expires_at: "2026-11-20T13:00:00.000Z" };
const code = { user_code: "WDJB", verification_uri: "https://id.example/device", expires_at: link.expires_at };
const routes = {
  "POST /connections/a/consent-links": { status: 201, body: link },
  "POST /connections/a/device": { body: code },
};
const connection = (more: object = {}) => ({
  name: "a",
  provider: "market",
  client: "kit2",
  grant: "authorization_code",
  status: "pending",
  scopes: [],
  labels: {},
  inputs: {},
  ...more,
});
const events = (...failures: object[]) => ({
  body: {
    items: failures.map((detail, index) => ({
      id: failures.length - index,
      at: "now",
      type: "consent_failed",
      detail,
    })),
    next_cursor: null,
  },
});

describe("a client that its provider refuses", () => {
  test("ends the wait for a link, which works on: what to correct is said", async () => {
    await using broker = await startStubBroker({
      ...routes,
      "GET /connections/a": { body: connection() },
      "GET /connections/a/events": [events(), events({ error: "client_rejected" })],
    });
    const result = await run(["connect", "a", "--provider", "market"], { env: { FRESHET_URL: broker.url } });
    expect(result).toMatchObject({ exitCode: 1, out: `${link.url}\n` });
    expect(result.err).toMatch(
      /freshet: market refuses the client's id or secret; correct it: freshet clients update kit2 --client-secret-file FILE \(or --client-id ID\)\. Then open the same link again, in the same browser: it works until 2026-11-20T13:00:00\.000Z \(client_rejected\)\n$/,
    );
  });

  test("is told apart from another failure, after which the wait goes on", async () => {
    await using broker = await startStubBroker({
      ...routes,
      "GET /connections/a": [
        { body: connection() },
        { body: connection() },
        { body: connection({ status: "connected" }) },
      ],
      "GET /connections/a/events": [events(), events({ error: "provider_unavailable" })],
    });
    const result = await run(["connect", "a"], { env: { FRESHET_URL: broker.url } });
    expect(result).toMatchObject({ exitCode: 0, err: expect.stringContaining("provider_unavailable") });
  });

  test("is named when the line is given again, since the client of the first time is used", async () => {
    await using broker = await startStubBroker({
      ...routes,
      "GET /connections/a": { body: connection({ status: "connected" }) },
      "GET /connections/a/events": events(),
    });
    const line = ["connect", "a", "--provider", "market", "--no-wait"];
    const result = await run(line, { env: { FRESHET_URL: broker.url } });
    expect(result).toMatchObject({
      exitCode: 0,
      err: expect.stringContaining("Using the client kit2, which is there."),
    });
  });
});

test.each([
  ["clients", "--client-id, --client-secret-file, --scope, --connections, --admin-only, --input"],
  ["connections", "--scope, --label, --no-labels, --input"],
])("%s update without options says what can be given, and sends nothing", async (group, said) => {
  await using broker = await startStubBroker({});
  const result = await run([group, "update", "kit2"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 2, err: expect.stringContaining(`Nothing to change: give ${said}`) });
  expect(broker.requests).toEqual([]);
});

test.each([
  ["link", "authorization_code"],
  ["code", "device_code"],
])(
  "a connection that is connected keeps its grant until its new %s is used, and both are said",
  async (shown, grant) => {
    await using broker = await startStubBroker({
      ...routes,
      "GET /connections/a": { body: connection({ grant, status: "connected" }) },
      "GET /connections/a/events": events(),
    });
    const result = await run(["connect", "a", "--timeout", "3"], { env: { FRESHET_URL: broker.url } });
    expect(result.exitCode).toBe(1);
    expect(result.err).toContain(`a is connected already; this ${shown} connects it anew.`);
    expect(result.err).toContain(
      `freshet: a has not been connected anew in time; it stays connected as it was. The ${shown} still works`,
    );
  },
);

test.each([
  [["--provider", "other"], "give another name, or delete it first: freshet connections delete a"],
  [["--grant", "import"], "give another name, or delete it first: freshet connections delete a"],
  [["--client", "kit3"], "give another name, or delete it first: freshet connections delete a"],
  [["--client-id", "id-2"], "freshet clients update kit2 --client-id ID changes it"],
  [["--scope", "read"], "freshet connections update a --scope SCOPE changes it"],
  [["--label", "team=b"], "freshet connections update a --label KEY=VALUE changes it"],
  [["--input", "region=us"], "freshet connections update a --input KEY=VALUE changes it"],
  [["--input", "host=b.example"], "freshet clients update kit2 --input KEY=VALUE changes it"],
])(
  "a connection that is there with something else names the command that can change that: %j",
  async (args, remedy) => {
    await using broker = await startStubBroker({
      "GET /connections/a": { body: connection({ inputs: { region: "eu" } }) },
      "GET /clients/kit2": { body: { name: "kit2", client_id: "id-1", inputs: { host: "a.example" } } },
      "GET /providers/market": providerOf("market"),
    });
    const line = ["connect", "a", "--provider", "market", ...args];
    const result = await run(line, { env: { FRESHET_URL: broker.url } });
    expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining(remedy) });
  },
);

test.each([
  [
    ["clients", "add", "c", "--client-secret", "canary"],
    "--client-secret-file FILE, FRESHET_CLIENT_SECRET, or the prompt",
  ],
  [["connect", "a", "--client-secret=canary"], "--client-secret-file FILE, FRESHET_CLIENT_SECRET, or the prompt"],
  [["connect", "a", "--password", "canary"], "--password-file FILE, FRESHET_PASSWORD, or the prompt"],
  [["import", "a", "--refresh-token", "canary"], "--refresh-token-file FILE or FRESHET_REFRESH_TOKEN"],
  [["import", "a", "--access-token", "canary"], "--access-token-file FILE or FRESHET_ACCESS_TOKEN"],
  [["connections", "code", "a", "--code", "canary"], "--code-file FILE, or the prompt"],
  [["connections", "list", "--key", "canary"], "FRESHET_KEY_FILE or FRESHET_KEY"],
])("a secret that is given as an argument is told where to go, and not repeated: %j", async (args, places) => {
  const result = await run(args);
  expect(result).toMatchObject({ exitCode: 2, err: expect.stringContaining(`No secret is an argument: ${places}`) });
  expect(result.err).not.toContain("canary");
});

const keyRefused = (place: string) => ({
  exitCode: 1,
  out: "",
  err: `freshet: The bearer is not a key of this broker. The key was taken from ${place}. (unauthenticated)\n`,
});

test("a key that the broker does not know is told with the place that it was taken from", async () => {
  const dataDir = join((await temporaryFolder("cli")).path, "data");
  await mkdir(dataDir);
  const file = join(dataDir, "admin-key");
  await writeFile(file, testKey);
  await using broker = await startStubBroker({
    "GET /clients": problem(401, "unauthenticated", "The bearer is not a key of this broker."),
  });
  const tell = async (env: Record<string, string>) =>
    await run(["clients", "list"], { env: { FRESHET_KEY: "", FRESHET_URL: broker.url, ...env } });
  expect(await tell({ FRESHET_KEY: testKey })).toEqual(keyRefused("FRESHET_KEY"));
  expect(await tell({ FRESHET_KEY_FILE: file })).toEqual(keyRefused(`FRESHET_KEY_FILE (${file})`));
  expect(await tell({ ADMIN_KEY: testKey })).toEqual(keyRefused("ADMIN_KEY"));
  expect(await tell({ ADMIN_KEY_FILE: file })).toEqual(keyRefused(`ADMIN_KEY_FILE (${file})`));
  expect(await tell({ DATA_DIR: dataDir })).toEqual(keyRefused(`the file ${file}`));
});

test("an answer that does not fit is asked for again, with what is allowed, and the answers before it are kept", async () => {
  const inputs = { shop: { pattern: "^[a-z]+$", description: "the shop" }, region: { enum: ["eu", "us"] } };
  const needs = { authorization_code: { client_inputs: ["shop", "region"] } };
  await using broker = await startStubBroker({
    "GET /providers/market": providerOf("market", { needs, inputs }),
    "POST /clients": { status: 201, body: { name: "m", redirect_uri: "none" } },
  });
  const add = async (...answers: string[]) =>
    await run(["clients", "add", "m", "--provider", "market"], {
      env: { FRESHET_URL: broker.url },
      interactive: true,
      stdin: answers.map((answer) => `${answer}\r`).join(""),
    });
  const result = await add("id-1", "Acme!", "acme", "EU", "asia", "eu", "s3cret");
  expect(result.exitCode).toBe(0);
  expect(result.err).toContain("shop must match ^[a-z]+$ (the shop)");
  expect(result.err).toContain("region must be one of eu, us");
  expect(broker.sentTo("POST /clients")).toEqual([
    {
      name: "m",
      provider: "market",
      client_id: "id-1",
      client_secret: "s3cret",
      inputs: { shop: "acme", region: "eu" },
    },
  ]);
  const thrice = await add("id-1", "A", "B", "C");
  expect(thrice).toMatchObject({
    exitCode: 2,
    err: expect.stringMatching(/shop must match .* \(usage\)\n$/),
  });
  expect(broker.sentTo("POST /clients")).toHaveLength(1);
});

test("a secret that does not fit is asked for again, and not shown", async () => {
  const inputs = { store_key: { secret: true, pattern: "^k-" } };
  const needs = { client_credentials: { client: false, client_secret: false, inputs: ["store_key"] } };
  const keyed = providerOf("keyed", { grants: ["client_credentials"], needs, inputs });
  await using broker = await startStubBroker({
    "GET /providers/keyed": keyed,
    "POST /connections": { status: 201, body: connection({ status: "connected" }) },
  });
  for (const more of [[], ["--secret-input", "store_key"]]) {
    const result = await run(["connections", "add", "a", "--provider", "keyed", ...more], {
      env: { FRESHET_URL: broker.url },
      interactive: true,
      stdin: "canary\rk-canary\r",
    });
    expect(result).toMatchObject({ exitCode: 0, err: expect.stringContaining("store_key must match ^k-") });
    expect(result.err).not.toContain("canary");
  }
  const sent = { name: "a", provider: "keyed", inputs: { store_key: "k-canary" } };
  expect(broker.sentTo("POST /connections")).toEqual([sent, sent]);
});
