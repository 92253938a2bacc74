import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, it } from "vitest";
import { hangMs } from "../../support/patience.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";
import { query } from "../../support/query.ts";

/** As the server's answers say; slow_down adds five seconds (RFC 8628, section 3.5). */
const intervalMs = 1000;
const slowDownMs = 5000;
/** Several people wait at the same time, each for seconds. */
const patience = { timeout: hangMs, interval: 200 };

type DeviceBody = { user_code: string; verification_uri: string; expires_at: string; interval: number };

function define(server: AbleProvider) {
  const device = { url: `${server.origin}/device` };
  const grants = ["device_code"];
  return [
    server.definition("able", { grants, device }),
    server.definition("able-named", { grants, device, after_connect: [server.lookup()] }),
    server.definition("able-code", {}),
  ];
}

let stage: AbilityStage<AbleProvider>;
let server: AbleProvider;

async function begin(name: string, broker = stage.first): Promise<DeviceBody> {
  const { status, body } = await broker.api.api<DeviceBody>(`/connections/${name}/device`, { method: "POST" });
  if (status === 200) return body;
  throw new Error(`${status}: ${JSON.stringify(body)}`);
}

const codeOf = (userCode: string) => server.devices.codeOf(userCode);
const polls = (userCode: string) =>
  server.ledger.requestsTo("token").filter(({ fields }) => fields["device_code"] === codeOf(userCode));
/** Milliseconds between each answer and the next question. */
const pauses = (userCode: string) => {
  const all = polls(userCode);
  return all.slice(1).map(({ inAt }, index) => inAt - (all[index]?.outAt ?? inAt));
};
const status = async (name: string) => (await stage.api.connection(name)).status;
/** What the audit says of codes that have come to their end: who, and with which result, newest first. */
const audited = async (name: string) => {
  type Entry = { actor: { kind: string; id: string | null; name: string | null }; result: string };
  const path = `/audit?connection=${name}&type=consents.complete`;
  const { items } = (await stage.api.api<{ items: Entry[] }>(path)).body;
  return items.map(({ actor: { kind, id, name: by }, result }) => [kind, id, by, result]);
};
const types = async (name: string) => (await stage.events(name)).map(({ type }) => type);

/** A person's browser at a link, past "Continue": the link, and the page that shows the code. */
async function showCode(name: string) {
  const { url } = await stage.api.consentLink(name);
  const browser = new ScriptedBrowser();
  const page = await browser.submit(await browser.open(url));
  const userCode = /<p class="user-code"><code>([^<]+)</.exec(page.html)?.[1] ?? "";
  return { url, browser, page, userCode };
}

