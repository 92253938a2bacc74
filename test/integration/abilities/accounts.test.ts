import { afterAll, beforeAll, expect, it } from "vitest";
import { patience } from "../../support/patience.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { returnOrigin, startAccountStage } from "./support/account-stage.ts";

type Stage = Awaited<ReturnType<typeof startAccountStage>>;
let stage: Stage["stage"];
let server: Stage["server"];
let connectAda: Stage["connectAda"];
let reconnectAsBob: Stage["reconnectAsBob"];
let types: Stage["types"];

const lookups = () => server.ledger.requestsTo("whoami").length;
const failedLookups = async (name: string) =>
  (await types(name)).filter((type) => type === "account_lookup_failed").length;

describeWithServices(["postgres", "redis"], "the account of a connection", () => {
  beforeAll(async () => {
    ({ stage, server, connectAda, reconnectAsBob, types } = await startAccountStage());
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it("the first connect names the account, in the view, in the events and where the API is", async () => {
    await connectAda("named");
    expect(await stage.api.connection("named")).toMatchObject({ account: "ada", account_label: "ada at work" });
    const found = (await stage.events("named")).find(({ type }) => type === "account_found");
    expect(found?.detail).toEqual({ account: "ada", label: "ada at work" });
    const { body } = await stage.api.token("named", { include: "request" });
    expect(body).toMatchObject({ request: { base_url: `${server.origin}/api/t-ada` } });
  });

  it("a reconnect with the same account replaces the grant at once", async () => {
    const before = await connectAda("same");
    const page = await stage.consent("same");
    expect(page.text).toContain("Connected");
    const after = await stage.token("same");
    expect(after.version).toBe(before.version + 2);
    expect(after.access_token).not.toBe(before.access_token);
    expect(await types("same")).not.toContain("other_account_held");
    expect(await stage.api.connection("same")).toMatchObject({ account: "ada", status: "connected" });
  });

  it("a reconnect with another account changes nothing before somebody says so: old token and old refresh token still work", async () => {
    const before = await connectAda("asked");
    const page = await reconnectAsBob("asked");
    expect([page.status, page.text]).toEqual([200, expect.stringContaining("That is another account")]);
    expect(page.forms[0]?.buttons.map(({ label }) => label)).toEqual([
      "Keep ada at work",
      "Use bob at work from now on",
    ]);
    const { access_token, version } = await stage.token("asked");
    expect([access_token, version]).toEqual([before.access_token, before.version]);
    await stage.api.refresh("asked");
    const refreshed = await stage.token("asked");
    expect([server.accountOf(refreshed.access_token), refreshed.version]).toEqual(["ada", before.version + 1]);
    const held = (await stage.events("asked")).find(({ type }) => type === "other_account_held");
    expect(held?.detail).toEqual({ account: "bob", label: "bob at work" });
    expect(server.ledger.reuses).toEqual([]);
  });

  it("only the browser that came back may answer, and only by the form it was shown", async () => {
    const before = await connectAda("guarded");
    const browser = new ScriptedBrowser();
    const page = await reconnectAsBob("guarded", browser);
    const stranger = new ScriptedBrowser();
    expect((await stranger.submit(page, { button: /^Use/ })).status).toBe(403);
    // Another person with a cookie of their own.
    await stranger.open((await stage.api.consentLink("guarded")).url);
    expect((await stranger.submit(page, { button: /^Use/ })).status).toBe(403);
    expect((await browser.submit(page, { button: /^Use/, fields: { csrf: "x".repeat(43) } })).status).toBe(403);
    // The same form at the page of another question of this browser's.
    await connectAda("guarded-too");
    const csrf = (await reconnectAsBob("guarded-too", browser)).forms[0]?.fields.get("csrf") ?? "";
    expect((await browser.submit(page, { button: /^Use/, fields: { csrf } })).status).toBe(403);
    expect((await stage.token("guarded")).access_token).toBe(before.access_token);
    expect((await browser.submit(page, { button: /^Use/ })).text).toContain("Connected");
  });

  it("the question is asked again at a reload; answered twice at once, both see the same, and a reload shows that", async () => {
    await connectAda("asked-twice");
    const browser = new ScriptedBrowser();
    const page = await reconnectAsBob("asked-twice", browser);
    expect((await browser.open(page.url)).forms).toHaveLength(1);
    const answers = await Promise.all([1, 2].map(() => browser.submit(page, { button: /^Keep/ })));
    expect(answers.map(({ text }) => text)).toEqual(Array(2).fill(expect.stringContaining("Nothing has changed")));
    expect((await browser.open(page.url)).text).toContain("Nothing has changed");
    expect((await browser.submit(page, { button: /^Use/ })).text).toContain("Nothing has changed");
    expect(server.accountOf((await stage.token("asked-twice")).access_token)).toBe("ada");
  });

  it("a newer question ends the one before it: its page is 410, and only the newer one can be answered", async () => {
    const before = await connectAda("overtaken");
    const browser = new ScriptedBrowser();
    const older = await reconnectAsBob("overtaken", browser);
    const newer = await reconnectAsBob("overtaken", browser);
    expect((await browser.open(older.url)).status).toBe(410);
    expect((await browser.submit(older, { button: /^Use/ })).status).toBe(410);
    expect((await stage.token("overtaken")).access_token).toBe(before.access_token);
    expect((await browser.submit(newer, { button: /^Keep/ })).text).toContain("Nothing has changed");
    expect((await browser.open(older.url)).status).toBe(410);
  });

  it("'use' serves the new account from then on, as version + 2", async () => {
    const before = await connectAda("used");
    const browser = new ScriptedBrowser();
    const page = await browser.submit(await reconnectAsBob("used", browser), { button: /^Use/ });
    expect([page.status, page.text]).toEqual([200, expect.stringContaining("Connected")]);
    expect(page.text).toContain("The account bob at work at");
    const after = await stage.token("used", { include: "request" });
    expect([server.accountOf(after.access_token), after.version]).toEqual(["bob", before.version + 2]);
    expect(after).toMatchObject({ request: { base_url: `${server.origin}/api/t-bob` } });
    expect(await stage.api.connection("used")).toMatchObject({ account: "bob", account_label: "bob at work" });
    await stage.api.refresh("used");
    expect(server.accountOf((await stage.token("used")).access_token)).toBe("bob");
  });

  it.each([
    ["use", "connected"],
    ["keep", "kept"],
  ])("after '%s' the person is led back to where the link came from, with status %s", async (word, status) => {
    const name = `back-${status}`;
    await connectAda(name);
    const browser = new ScriptedBrowser();
    const asked = await reconnectAsBob(name, browser, { return_to: `${returnOrigin}/done?tab=2` });
    expect(asked.html).not.toContain(returnOrigin);
    const { html } = await browser.submit(asked, { button: new RegExp(`^${word}`, "i") });
    expect(html).toContain(`href="${returnOrigin}/done?tab=2&amp;connection=${name}&amp;status=${status}"`);
  });

  it("by the API a code of another account is a 409 account_changed, and POST /account says which it is to be", async () => {
    const before = await connectAda("coded");
    const decide = async (accept: boolean) =>
      await stage.api.api("/connections/coded/account", { method: "POST", body: { accept } });
    expect((await decide(true)).status).toBe(404);

    const hand = async () => {
      server.account = "bob";
      const body = { code: server.copiedCode() };
      const reply = await stage.api.api("/connections/coded/code", { method: "POST", body });
      server.account = "ada";
      return reply;
    };
    const held = await hand();
    expect([held.status, held.body["code"]]).toEqual([409, "account_changed"]);
    expect(held.body["detail"]).toMatch(/bob at work.*ada.*\/connections\/coded\/account/);
    expect((await stage.token("coded")).version).toBe(before.version);
    expect((await decide(false)).status).toBe(200);
    expect((await decide(true)).status).toBe(404);
    expect((await stage.token("coded")).version).toBe(before.version);

    expect((await hand()).status).toBe(409);
    const accepted = await decide(true);
    expect([accepted.status, accepted.body["account"]]).toEqual([200, "bob"]);
    const after = await stage.token("coded");
    expect([server.accountOf(after.access_token), after.version]).toEqual(["bob", before.version + 2]);
    expect((await decide(true)).status).toBe(404);
  });

  it("a lookup that fails at the first connect costs nothing, and is tried again after the next refresh", async () => {
    server.failNext({ endpoint: "whoami", status: 500, body: {} });
    await connectAda("late");
    expect(await stage.api.connection("late")).toMatchObject({ status: "connected", account: null });
    expect(await types("late")).toContain("account_lookup_failed");
    await stage.api.refresh("late");
    await expect.poll(() => stage.api.connection("late"), patience).toMatchObject({ account: "ada" });
  });

  it("a lookup that goes on failing is not repeated with every renewal; a new consent asks at once", async () => {
    const before = lookups();
    for (let count = 0; count < 3; count++) server.failNext({ endpoint: "whoami", status: 500, body: {} });
    await connectAda("mute");
    await stage.api.refresh("mute");
    await expect.poll(() => failedLookups("mute"), patience).toBe(2);
    for (let count = 0; count < 4; count++) await stage.api.refresh("mute");
    await stage.consent("mute");
    await expect.poll(() => failedLookups("mute"), patience).toBe(3);
    expect(lookups() - before).toBe(3);
    await stage.api.refresh("mute");
    await expect.poll(() => stage.api.connection("mute"), patience).toMatchObject({ account: "ada" });
  });

  it("where an account has one set, connecting it again warns and names the connection that was hit", async () => {
    await connectAda("set-one", "able-one");
    await connectAda("set-two", "able-one");
    const dropped = (await stage.events("set-two")).find(({ type }) => type === "other_sets_dropped");
    expect(dropped?.detail).toEqual({ connections: ["set-one"], kept: 1 });
    const hit = async (name: string) => (await stage.events(name)).filter(({ type }) => type === "set_dropped");
    expect(await types("set-one")).not.toContain("other_sets_dropped");
    expect((await hit("set-one")).map(({ detail }) => detail)).toEqual([{ kept: 1 }]);
    expect(await hit("set-two")).toEqual([]);
    await stage.consent("set-one");
    const again = (await stage.events("set-one")).find(({ type }) => type === "other_sets_dropped");
    expect(again?.detail).toEqual({ connections: ["set-two"], kept: 1 });
  });
});
