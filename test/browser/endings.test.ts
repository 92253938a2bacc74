import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Principal } from "../../src/callers/principal.ts";
import { describeWithBrowser, newProfile, screenshot } from "../support/browser.ts";
import { setConsentStage, type ConsentStage } from "../support/consent-stage.ts";
import { proveByHand } from "../support/prove-by-hand.ts";
import { freePort } from "../support/free-port.ts";
import { folderOf } from "../unit/providers/definitions.ts";

let stage: ConsentStage;
let publicUrl: string;
let elsewhere: string;
/** A provider that posts its answer, at another site. */
const poster = createServer((request, response) => {
  const { searchParams } = new URL(request.url ?? "", elsewhere);
  const fields = Object.entries({ code: "posted-code", state: searchParams.get("state") ?? "" });
  const inputs = fields.map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`).join("");
  response.setHeader("content-type", "text/html");
  response.end(`<form method="post" action="${publicUrl}/callback/posted">${inputs}<button>Agree</button></form>`);
});

/** An app that completes consents: what came to it, and from where it says that it came. */
const arrivals: { path: string; referrer: string | undefined }[] = [];
const app = createServer((request, response) => {
  arrivals.push({ path: request.url ?? "", referrer: request.headers.referer });
  response.setHeader("content-type", "text/html");
  response.end("<!doctype html><title>Accounts</title><h1>Accounts</h1>");
});
let appOrigin: string;

beforeAll(async () => {
  const port = await freePort();
  publicUrl = `http://localhost:${port}`;
  // The same server under another name: another site to the browser, as a provider is.
  elsewhere = `http://127.0.0.1:${port}`;
  poster.listen(0, "127.0.0.1");
  await once(poster, "listening");
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  appOrigin = `http://127.0.0.1:${(app.address() as AddressInfo).port}`;
  const { port: posterPort } = poster.address() as AddressInfo;
  const authorize = `http://127.0.0.1:${posterPort}/authorize`;
  const extraFolder = folderOf({
    "posted.yaml": `id: posted\nname: Posting Bakery\nauthorization: { url: "${authorize}", response_mode: form_post }\ntoken: { url: https://login.example/token }\n`,
  });
  stage = await setConsentStage({
    publicUrl,
    authorizeOrigin: elsewhere,
    extraFolder,
    returnOrigins: [appOrigin],
    organisation: { name: "Bakery Group", contact: "help@bakery.example" },
  });
  await stage.app.listen({ host: "127.0.0.1", port });
});
beforeEach(() => Object.assign(stage.behaviour, { exchange: null, passedMs: 0, device: null }));
afterAll(async () => {
  await stage.close();
  for (const server of [poster, app]) {
    server.closeAllConnections();
    server.close();
  }
});

const purpose = "Orders of the web shop, <b>every</b> night";

async function makeLink(given: { provider?: string; account?: string; grant?: string; disabled?: boolean } = {}) {
  const connection = await stage.connect(given);
  const { connectionId, connectionName } = connection;
  const link = await stage.createLink({ connectionId, purpose });
  return { ...link, connectionId, connectionName, connection };
}

/** A link that the app completes. */
async function makeAppLink(given: { provider?: string } = {}) {
  const { connectionId, connectionName } = await stage.connect(given);
  const forApp = { completion: "app", endUser: "42", returnTo: `${appOrigin}/connected?from=settings` } as const;
  return { ...(await stage.createLink({ connectionId, purpose, ...forApp })), connectionId, connectionName };
}

/** From the link to the page that the broker shows after the provider's. */
async function walk(page: Page, link: string, button = "Authorize"): Promise<void> {
  await page.goto(link);
  await page.getByRole("button", { name: "Continue to" }).click();
  await page.getByRole("button", { name: button }).click();
  await page.waitForURL(`${publicUrl}/connected/**`);
}

/** The caller that makes the links of this stage. */
const appKey: Principal = {
  callerId: "tests",
  actor: { kind: "key", id: "tests", name: null },
  abilities: ["connections"],
  connections: ["*"],
  labels: {},
  expiresAt: null,
};

