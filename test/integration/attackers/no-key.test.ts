import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { makeApiKey } from "../../../src/callers/keys.ts";
import { type BrokerProcess, startBroker } from "../../support/broker-process.ts";
import type { Place } from "../../support/canaries.ts";
import { until } from "../../support/patience.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { query } from "../../support/query.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import {
  describeWithServices,
  startPrivatePostgres,
  startPrivateRedis,
  statementsIn,
} from "../../support/services/index.ts";
import { walkConsent } from "../../support/walk-consent.ts";
import { ForeignHost } from "./support/foreign-host.ts";
import { readNeighbours, stolenFrom } from "./support/neighbours.ts";

type Sending = {
  method?: "GET" | "POST";
  path: string;
  from?: string;
  headers?: Record<string, string>;
  body?: string;
};
type Answer = { status: number; headers: Record<string, string | string[] | undefined>; text: string };

const neighbours = ["bakery", "florist"];

/** How many answers have which status. */
const count = (given: readonly Answer[]) =>
  Object.fromEntries(
    [...new Set(given.map(({ status }) => status))]
      .toSorted((one, other) => one - other)
      .map((each) => [each, given.filter(({ status }) => status === each).length]),
  );

const guess = (from: string): Sending => ({
  path: "/tokens/bakery",
  from,
  headers: { authorization: `Bearer ${makeApiKey(randomBytes).key}` },
});

/** Addresses of one /64. */
const spelt = (index: number) =>
  `2001:${["db8", "0db8", "DB8", "0DB8"][index % 4]}:0:7:${index.toString(16)}::%e${index}`;

/** A text that looks like the last part of a link. */
const unknownLink = () => `${randomBytes(8).toString("hex")}-${randomBytes(16).toString("hex")}`;

const authorize = (redirect: string) =>
  `/sandbox/authorize?client_id=sandbox&response_type=code&redirect_uri=${encodeURIComponent(redirect)}`;