describeWithServices(["postgres", "redis"], "user codes", () => {
  beforeAll(async () => {
    server = new AbleProvider();
    stage = await AbilityStage.start(server, define, { replicas: 2 });
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it.concurrent("by the API: the code is shown, the provider is asked no faster than it says, and the token comes with the confirmation", async ({
    expect,
  }) => {
    await stage.create("api", "able");
    const device = await begin("api");
    expect(device).toMatchObject({ verification_uri: `${server.origin}/activate`, interval: 1 });
    expect(Date.parse(device.expires_at) - Date.now()).toBeGreaterThan(300_000);
    await expect.poll(() => polls(device.user_code).length, patience).toBeGreaterThanOrEqual(2);
    const pending = await stage.api.token("api");
    expect([pending.status, pending.body.code]).toEqual([409, "authorization_pending"]);
    server.devices.answer(device.user_code, "approved");
    await expect.poll(() => status("api"), patience).toBe("connected");
    // A replica that has just seen that it waits trusts this for some seconds.
    await expect.poll(async () => (await stage.api.token("api")).status, patience).toBe(200);
    const token = await stage.token("api");
    expect([server.accountOf(token.access_token), token.version]).toEqual(["ada", 1]);
    await stage.api.refresh("api");

    const count = polls(device.user_code).length;
    expect(Math.min(...pauses(device.user_code))).toBeGreaterThanOrEqual(intervalMs);
    await sleep(3 * intervalMs);
    expect(polls(device.user_code)).toHaveLength(count);
  });

  it.concurrent("slow_down adds five seconds to the interval, for good", async ({ expect }) => {
    await stage.create("slow", "able");
    const { user_code } = await begin("slow");
    server.devices.answer(user_code, "slow_down");
    await expect.poll(() => polls(user_code).length, patience).toBeGreaterThanOrEqual(2);
    server.devices.answer(user_code, "approved");
    await expect.poll(() => status("slow"), patience).toBe("connected");
    expect(Math.min(...pauses(user_code))).toBeGreaterThanOrEqual(intervalMs + slowDownMs);
  });

  it.concurrent("a person's no ends the polling and is in the history, and a new code may be asked for", async ({
    expect,
  }) => {
    await stage.create("denied", "able");
    const first = await begin("denied");
    server.devices.answer(first.user_code, "denied");
    await expect.poll(() => types("denied"), patience).toContain("consent_denied");
    const count = polls(first.user_code).length;
    expect(await status("denied")).toBe("pending");
    const second = await begin("denied");
    server.devices.answer(second.user_code, "approved");
    await expect.poll(() => status("denied"), patience).toBe("connected");
    expect(polls(first.user_code)).toHaveLength(count);
    // A key asked for the codes, and nobody knows who typed them in.
    await expect
      .poll(() => audited("denied"), patience)
      .toEqual([
        ["person", null, null, "ok"],
        ["person", null, null, "denied"],
      ]);
  });

  it.concurrent("a code that runs out ends the polling and is in the history", async ({ expect }) => {
    await stage.create("expired", "able");
    const { user_code } = await begin("expired");
    server.devices.expire(user_code);
    await expect.poll(() => types("expired"), patience).toContain("consent_failed");
    const failed = (await stage.events("expired")).find(({ type }) => type === "consent_failed");
    expect(failed?.detail).toEqual({ error: "expired_token" });
    const count = polls(user_code).length;
    await sleep(3 * intervalMs);
    expect(polls(user_code)).toHaveLength(count);
  });

  it.concurrent("by the page: it shows the code, then says by itself that the account is connected, and the link is used up", async ({
    expect,
  }) => {
    await stage.create("page", "able");
    const { url, browser, page, userCode } = await showCode("page");
    expect(server.devices.userCodes()).toContain(userCode);
    expect(page.html).toContain(`href="${server.origin}/activate"`);
    expect(page.html).toMatch(/<meta http-equiv="refresh" content="\d+"/);
    expect((await browser.open(url)).text).toContain(userCode);
    const stranger = await new ScriptedBrowser().open(url);
    expect([stranger.status, stranger.text]).toEqual([403, expect.not.stringContaining(userCode)]);

    server.devices.answer(userCode, "approved");
    await expect.poll(async () => (await browser.open(url)).text, patience).toMatch(/^Connected/);
    expect(await status("page")).toBe("connected");
    expect((await new ScriptedBrowser().open(url)).status).toBe(410);
    const link = new URL(url).pathname.split("/").at(-1)?.split("-", 1)[0];
    await expect.poll(() => audited("page"), patience).toEqual([["link", link, "admin", "ok"]]);
  });

  it.concurrent("by the page, after a no: the link may be used again", async ({ expect }) => {
    await stage.create("again", "able");
    const { url, browser, userCode } = await showCode("again");
    server.devices.answer(userCode, "denied");
    await expect.poll(() => types("again"), patience).toContain("consent_denied");
    const page = await browser.open(url);
    expect([page.status, page.text.includes(userCode)]).toEqual([200, false]);
    const next = await browser.submit(page);
    expect(server.devices.userCodes().some((code) => next.text.includes(code) && code !== userCode)).toBe(true);
  });

  it.concurrent("a reconnect with another account asks on the page of its own link, and changes nothing before the answer", async ({
    expect,
  }) => {
    await stage.create("named", "able-named");
    const first = await begin("named");
    server.devices.answer(first.user_code, "approved");
    await expect.poll(async () => (await stage.api.connection("named"))["account"], patience).toBe("ada");
    const { version } = await stage.token("named");

    const { url, browser, userCode } = await showCode("named");
    server.devices.answer(userCode, "approved", "bob");
    await expect.poll(async () => (await browser.open(url)).text, patience).toContain("That is another account");
    expect((await stage.token("named")).version).toBe(version);
    const third = await showCode("named");
    const shown = await third.browser.open(third.url);
    expect(shown.text).toContain(third.userCode);
    expect([shown.text.includes("bob"), shown.text.includes("another account")]).toEqual([false, false]);
    const kept = await browser.submit(await browser.open(url), { button: /^Keep/ });
    expect(kept.text).toContain("Nothing has changed");
    expect((await browser.open(url)).text).not.toContain("Connected");

    const start = await browser.open(url);
    const next = await browser.submit(start);
    const nextCode = /<p class="user-code"><code>([^<]+)</.exec(next.html)?.[1] ?? "";
    server.devices.answer(nextCode, "approved", "bob");
    await expect.poll(async () => (await browser.open(url)).text, patience).toContain("That is another account");
    const used = await browser.submit(await browser.open(url), { button: /^Use bob at work/ });
    expect(used.text).toContain("Connected");
    expect(server.accountOf((await stage.token("named")).access_token)).toBe("bob");
    expect((await browser.open(url)).text).toMatch(/^Connected/);
  });

  it.concurrent("scopes that are changed after the code was shown end it, unasked, and the page asks anew", async ({
    expect,
  }) => {
    await stage.create("rescoped", "able", { scopes: ["read"] });
    const { url, browser, userCode } = await showCode("rescoped");
    const { status: changed } = await stage.api.api("/connections/rescoped", {
      method: "PATCH",
      body: { scopes: ["read", "write"] },
    });
    expect(changed).toBe(200);
    const page = await browser.open(url);
    expect([page.text.includes(userCode), page.text.includes("write")]).toEqual([false, true]);
    server.devices.answer(userCode, "approved");
    await expect.poll(() => types("rescoped"), patience).toContain("consent_failed");
    const failed = (await stage.events("rescoped")).find(({ type }) => type === "consent_failed");
    expect([failed?.detail, await status("rescoped")]).toEqual([{ error: "changed_meanwhile" }, "pending"]);
  });

  it.concurrent("the device code is stored sealed, and shown nowhere", async ({ expect }) => {
    await stage.create("sealed", "able");
    const { user_code } = await begin("sealed");
    const code = codeOf(user_code);
    const rows = await query(stage.databaseUrl, "SELECT d::text AS row FROM device_authorizations d");
    expect(rows.length).toBeGreaterThan(0);
    expect(JSON.stringify(rows)).not.toContain(code);
    expect(JSON.stringify(rows)).not.toContain(Buffer.from(code).toString("hex"));
    expect(stage.brokers.map(({ stdout, stderr }) => stdout + stderr).join("")).not.toContain(code);
    expect(JSON.stringify(await stage.events("sealed"))).not.toContain(code);
  });

  it("a broker that is killed while it polls is followed by another replica", async ({ expect }) => {
    const second = stage.brokers[1];
    if (second === undefined) throw new Error("this stage has two replicas");
    await stage.create("orphan", "able");
    const { user_code } = await begin("orphan", second);
    await expect.poll(() => polls(user_code).length, patience).toBeGreaterThan(0);
    // The replica is killed between two polls: others leave it a poll that it has begun for a minute.
    const waits = `SELECT 1 FROM device_authorizations d JOIN connections c ON c.id = d.connection_id
      WHERE c.name = 'orphan' AND d.next_poll_at < clock_timestamp() + interval '2 seconds'`;
    await expect.poll(() => query(stage.databaseUrl, waits), patience).toHaveLength(1);
    await second.kill();
    const before = polls(user_code).length;
    server.devices.answer(user_code, "approved");
    await expect.poll(() => status("orphan"), patience).toBe("connected");
    expect(polls(user_code).length).toBeGreaterThan(before);
  });

  it("what cannot be connected by a user code is refused, and a provider that gives none is told apart from one that is away", async ({
    expect,
  }) => {
    await stage.create("code", "able-code");
    const refused = await stage.api.api("/connections/code/device", { method: "POST" });
    expect([refused.status, refused.body["code"]]).toEqual([409, "grant_not_applicable"]);
    await stage.create("off", "able");
    await stage.api.changeConnection("off", { disabled: true });
    const disabled = await stage.api.api("/connections/off/device", { method: "POST" });
    expect(disabled.body["code"]).toBe("connection_disabled");
    await stage.create("unlucky", "able");
    server.failNext({ endpoint: "device", status: 400, body: { error: "invalid_scope" } });
    const rejected = await stage.api.api("/connections/unlucky/device", { method: "POST" });
    expect([rejected.status, rejected.body["code"]]).toEqual([422, "provider_rejected"]);
    server.failNext({ endpoint: "device", status: 503, body: {} });
    const away = await stage.api.api("/connections/unlucky/device", { method: "POST" });
    expect([away.status, away.body["code"]]).toEqual([503, "provider_unavailable"]);
  });
});