const heading = async (page: Page) => await page.locator("h1").textContent();
const text = async (page: Page) => (await page.locator("main").innerText()).replaceAll(/\s+/g, " ");

/**
 * What a page needs for people who do not see it: its language, one heading that is its title, names for everything that can be pressed or
 * filled in.
 */
async function expectAccessible(page: Page): Promise<void> {
  const found = await page.evaluate(`({
    lang: document.documentElement.lang,
    headings: document.querySelectorAll("h1").length,
    titled: document.title === document.querySelector("h1").textContent.replace(/\\s+/g, " ").trim(),
    nameless: [...document.querySelectorAll("a, button, input:not([type=hidden])")]
      .filter((one) => !(one.textContent.trim() || one.labels?.length)).map((one) => one.outerHTML),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  })`);
  expect(found).toEqual({ lang: "en", headings: 1, titled: true, nameless: [], wide: false });
}

const device = {
  userCode: "WDJB-MJHT",
  verificationUri: "https://login.example/device",
  verificationUriComplete: null,
  intervalSeconds: 5,
};

/** Every page that a person can end on, and what it must say. */
const endings: Record<string, (page: Page) => Promise<string[]>> = {
  async asked(page) {
    const { url, connectionName } = await makeLink();
    await page.goto(url);
    return [`Connect ${connectionName} at Sandbox?`, "Bakery Group asks for access", purpose, "help@bakery.example"];
  },
  async "asked for an app"(page) {
    const { url, connectionName } = await makeAppLink();
    await page.goto(url);
    const then = `You then come back to ${new URL(appOrigin).host}.`;
    return [`Connect ${connectionName} at Sandbox?`, "Bakery Group asks for access", purpose, then];
  },
  async "an attempt that was stopped"(page) {
    const { url, connectionName } = await makeAppLink();
    await page.goto(url);
    await page.getByRole("button", { name: "Continue to" }).click();
    const state = new URL(page.url()).searchParams.get("state");
    await fetch(`${publicUrl}/callback/sandbox?code=c&state=${state}`, { redirect: "manual" });
    await page.goto(`${publicUrl}/callback/sandbox?code=c&state=${state}`);
    return ["This attempt has been stopped", connectionName, "start again", "help@bakery.example"];
  },
  async "asked for a copied code"(page) {
    const { connectionId } = await stage.connect({ provider: "apicbase" });
    const link = await stage.createLink({ connectionId, purpose, manual: true });
    await page.goto(link.url);
    return ["Bakery Group asks for access", purpose, "Paste it soon"];
  },
  async "a user code"(page) {
    const { url, id } = await makeLink({ grant: "device_code" });
    stage.behaviour.device = { ...device, linkId: id, expiresAt: new Date(Date.now() + 600_000) };
    await page.goto(url);
    return ["WDJB-MJHT", "Bakery Group asks for access", purpose, "help@bakery.example"];
  },
  async connected(page) {
    const { url, connectionId, connection } = await makeLink();
    stage.contexts.set(connectionId, { ...connection, account: "ada@bakery.example" });
    await walk(page, url);
    return ["Connected", "The account ada@bakery.example at Sandbox is connected now"];
  },
  async denied(page) {
    const { url } = await makeLink();
    await walk(page, url, "Deny");
    return ["Not connected", "help@bakery.example"];
  },
  async "another account"(page) {
    const { url, connectionId } = await makeLink({ account: "ada@bakery.example" });
    const held = { attemptId: randomUUID(), account: "42", label: "bob@bakery.example" };
    stage.behaviour.held.set(held.attemptId, { ...held, connectionId, accepted: false });
    stage.behaviour.exchange = async () => ({ connectionName: "", held, endsSoon: false });
    await walk(page, url);
    return ["That is another account", "Keep ada@bakery.example", "Use bob@bakery.example from now on"];
  },
  async "connected for a while"(page) {
    const { url, connectionName } = await makeLink();
    stage.behaviour.exchange = async () => ({ connectionName, held: null, endsSoon: true });
    await walk(page, url);
    return ["Connected, but not for long", "must be connected again", "with a new link", "help@bakery.example"];
  },
  async "an answered question"(page) {
    const { url } = await makeLink({ account: "ada@bakery.example" });
    const held = { attemptId: randomUUID(), account: "42", label: null };
    stage.behaviour.exchange = async () => ({ connectionName: "", held, endsSoon: false });
    await walk(page, url);
    return ["That question is closed"];
  },
  async "a refusal"(page) {
    const { url, connectionName } = await makeLink();
    stage.behaviour.exchange = () => Promise.reject(new Error("never seen"));
    await page.goto(url);
    await page.getByRole("button").click();
    const state = new URL(page.url()).searchParams.get("state") ?? "";
    await page.goto(`${publicUrl}/callback/sandbox?error=server_error&error_description=try+later&state=${state}`);
    return ["The provider did not give access", connectionName, "server_error: try later", "help@bakery.example"];
  },
  async "a page that is over"(page) {
    const { url, connectionName } = await makeLink();
    await walk(page, url);
    stage.behaviour.passedMs = 600_001;
    await page.reload();
    return ["This page is no longer shown", connectionName];
  },
  async "a used link"(page) {
    const { url, connectionName } = await makeLink();
    await walk(page, url);
    await page.goto(url);
    return ["This link has been used", connectionName, "help@bakery.example"];
  },
  async "an expired link"(page) {
    const { url, id, connectionName } = await makeLink();
    await stage.database.prisma.$executeRaw`UPDATE consent_links SET expires_at = clock_timestamp() WHERE id = ${id}`;
    await proveByHand((sql, values) => stage.database.prisma.$queryRawUnsafe(sql, ...values), stage.vault);
    await page.goto(url);
    return ["This link has expired", connectionName, "help@bakery.example"];
  },
  async "a disabled connection"(page) {
    const { url, connectionId, connectionName, connection } = await makeLink();
    stage.contexts.set(connectionId, { ...connection, disabled: true });
    await page.goto(url);
    return ["This connection is switched off", connectionName];
  },
  async "an unknown link"(page) {
    await page.goto(`${publicUrl}/connect/${"0".repeat(16)}-${"0".repeat(32)}`);
    return ["This link is not known here", "help@bakery.example"];
  },
  async "too many requests"(page) {
    const { url } = await makeLink();
    for (let open = 0; open <= 5; open++) {
      await page.goto(url);
      await page.getByRole("button", { name: "Continue to" }).click();
    }
    return ["Too many requests", "wait ten minutes", "help@bakery.example"];
  },
  async "another browser"(page) {
    const { url } = await makeLink();
    await page.goto(url);
    await page.getByRole("button", { name: "Continue to" }).click();
    const callback = `${publicUrl}/callback/sandbox?code=c&state=${new URL(page.url()).searchParams.get("state")}`;
    await page.context().clearCookies();
    await page.goto(callback);
    return ["This belongs to another browser", "ask for a new link", "help@bakery.example"];
  },
  async "a form without its cookie"(page) {
    const { url } = await makeLink();
    await page.goto(url);
    await page.context().clearCookies();
    await page.getByRole("button", { name: "Continue to" }).click();
    return ["This page is out of date", "Allow cookies", "help@bakery.example"];
  },
  async "an unknown state"(page) {
    await page.goto(`${publicUrl}/callback/sandbox?code=c&state=${"A".repeat(43)}`);
    return ["This attempt is no longer valid", "start again", "help@bakery.example"];
  },
  async "a no without a state"(page) {
    await page.goto(`${publicUrl}/callback/sandbox?error=access_denied`);
    return ["Not connected", "access_denied"];
  },
  async "an error without a state"(page) {
    await page.goto(`${publicUrl}/callback/sandbox?error=server_error&error_description=try+later`);
    return ["You came back with an error", "server_error: try later"];
  },
};

