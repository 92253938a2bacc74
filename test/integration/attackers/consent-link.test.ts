import { randomBytes } from "node:crypto";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../../support/broker-process.ts";
import type { Place } from "../../support/canaries.ts";
import { until } from "../../support/patience.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { query } from "../../support/query.ts";
import { type Page, ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices, useDatabase, useRedis } from "../../support/services/index.ts";
import { approve } from "../../support/walk-consent.ts";
import { ForeignHost } from "./support/foreign-host.ts";
import { readNeighbours, stolenFrom } from "./support/neighbours.ts";

const neighbours = ["bakery", "florist"];
const app = "https://app.example";

describeWithServices(["postgres", "redis"], "an attacker with a consent link that was sent to somebody else", () => {
  const stack = new AsyncDisposableStack();
  const provider = new GenericProvider();
  const agent = new Agent({ connections: null });
  const answers: Place[] = [];
  const attacker = new ScriptedBrowser();
  let foreign: ForeignHost;
  let databaseUrl = "";
  let replicas: BrokerProcess[];
  let broker: BrokerProcess;
  let made = 0;

  beforeAll(async () => {
    stack.defer(() => agent.destroy());
    stack.defer(() => attacker.close());
    foreign = stack.use(await ForeignHost.start("127.0.0.2"));
    stack.use(await provider.start());
    databaseUrl = await useDatabase();
    const shared = {
      databaseUrl,
      redisUrl: await useRedis(),
      providersDir: await providersFolder(provider),
      encryptionKeys: `k1:${randomBytes(32).toString("base64")}`,
      adminKey: randomBytes(32).toString("hex"),
      // Another test is about the limits for one address. Here they are high, so that each request reaches what they guard.
      env: { RETURN_ORIGINS: app, LINK_PAGES_PER_MINUTE: "60000", CALLBACKS_PER_MINUTE: "60000" },
    };
    broker = stack.use(await startBroker(shared));
    const second = stack.use(await startBroker({ ...shared, publicUrl: broker.url }));
    replicas = [broker, second];
    provider.redirectUris.add(broker.redirectUri(provider.id));
    provider.changeSecret();
    const { id: client_id, secret: client_secret } = provider.client;
    await broker.api.createClient({ name: "app", provider: provider.id, client_id, client_secret });
    for (const name of neighbours) {
      await broker.api.createConnection({ name, provider: provider.id, client: "app" });
      const { accessToken, refreshToken, expiresIn } = provider.issueTokenSet();
      const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: expiresIn };
      await broker.api.importTokens(name, set);
    }
  });
  afterAll(async () => await stack.disposeAsync());

  /** A connection that waits, and the link that its owner was sent. */
  const invite = async (options: { expires_in?: number } = {}) => {
    const name = `invited-${++made}`;
    await broker.api.createConnection({ name, provider: provider.id, client: "app" });
    const path = `/connections/${name}/consent-links`;
    const { body } = await broker.api.api(path, { method: "POST", body: { return_to: `${app}/done`, ...options } });
    return { name, url: (body as { url: string }).url };
  };

  /** Its owner opens the link and says yes; they have not come back yet. */
  const comeBack = async (url: string, browser = new ScriptedBrowser()) => {
    const away = await browser.submit(await browser.open(url), { stopAt: ({ origin }) => origin !== broker.url });
    return { browser, callback: await approve(away.url.href, browser) };
  };

  const keep = (page: Page): Page => {
    answers.push({ where: `${page.status} from ${page.url.pathname}`, text: JSON.stringify(page.headers) + page.html });
    return page;
  };
  const open = async (url: string | URL) => keep(await attacker.open(url, { stopAt: () => true }));

  /** As no browser would send it. Redirects are not followed. */
  const send = async (path: string, headers: Record<string, string> = {}, form?: Record<string, string>) => {
    const answer = await request(new URL(path, broker.url), {
      dispatcher: agent,
      method: form === undefined ? "GET" : "POST",
      headers: { ...(form && { "content-type": "application/x-www-form-urlencoded" }), ...headers },
      body: form === undefined ? null : new URLSearchParams(form).toString(),
    });
    const text = await answer.body.text();
    answers.push({ where: `${answer.statusCode} to ${path}`, text: JSON.stringify(answer.headers) + text });
    return { status: answer.statusCode, location: answer.headers["location"], text };
  };
  const cookieOf = (browser: ScriptedBrowser) =>
    [...browser.cookiesFor(broker.url)].map(([name, value]) => `${name}=${value}`).join("; ");
  const rows = async () => {
    const tables = ["authorization_requests", "consent_attempts"];
    return await Promise.all(tables.map(async (table) => (await query(databaseUrl, `SELECT 1 FROM ${table}`)).length));
  };
  const exchanges = () => provider.ledger.granted("authorization_code");

  it("reads its page and tries it as a key: names, and nothing that opens anything", async () => {
    const { name, url } = await invite();
    const page = await open(url);
    expect([page.status, page.text]).toEqual([200, expect.stringContaining(name)]);
    const [id = "", secret = ""] = new URL(url).pathname.split("/").at(-1)?.split("-") ?? [];
    for (const bearer of [id, secret, `${id}-${secret}`, `frt_${id}_${secret}`]) {
      for (const path of [`/tokens/${name}`, "/keys"]) {
        expect((await send(path, { authorization: `Bearer ${bearer}` })).status).toBe(401);
      }
    }
    await readNeighbours(broker.api, neighbours);
  });

  it("has a friend with a key who widens what was shown before the owner presses Continue: the form is out of date", async () => {
    const { name, url } = await invite();
    const owner = new ScriptedBrowser();
    const page = await owner.open(url);
    const path = `/connections/${name}`;
    expect((await broker.api.api(path, { method: "PATCH", body: { scopes: ["read", "admin"] } })).status).toBe(200);
    const late = await owner.submit(page, { stopAt: ({ origin }) => origin !== broker.url });
    expect([late.status, late.text]).toEqual([403, expect.stringContaining("This page is out of date")]);
    const anew = await owner.open(url);
    expect(anew.text).toContain("admin");
    const away = await owner.submit(anew, { stopAt: ({ origin }) => origin !== broker.url });
    expect(away.url.searchParams.get("scope")).toBe("read admin");
  });

  it("comes in another browser once its owner has begun: 403 at every step, and the owner finishes", async () => {
    const { name, url } = await invite();
    const before = exchanges();
    const early = await open(url);
    const { browser, callback } = await comeBack(url);
    expect((await open(url)).status).toBe(403);
    expect(keep(await attacker.submit(early)).status).toBe(403);
    for (const replica of replicas) {
      expect((await open(new URL(`${callback.pathname}${callback.search}`, replica.url))).status).toBe(403);
    }
    expect((await send(`${callback.pathname}${callback.search}`)).status).toBe(403);
    expect([exchanges(), (await broker.api.connection(name)).status]).toEqual([before, "pending"]);
    expect((await browser.open(callback)).text).toContain("Connected");
    expect(exchanges()).toBe(before + 1);
  });

  it("replays what its owner had: callback, page and forms tell another browser nothing, and send nothing again", async () => {
    const { name, url } = await invite();
    const { browser, callback } = await comeBack(url);
    const done = await browser.open(callback);
    const before = exchanges();
    for (const again of [callback, done.url]) {
      const page = await open(again);
      expect([page.status, page.text.includes(name)]).toEqual([403, false]);
    }
    // The owner's own reload and double click, on either replica.
    for (const replica of replicas) {
      const back = await browser.open(new URL(`${callback.pathname}${callback.search}`, replica.url));
      expect(back.text).toContain("Connected");
    }
    const cookie = cookieOf(browser);
    const { pathname } = done.url;
    for (const origin of ["https://evil.example", "null", foreign.origin, `${broker.url}.evil.example`]) {
      expect((await send(pathname, { cookie, origin }, { csrf: "x", accept: "yes" })).status).toBe(403);
      expect((await send(new URL(url).pathname, { cookie, origin }, { csrf: "x" })).status).toBe(403);
    }
    expect((await send(pathname, { cookie, origin: broker.url }, { csrf: "x", accept: "yes" })).status).toBe(403);
    expect(exchanges()).toBe(before);
    await readNeighbours(broker.api, neighbours);
  });

  it("puts a stolen code into a consent of its own, and its own state before another's: nothing is connected", async () => {
    const [theirs, mine] = [await invite(), await invite()];
    const stolen = await comeBack(theirs.url);
    const own = await comeBack(mine.url, attacker);
    const injected = new URL(own.callback);
    injected.searchParams.set("code", stolen.callback.searchParams.get("code") ?? "");
    expect(keep(await attacker.open(injected)).status).toBe(502);
    const swapped = new URL(stolen.callback);
    swapped.searchParams.set("state", own.callback.searchParams.get("state") ?? "");
    expect(keep(await stolen.browser.open(swapped)).status).toBe(403);
    for (const { name } of [theirs, mine]) expect((await broker.api.connection(name)).status).toBe("pending");
  });

  it("wants to lead people elsewhere: every redirect goes to the provider or to a page here", async () => {
    const { url } = await invite();
    const evil = encodeURIComponent(foreign.origin);
    const { pathname } = new URL(url);
    const wrong = [
      `${pathname}?return_to=${evil}`,
      `/connected/?return_to=${evil}`,
      `/connected//${foreign.origin}`,
      `/connected/${evil}`,
      "/connected/..%2f..%2fevil.example",
      `/callback/${provider.id}?return_to=${evil}&error=x&error_uri=${evil}`,
      `/callback/${evil}?error=access_denied`,
    ];
    for (const path of wrong) {
      const headers = { host: "evil.example", "x-forwarded-host": "evil.example" };
      const { location, text } = await send(path, headers);
      expect([path, location]).toEqual([path, undefined]);
      expect(text).not.toMatch(/href="[^"]*(evil\.example|127\.0\.0\.2)/);
    }
    const victim = await comeBack(url);
    const done = await victim.browser.open(`${victim.callback.href}&return_to=${evil}`);
    expect(done.html.match(/href="https?:[^"]*"/g)).toEqual([expect.stringContaining(`href="${app}/done?`)]);
  });

  it("keeps links that are used, expired, or of a disabled or deleted connection: told so, and nothing is stored", async () => {
    const [used, disabled, deleted] = [await invite(), await invite(), await invite()];
    const expired = await invite({ expires_in: 1 });
    const opened = await Promise.all([disabled, deleted].map(async ({ url }) => await open(url)));
    const owner = await comeBack(used.url);
    await owner.browser.open(owner.callback);
    await until("the link has run out", async () => (await open(expired.url)).status === 410);
    await broker.api.changeConnection(disabled.name, { disabled: true });
    await broker.api.api(`/connections/${deleted.name}`, { method: "DELETE" });
    const before = await rows();
    const statuses = [used, expired, disabled, deleted].map(async ({ url }) => (await open(url)).status);
    expect(await Promise.all(statuses)).toEqual([410, 410, 409, 404]);
    const posted = opened.map(async (page) => keep(await attacker.submit(page)).status);
    expect(await Promise.all(posted)).toEqual([409, 404]);
    expect(await rows()).toEqual(before);
    await readNeighbours(broker.api, neighbours);
  });

  it("guesses secrets, states and pages, and floods one state: none fits, one exchange, and nobody else waits", async () => {
    const { url } = await invite();
    const [id = ""] = new URL(url).pathname.split("/").at(-1)?.split("-") ?? [];
    const before = await rows();
    const guesses = Array.from({ length: 100 }, (_, index) => [
      [`/connect/${id}-${randomBytes(16).toString("hex")}`, 404],
      [`/callback/${provider.id}?code=c&state=${randomBytes(32).toString("base64url")}`, 400],
      [`/connected/${randomBytes(100 + index).toString("base64url")}`, 400],
    ]).flat() as [string, number][];
    const wanted = guesses.map(([, status]) => status);
    const found = await Promise.all(guesses.map(async ([path]) => (await send(path)).status));
    expect(found).toEqual(wanted);
    expect(await rows()).toEqual(before);
    const { browser, callback } = await comeBack(url);
    const sent = exchanges();
    const flood = Array.from({ length: 60 }, async (_, index) => {
      const replica = replicas[index % replicas.length]?.url;
      return await browser.open(new URL(`${callback.pathname}${callback.search}`, replica));
    });
    await readNeighbours(broker.api, neighbours);
    const pages = await Promise.all(flood);
    expect(new Set(pages.map(({ status, text }) => `${status} ${text.slice(0, 9)}`))).toEqual(
      new Set(["200 Connected"]),
    );
    expect(exchanges()).toBe(sent + 1);
  });

  it("has got no token, no secret, and nobody was asked elsewhere", async () => {
    expect(answers.length).toBeGreaterThan(100);
    expect(stolenFrom(provider, answers)).toEqual([]);
    expect([foreign.connections, foreign.requests]).toEqual([0, []]);
    expect(provider.ledger.reuses).toEqual([]);
    for (const { stdout, stderr } of replicas) {
      expect(stdout + stderr).not.toMatch(/unexpected error|a browser page failed/);
    }
    const received = answers.map(({ text }) => text).join();
    expect(received).not.toContain(broker.adminKey);
  });
});