describeWithServices(["postgres", "redis"], "an attacker without any key", () => {
  const stack = new AsyncDisposableStack();
  const provider = new GenericProvider();
  const agent = new Agent({ connections: null });
  const answers: Place[] = [];
  let postgres: Awaited<ReturnType<typeof startPrivatePostgres>>;
  let broker: BrokerProcess;
  let foreign: ForeignHost;
  let serviceKey = "";

  beforeAll(async () => {
    stack.defer(() => agent.destroy());
    postgres = stack.use(await startPrivatePostgres({ logStatements: true }));
    const redis = stack.use(await startPrivateRedis()); // so that no broker of another test sends messages there
    foreign = stack.use(await ForeignHost.start("127.0.0.2"));
    stack.use(await provider.start());
    const env = { TRUST_PROXY: "127.0.0.1", SANDBOX: "true", LINK_PAGES_PER_MINUTE: "60", CALLBACKS_PER_MINUTE: "20" };
    broker = stack.use(
      await startBroker({
        databaseUrl: postgres.url,
        redisUrl: redis.url,
        providersDir: await providersFolder(provider),
        env,
      }),
    );
    provider.redirectUris.add(broker.redirectUri(provider.id));
    const { id: client_id, secret: client_secret } = provider.client;
    await broker.api.createClient({ name: "app", provider: provider.id, client_id, client_secret });
    for (const name of [...neighbours, "waiting"]) {
      await broker.api.createConnection({ name, provider: provider.id, client: "app" });
      if (name === "waiting") continue;
      const { accessToken, refreshToken, expiresIn } = provider.issueTokenSet();
      const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: expiresIn };
      await broker.api.importTokens(name, set);
    }
    serviceKey = await broker.api.createKey({ name: "service", abilities: ["tokens"], connections: neighbours });
  });
  afterAll(async () => await stack.disposeAsync());

  /** What an attacker sends, from an address that the proxy in front of the broker vouches for. */
  const send = async ({ method = "GET", path, from = "192.0.2.1", headers = {}, body }: Sending): Promise<Answer> => {
    const given = { "x-forwarded-for": from, ...headers };
    const url = new URL(path, broker.url);
    const answer = await request(url, { dispatcher: agent, method, headers: given, body: body ?? null });
    const text = await answer.body.text();
    answers.push({ where: `${answer.statusCode} to ${method} ${path}`, text: JSON.stringify(answer.headers) + text });
    return { status: answer.statusCode, headers: answer.headers, text };
  };
  const flood = async (times: number, each: (index: number) => Sending) =>
    await Promise.all(Array.from({ length: times }, (_, index) => send(each(index))));
  /** How many statements like this one Postgres has got while `work` was done. */
  const statementsDuring = async (work: () => Promise<unknown>, like: RegExp): Promise<number> => {
    const mark = async () => {
      const text = `SELECT 'mark ${randomBytes(8).toString("hex")}' AS mark`;
      await query(postgres.url, text);
      return await until("Postgres logs a mark", async () => {
        const at = statementsIn(await postgres.log()).indexOf(text);
        return at >= 0 && { at };
      });
    };
    const { at: from } = await mark();
    await work();
    const { at: to } = await mark();
    return statementsIn(await postgres.log())
      .slice(from, to)
      .filter((statement) => like.test(statement)).length;
  };
  const rowsOf = async (table: string) => (await query(postgres.url, `SELECT 1 FROM ${table}`)).length;

  it("guesses keys: ten a minute from a /64 however it is spelt, the next ones ask no database, and a right key is let in", async () => {
    let guesses: Answer[] = [];
    const asked = await statementsDuring(async () => {
      for (let index = 0; index < 10; index++) guesses.push(await send(guess(spelt(index))));
      guesses = [...guesses, ...(await flood(90, (index) => guess(spelt(index + 10))))];
    }, /FROM api_keys k WHERE k\.id = ANY/);
    expect(count(guesses)).toEqual({ 401: 10, 429: 90 });
    for (const { headers } of guesses.slice(10)) expect(Number(headers["retry-after"])).toBeGreaterThan(0);
    expect(asked).toBe(10);
    const right = { authorization: `Bearer ${serviceKey}` };
    const read = await request(`${broker.url}/tokens/bakery`, { headers: { ...right, "x-forwarded-for": spelt(1) } });
    expect(read.statusCode).toBe(200);
    await read.body.dump();
    expect(count([await send(guess("::ffff:198.51.100.1")), await send(guess("198.51.100.1"))])).toEqual({ 401: 2 });
    await readNeighbours(broker.api, neighbours);
  });

  it("guesses links and comes back without a state: so many a minute, nothing is stored, and another address is served", async () => {
    let pages: Answer[] = [];
    const asked = await statementsDuring(async () => {
      pages = await flood(90, () => ({ path: `/connect/${unknownLink()}`, from: "203.0.113.5" }));
    }, /FROM consent_links/);
    expect([asked > 0, asked <= 2 * 60]).toEqual([true, true]);
    expect(count(pages)).toEqual({ 404: 60, 429: 30 });
    const backs = await flood(50, (index) => ({
      path: `/callback/${provider.id}?${index % 2 === 0 ? "code=x" : `code=x&state=${randomBytes(32).toString("base64url")}`}`,
      from: `2001:db8:9:9:${index.toString(16)}::1`,
    }));
    expect(count(backs)).toEqual({ 400: 20, 429: 30 });
    for (const { text, headers } of [...pages, ...backs].filter(({ status }) => status === 429)) {
      expect(text).toContain("Too many requests");
      expect(Number(headers["retry-after"])).toBeGreaterThan(0);
    }
    expect((await send({ path: `/connect/${unknownLink()}`, from: "203.0.113.6" })).status).toBe(404);
    for (const table of ["authorization_requests", "consent_attempts"]) expect(await rowsOf(table)).toBe(0);
    await readNeighbours(broker.api, neighbours);
  });

  it("posts one link again and again: five requests are stored, and another link goes on working", async () => {
    const browser = new ScriptedBrowser();
    const page = await browser.open((await broker.api.consentLink("waiting")).url);
    const stopAt = (url: URL) => url.origin !== broker.url;
    const posts = await Promise.all(Array.from({ length: 30 }, () => browser.submit(page, { stopAt })));
    const led = posts.filter(({ url }) => url.origin === provider.origin);
    expect(led).toHaveLength(5);
    expect(posts.filter(({ status }) => status === 429)).toHaveLength(25);
    expect(await rowsOf("authorization_requests")).toBe(5);
    await browser.close();
    expect((await walkConsent((await broker.api.consentLink("waiting")).url)).text).toContain("Connected");
    await readNeighbours(broker.api, neighbours);
  });

  it("asks for metrics and readiness as fast as it can: each is worked out once a second", async () => {
    const beganMs = performance.now();
    const asked = await statementsDuring(async () => {
      expect(count(await flood(400, (index) => ({ path: index % 2 === 0 ? "/metrics" : "/readyz" })))).toEqual({
        200: 400,
      });
    }, /^SELECT 1$|oldest/i);
    const seconds = (performance.now() - beganMs) / 1000;
    expect(asked).toBeGreaterThanOrEqual(1);
    expect(asked).toBeLessThanOrEqual(2 * (2 + Math.floor(seconds)));
    await readNeighbours(broker.api, neighbours);
  });

  it("tries the sandbox and every route of the document: 401, and nowhere to lead anybody", async () => {
    for (const redirect of [
      foreign.origin,
      `${broker.url}.evil.example/callback/sandbox`,
      `${broker.redirectUri("sandbox")}/../x`,
    ]) {
      const { status, headers } = await send({ path: authorize(redirect) });
      expect([status, headers["location"]]).toEqual([400, undefined]);
    }
    const form = { "content-type": "application/x-www-form-urlencoded" };
    const grant = "grant_type=refresh_token&refresh_token=x&client_id=sandbox&client_secret=x";
    expect((await send({ method: "POST", path: "/sandbox/token", headers: form, body: grant })).status).toBe(401);
    expect((await send({ method: "POST", path: "/sandbox/revoke", headers: form, body: "token=x" })).status).toBe(401);
    const { text } = await send({ path: "/openapi.json" });
    const { paths } = JSON.parse(text) as { paths: Record<string, Record<string, { security?: unknown[] }>> };
    const routes = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { security }]) => ({ path, method, isOpen: security?.length === 0 })),
    );
    const closed = routes.filter(({ isOpen }) => !isOpen);
    expect(closed.length).toBeGreaterThan(20);
    for (const [index, { path, method }] of closed.entries()) {
      const given = { method: method.toUpperCase() as "GET", path: path.replaceAll(/\{\w+\}/g, "bakery") };
      expect((await send({ ...given, from: `2001:db8:a:${index.toString(16)}::1` })).status, `${method} ${path}`).toBe(
        401,
      );
    }
    await readNeighbours(broker.api, neighbours);
  });

  it("says that it is another host: nothing of that comes back", async () => {
    const evil = {
      host: "evil.example",
      "x-forwarded-host": "evil.example",
      "x-forwarded-proto": "ftp",
      forwarded: "host=evil.example;proto=ftp",
      "x-original-url": "/keys",
      "x-http-method-override": "DELETE",
    };
    for (const path of [
      "/docs",
      "/docs/",
      "/readyz",
      "/connect/x",
      `/callback/${provider.id}`,
      "/sandbox/authorize",
      "/nowhere",
      "/",
    ]) {
      const { text, headers } = await send({ path, headers: evil, from: "203.0.113.77" });
      expect(JSON.stringify(headers) + text, path).not.toMatch(/evil\.example|ftp:/);
    }
  });

  it("sends too much, too slowly, and two requests in one: each is refused or waited for, and no other caller waits", async () => {
    const big = "x".repeat(2_000_000);
    for (const path of ["/connect/x", "/sandbox/token"]) {
      const type = { "content-type": "application/x-www-form-urlencoded", origin: broker.url };
      expect((await send({ method: "POST", path, headers: type, body: big, from: "203.0.113.78" })).status).toBe(413);
    }
    const port = Number(new URL(broker.url).port);
    const slow = Array.from({ length: 200 }, (_, index) => {
      const socket = connect(port, "127.0.0.1").on("error", () => undefined);
      const begin = [
        "GET /livez HTTP/1.1\r\nhost: x\r\n",
        "POST /connect/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\na",
        "",
      ];
      socket.write(begin[index % 3] ?? "");
      return socket;
    });
    const smuggle = [
      "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /tokens/bakery HTTP/1.1\r\nhost: x\r\n\r\n",
      "GET /livez HTTP/1.1\r\nhost: x\r\nx: a\nGET /tokens/bakery HTTP/1.1\r\n\r\n",
      "GET http://evil.example/tokens/bakery HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\nconnection: close\r\n\r\n",
      `GET /livez HTTP/1.1\r\nhost: x\r\ncookie: ${"c".repeat(20_000)}\r\n\r\n`,
    ];
    const said = await Promise.all(
      smuggle.map(async (bytes) => {
        const socket = connect(port, "127.0.0.1").on("error", () => undefined);
        socket.write(bytes);
        let text = "";
        for await (const chunk of socket) text += String(chunk);
        answers.push({ where: "bytes", text });
        return text.match(/HTTP\/1\.1 \d+/g);
      }),
    );
    expect(said).toEqual([["HTTP/1.1 400"], ["HTTP/1.1 400"], ["HTTP/1.1 401"], ["HTTP/1.1 400"]]);
    // While two hundred connections are open, none of which has sent a whole request.
    await readNeighbours(broker.api, neighbours);
    expect(slow.filter(({ destroyed }) => destroyed)).toEqual([]);
    for (const socket of slow) socket.destroy();
  });

  it("has got no token, no secret and nobody to ask elsewhere, and nothing of it was unexpected", async () => {
    expect(stolenFrom(provider, answers)).toEqual([]);
    expect([foreign.connections, foreign.requests]).toEqual([0, []]);
    const written = broker.stdout + broker.stderr;
    const bad = written.split("\n").filter((line) => /"level":"(error|fatal)"|unexpected error/.test(line));
    expect(bad).toEqual([]);
    const received = answers.map(({ text }) => text).join();
    for (const secret of [serviceKey, broker.adminKey]) expect(received).not.toContain(secret);
  });
});