describeWithBrowser("the pages on which a consent ends", (openPage) => {
  test.each(Object.keys(endings))(
    "%s: says who asks and what to do, and fits wide and narrow screens",
    async (name) => {
      const page = await openPage();
      const complaints: string[] = [];
      page.on("console", (message) => complaints.push(message.text()));
      const words = (await endings[name]?.(page)) ?? [];
      for (const word of words) expect(await text(page)).toContain(word);
      for (const [size, width] of Object.entries({ wide: 1200, narrow: 320 })) {
        await page.setViewportSize({ width, height: 800 });
        await expectAccessible(page);
        await screenshot(page, `${name.replaceAll(" ", "-")}-${size}`);
      }
      // The console names a status that is no 2xx, and nothing else.
      expect(complaints.filter((line) => !line.includes("the server responded with a status of"))).toEqual([]);
    },
  );

  test("Connected survives reload, back and forward, and the callback's address is not in the history", async () => {
    const page = await openPage();
    const { url } = await makeLink();
    await walk(page, url);
    await page.reload();
    await page.goBack();
    await page.goForward();
    await page.reload();
    expect(await heading(page)).toBe("Connected");
    expect(page.url()).not.toMatch(/code=|state=/);
    expect(await page.evaluate("document.referrer")).not.toMatch(/code=|state=/);
  });

  test.each(["sandbox", "posted"])(
    "the consent of an app ends at the app, which gets the ticket and nothing of the addresses here (%s)",
    async (provider) => {
      const page = await openPage();
      const complaints: string[] = [];
      page.on("console", (message) => complaints.push(message.text()));
      const { url, connectionName } = await makeAppLink({ provider });
      stage.behaviour.exchange = async () => ({ connectionName, held: null, endsSoon: false });
      arrivals.length = 0;
      await page.goto(url);
      await page.getByRole("button", { name: "Continue to" }).click();
      await page.getByRole("button", { name: provider === "posted" ? "Agree" : "Authorize" }).click();
      await page.waitForURL(`${appOrigin}/connected**`);
      expect(await heading(page)).toBe("Accounts");
      const [arrival] = arrivals;
      const [, ticket = ""] = /^\/connected\?from=settings&ticket=([\w-]{43})$/.exec(arrival?.path ?? "") ?? [];
      expect(arrival?.referrer).toBeUndefined();
      const { completion } = stage.consent;
      const record = await completion.complete(appKey, await completion.find(appKey, ticket), "42");
      expect(record.name).toBe(connectionName);
      expect(complaints.filter((line) => !line.includes("the server responded with a status of"))).toEqual([]);
    },
  );

  test.each([true, false])(
    "a posted answer arrives with its browser's cookie (scripts: %s)",
    async (javaScriptEnabled) => {
      const browser = (await openPage()).context().browser();
      if (!browser) throw new Error("the page has no browser");
      const context = await newProfile(browser, { javaScriptEnabled });
      const page = await context.newPage();
      const complaints: string[] = [];
      page.on("console", (message) => complaints.push(message.text()));
      const sent: [string, boolean][] = [];
      page.on("request", (request) => {
        const { pathname } = new URL(request.url());
        if (request.method() !== "POST" || !pathname.startsWith("/callback/")) return;
        sent.push([pathname, Object.hasOwn(request.headers(), "cookie")]);
      });
      const { url, connectionName } = await makeLink({ provider: "posted" });
      const exchanges: string[] = [];
      stage.behaviour.exchange = async ({ code }) => {
        exchanges.push(code);
        return { connectionName, held: null, endsSoon: false };
      };
      await page.goto(url);
      await page.getByRole("button", { name: "Continue to" }).click();
      await page.getByRole("button", { name: "Agree" }).click();
      if (!javaScriptEnabled) {
        await screenshot(page, "posted");
        await page.getByRole("button", { name: "Continue" }).click();
      }
      await page.waitForURL(`${publicUrl}/connected/**`);
      expect(await heading(page)).toBe("Connected");
      expect(exchanges).toEqual(["posted-code"]);
      expect(sent.map(([path]) => path)).toEqual(["/callback/posted", "/callback/posted/continue"]);
      expect(complaints.filter((line) => !line.includes("favicon"))).toEqual([]);
      await context.close();
    },
  );
});
