import { createHash } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BrokerError, EgressRefusalError, ProviderBusyError } from "../../../src/errors.ts";
import { defaultTimeouts } from "../../../src/providers/oauth/oauth-client.ts";
import { consentTimes } from "../../../src/time.ts";
import { type ConsentStage, setConsentStage } from "../../support/consent-stage.ts";
import { folderOf } from "../providers/definitions.ts";
import { createTestBrowser, csrfOf, type TestBrowser } from "./browser-client.ts";

const publicUrl = "http://localhost:8080";
const shop = "https://shop.example";
const urls = "authorization: { url: https://login.example/authorize, ";
const tail = "}\ntoken: { url: https://login.example/token }\n";
const files = {
  "posted.yaml": `id: posted\nname: Posted\n${urls}response_mode: form_post, callback: { denied: [User_Cancelled] } ${tail}`,
};
let stage: ConsentStage;
const open = () => createTestBrowser(stage.app, publicUrl);

beforeAll(async () => {
  stage = await setConsentStage({ publicUrl, returnOrigins: [shop], extraFolder: folderOf(files) });
});
beforeEach(() => Object.assign(stage.behaviour, { exchange: null, passedMs: 0, hurries: false }));
afterAll(async () => await stage.close());

/** On the way back from the provider, in a browser of its own. */
async function comingBack(provider = "sandbox", returnTo?: string) {
  const { connectionId, connectionName } = await stage.connect({ provider });
  const given = returnTo === undefined ? {} : { returnTo };
  const { url } = await stage.createLink({ connectionId, ...given });
  const browser = open();
  const toProvider = new URL(String((await browser.press(url)).headers["location"]));
  const state = toProvider.searchParams.get("state") ?? "";
  const callback = `/callback/${provider}?code=code-of-${connectionName}&state=${state}`;
  return { browser, connectionId, connectionName, url, state, callback, toProvider };
}

/** An exchange that ends when the test says so, and how often it was begun. */
function holdExchange() {
  const { promise, resolve } = Promise.withResolvers<void>();
  const held = { begun: 0, finish: resolve };
  stage.behaviour.exchange = async ({ connection: { row } }) => {
    held.begun += 1;
    await promise;
    return { connectionName: stage.contexts.get(row.id)?.connectionName ?? "", held: null, endsSoon: false };
  };
  return held;
}

/** Does `work` while waits take no time. */
async function hurried<T>(work: Promise<T>): Promise<T> {
  stage.behaviour.hurries = true;
  try {
    return await work;
  } finally {
    stage.behaviour.hurries = false;
  }
}

const connected = [200, expect.stringContaining("<h1>Connected</h1>")];
const seen = ({ statusCode, body }: { statusCode: number; body: string }) => [statusCode, body];

/** The address that a callback leads to. */
async function ticketOf(browser: TestBrowser, callback: string): Promise<string> {
  const answer = await stage.app.inject({ url: callback, headers: { cookie: browser.cookie ?? "" } });
  expect(answer.statusCode).toBe(303);
  expect([answer.headers["cache-control"], answer.headers["referrer-policy"]]).toEqual(["no-store", "no-referrer"]);
  return String(answer.headers["location"]);
}

test("with a code that the provider's limits hold back shows when to come again, and the link stays usable", async () => {
  stage.behaviour.exchange = async () => {
    throw new ProviderBusyError("nothing was sent", { retryAfterSeconds: 590 });
  };
  const { browser, url, callback } = await comingBack();
  for (const time of ["first", "again"]) {
    const { statusCode, headers, body } = await browser.get(callback);
    expect([time, statusCode, body]).toEqual([time, 503, expect.stringContaining("takes no more requests right now")]);
    expect(body).toContain("open the link you were given again");
    const seconds = Number(headers["retry-after"]);
    expect([seconds > 300, seconds <= 590]).toEqual([true, true]);
  }
  holdExchange().finish();
  const next = new URL(String((await browser.press(url)).headers["location"]));
  const again = `/callback/sandbox?code=fresh&state=${next.searchParams.get("state")}`;
  expect(seen(await browser.get(again))).toEqual(connected);
});

describe("a callback that comes while the first is under way", () => {
  test("waits for it and sees the same, and nothing is sent twice", async () => {
    const held = holdExchange();
    const { browser, callback } = await comingBack();
    const first = browser.get(callback);
    while (held.begun === 0) await new Promise(setImmediate);
    const second = browser.get(callback);
    held.finish();
    expect([seen(await first), seen(await second)]).toEqual([connected, connected]);
    expect(held.begun).toBe(1);
  });

  test("is told after a while that it is still under way, on a page that looks again and then shows how it ended", async () => {
    const held = holdExchange();
    const { browser, callback } = await comingBack();
    const first = browser.get(callback);
    while (held.begun === 0) await new Promise(setImmediate);
    const second = await hurried(ticketOf(browser, callback));
    const working = await browser.get(second);
    expect(seen(working)).toEqual([202, expect.stringContaining("Still working on it")]);
    expect(working.body).toMatch(/<meta http-equiv="refresh" content="\d+"/);
    held.finish();
    expect(seen(await first)).toEqual(connected);
    expect(seen(await browser.get(second))).toEqual(connected);
    expect(held.begun).toBe(1);
  });
});

/** Makes an attempt begin so long ago. */
const age = async (seconds: number) =>
  await stage.database.prisma
    .$executeRaw`UPDATE consent_attempts SET expires_at = expires_at - make_interval(secs => ${seconds}::double precision)`;

/** Plays a broker that is killed in the middle of an exchange: it never notes how the exchange ended. */
function killExchange() {
  const { promise: never } = Promise.withResolvers<never>();
  const killed = { begun: 0 };
  stage.behaviour.exchange = async () => {
    killed.begun += 1;
    return await never;
  };
  return killed;
}

const interrupted = [500, expect.stringContaining("This attempt was interrupted")];

describe("an attempt whose broker was killed in the middle", () => {
  test("is told as interrupted once no exchange can take that long, also on a page that said it was under way", async () => {
    const killed = killExchange();
    const { browser, callback } = await comingBack();
    void browser.get(callback);
    while (killed.begun === 0) await new Promise(setImmediate);
    const page = await hurried(ticketOf(browser, callback));
    await age(consentTimes.longestAttemptSeconds - 60);
    expect((await browser.get(page)).statusCode).toBe(202);
    await age(60);
    expect(seen(await browser.get(page))).toEqual(interrupted);
    expect(seen(await browser.get(callback))).toEqual(interrupted);
    expect(killed.begun).toBe(1);
  });

  test("is told as interrupted at a copied code, too, and of a connection that is deleted meanwhile", async () => {
    const { connectionId } = await stage.connect({ provider: "apicbase" });
    const { url } = await stage.createLink({ connectionId, manual: true });
    const killed = killExchange();
    const browser = open();
    const csrf = csrfOf((await browser.get(url)).body);
    void browser.post(url, { csrf, code: "copied" });
    while (killed.begun === 0) await new Promise(setImmediate);
    const send = async () =>
      await stage.app.inject({
        method: "POST",
        url: new URL(url).pathname,
        headers: {
          "content-type": "application/x-www-form-urlencoded",
          origin: publicUrl,
          cookie: browser.cookie ?? "",
        },
        payload: new URLSearchParams({ csrf, code: "copied" }).toString(),
      });
    await age(consentTimes.longestAttemptSeconds);
    const page = String((await send()).headers["location"]);
    expect(seen(await browser.get(page))).toEqual(interrupted);
    await stage.database.prisma.$executeRaw`DELETE FROM connections WHERE id = ${connectionId}::uuid`;
    expect(seen(await browser.get(page))).toEqual(interrupted);
    expect(killed.begun).toBe(1);
  });

  test("that ends late after all is told as it ended", async () => {
    const held = holdExchange();
    const { browser, callback } = await comingBack();
    const first = browser.get(callback);
    while (held.begun === 0) await new Promise(setImmediate);
    await age(consentTimes.longestAttemptSeconds);
    const page = await ticketOf(browser, callback);
    expect(seen(await browser.get(page))).toEqual(interrupted);
    held.finish();
    await first;
    expect(seen(await browser.get(page))).toEqual(connected);
  });

  test("is given the time that the longest exchange takes", () => {
    const requests = 4; // metadata, the code with either secret, a revocation
    const { longestAttemptSeconds, slowStoreMs, lookupMs } = consentTimes;
    expect(longestAttemptSeconds * 1000).toBeGreaterThan(requests * defaultTimeouts.totalMs + slowStoreMs + lookupMs);
  });
});

const details = (connectionId: string) =>
  stage.events.filter((event) => event.connectionId === connectionId).map(({ type, detail }) => [type, detail]);

describe("a consent that ends badly stands in the history", () => {
  test("when the link was used meanwhile in another tab", async () => {
    const { browser, callback, connectionId, connectionName, url } = await comingBack();
    const other = new URL(String((await browser.press(url)).headers["location"])).searchParams.get("state") ?? "";
    stage.behaviour.exchange = async () => ({ connectionName, held: null, endsSoon: false });
    expect((await browser.get(callback)).statusCode).toBe(200);
    expect((await browser.get(`/callback/sandbox?code=c&state=${other}`)).statusCode).toBe(410);
    expect(details(connectionId).slice(1)).toEqual([["consent_failed", { error: "used_link" }]]);
  });

  test.each([
    ["connection_disabled", 409, { error: "connection_disabled" }],
    ["provider_rejected", 502, { error: "provider_refused" }],
    ["conflict", 400, { error: "changed_meanwhile" }],
    ["duplicate_grant", 409, { error: "duplicate_grant" }],
    ["an address that this broker refuses", 502, { error: "refused_here" }],
  ] as const)("when the exchange ends with %s, and once", async (code, status, detail) => {
    const { browser, callback, connectionId } = await comingBack();
    const refused = new EgressRefusalError("not so", { retryAfterSeconds: 1 });
    const isOurs = code === "an address that this broker refuses";
    stage.behaviour.exchange = () => Promise.reject(isOurs ? refused : new BrokerError(code, "not so"));
    for (let again = 0; again < 2; again++) expect((await browser.get(callback)).statusCode).toBe(status);
    expect(details(connectionId).slice(1)).toEqual([["consent_failed", detail]]);
  });
});

describe("the page of an ending", () => {
  test("has neither code nor state in its address, and its browser may reload it for ten minutes", async () => {
    const { browser, callback, state, connectionName } = await comingBack("sandbox", `${shop}/done`);
    stage.behaviour.exchange = async () => ({ connectionName, held: null, endsSoon: false });
    const page = await ticketOf(browser, callback);
    expect(page).toMatch(/^\/connected\/[\w-]+$/);
    for (const secret of [state, "code-of", connectionName, "shop.example"]) expect(page).not.toContain(secret);
    for (let reload = 0; reload < 2; reload++) expect(seen(await browser.get(page))).toEqual(connected);
    expect((await browser.get(page)).body).toContain(
      `href="${shop}/done?connection=${connectionName}&amp;status=connected"`,
    );
    stage.behaviour.passedMs = 600_001;
    const late = await browser.get(page);
    expect(seen(late)).toEqual([410, expect.stringContaining("This page is no longer shown")]);
    expect(late.body).toContain(connectionName);
  });

  test("tells another browser nothing, nor one without a cookie; an altered one opens for nobody", async () => {
    const { browser, callback, connectionName } = await comingBack();
    stage.behaviour.exchange = async () => ({ connectionName, held: null, endsSoon: false });
    const page = await ticketOf(browser, callback);
    const other = open();
    await other.get((await comingBack()).url);
    for (const stranger of [open(), other]) {
      const answer = await stranger.get(page);
      expect(answer.statusCode).toBe(403);
      expect(answer.body).not.toContain(connectionName);
    }
    const at = page.length - 20;
    const altered = `${page.slice(0, at)}${page[at] === "A" ? "B" : "A"}${page.slice(at + 1)}`;
    for (const wrong of [altered, page.slice(0, -1), `${page}${"A".repeat(4)}`, "/connected/", "/connected/x/y"]) {
      expect((await browser.get(wrong)).statusCode, wrong).toBe(400);
    }
  });

  test("is shown when the database is gone right after the exchange", async () => {
    const { browser, callback, connectionName } = await comingBack();
    const rename = async (from: string, to: string) =>
      await stage.database.prisma.$executeRawUnsafe(`ALTER TABLE ${from} RENAME TO ${to}`);
    stage.behaviour.exchange = async () => {
      await rename("consent_attempts", "attempts_gone");
      await rename("consent_links", "links_gone");
      return { connectionName, held: null, endsSoon: false };
    };
    const page = await browser.get(callback);
    await rename("attempts_gone", "consent_attempts");
    await rename("links_gone", "consent_links");
    expect(seen(page)).toEqual(connected);
  });

  test("of another attempt that stands in the table for this one is not shown", async () => {
    const held = holdExchange();
    const { browser, callback, state } = await comingBack();
    const first = browser.get(callback);
    while (held.begun === 0) await new Promise(setImmediate);
    const working = await hurried(ticketOf(browser, callback));
    held.finish();
    await first;
    const another = await comingBack();
    const foreign = (await ticketOf(another.browser, another.callback)).replace("/connected/", "");
    await stage.database.prisma.$executeRaw`UPDATE consent_attempts SET ticket = ${foreign}
      WHERE attempt_hash = sha256(${Buffer.from(state)})`;
    expect((await browser.get(working)).statusCode).toBe(403);
  });
});

describe("a copied code", () => {
  test("that is sent twice, at once and later, is exchanged once, and both see how it ended", async () => {
    const { connectionId } = await stage.connect({ provider: "apicbase" });
    const { url } = await stage.createLink({ connectionId, manual: true });
    const held = holdExchange();
    const browser = open();
    const csrf = csrfOf((await browser.get(url)).body);
    const send = async () => await browser.post(url, { csrf, code: "copied" });
    const both = [send(), send()];
    while (held.begun === 0) await new Promise(setImmediate);
    held.finish();
    expect((await Promise.all(both)).map(seen)).toEqual([connected, connected]);
    expect(seen(await send())).toEqual(connected);
    expect(held.begun).toBe(1);
    expect((await browser.post(url, { csrf, code: "another" })).statusCode).toBe(410);
  });
});

describe("an error that comes back", () => {
  test.each(["access_denied", "Access_Denied", "user_cancelled", "USER_CANCELLED"])(
    "as %s is a person's no where the definition says so",
    async (error) => {
      const { browser, state, connectionId } = await comingBack("posted");
      const page = await browser.get(`/callback/posted?error=${error}&state=${state}`);
      expect(seen(page)).toEqual([200, expect.stringContaining("<h1>Not connected</h1>")]);
      expect(stage.events).toContainEqual({ connectionId, type: "consent_denied", detail: {} });
    },
  );

  test.each([
    ["?error=user_cancelled&error_description=the+person+said+no", "Not connected", "the person said no"],
    [
      "?error=server_error&error_description=%3Cb%3Elater",
      "You came back with an error",
      "server_error: &lt;b&gt;later",
    ],
    ["?error=server_error&state=made-up", "You came back with an error", "server_error"],
    ["?state=made-up&code=c", "no longer valid", "<h1>"],
    ["?error=", "no longer valid", "<h1>"],
  ])("without a state, %s, is told and changes nothing", async (query, title, said) => {
    const { browser, callback } = await comingBack("posted");
    const events = stage.events.length;
    const page = await browser.get(`/callback/posted${query}`);
    expect(seen(page)).toEqual([400, expect.stringContaining(title)]);
    expect(page.body).toContain(said);
    expect(stage.events).toHaveLength(events);
    expect((await browser.get(callback)).statusCode).toBe(502); // the state still counts: there is no such token endpoint
  });
});

/** Posts as a page of another site does: without our cookie. */
const post = async (path: string, fields: Record<string, string> | string) =>
  await stage.app.inject({
    method: "POST",
    url: path,
    headers: { "content-type": "application/x-www-form-urlencoded", origin: "https://login.example" },
    payload: typeof fields === "string" ? fields : new URLSearchParams(fields).toString(),
  });
const relayed = ({ body }: { body: string }) => ({
  action: /<form method="post" action="([^"]*)"/.exec(body)?.[1] ?? "",
  answer: /name="answer" value="([^"]*)"/.exec(body)?.[1] ?? "",
});

const countAttempts = async () => await stage.database.prisma.consentAttempt.count();

describe("an answer that is posted (OAuth 2.0 Form Post Response Mode)", () => {
  test("is asked for, consumes nothing, and is sent on from our own page, where cookie, state and Origin count", async () => {
    const { browser, state, toProvider, connectionName } = await comingBack("posted");
    stage.behaviour.exchange = async () => ({ connectionName, held: null, endsSoon: false });
    expect(toProvider.searchParams.get("response_mode")).toBe("form_post");
    const page = await post("/callback/posted", { code: "posted-code", state });
    expect([page.statusCode, page.headers["cache-control"]]).toEqual([200, "no-store"]);
    for (const secret of [state, "posted-code"]) expect(page.body).not.toContain(secret);
    const { action, answer } = relayed(page);
    expect(action).toBe("/callback/posted/continue");
    // Refused from another site, in another browser, and without a cookie. None of these consumes anything.
    expect((await browser.post(action, { answer }, { origin: "https://login.example" })).statusCode).toBe(403);
    expect((await browser.post(action, { answer }, { origin: "null" })).statusCode).toBe(403);
    expect((await open().post(action, { answer })).statusCode).toBe(403);
    expect((await browser.post(action, { answer: answer.slice(4) })).statusCode).toBe(403);
    expect((await browser.post("/callback/sandbox/continue", { answer })).statusCode).toBe(403);
    expect(seen(await browser.post(action, { answer }))).toEqual(connected);
    expect(seen(await browser.post(action, { answer }))).toEqual(connected);
  });

  test("of a client with a redirect URI of its own goes on there, also of one that is called continue", async () => {
    for (const client of ["acme", "continue"]) {
      const { action } = relayed(await post(`/callback/posted/${client}`, { code: "c", state: "s" }));
      expect(action).toBe(`/callback/posted/${client}/continue`);
      const { browser } = await comingBack("posted");
      const { answer } = relayed(await post(`/callback/posted/${client}`, { code: "c", state: "made-up" }));
      expect((await browser.post(action, { answer })).statusCode).toBe(400);
      expect((await browser.post("/callback/posted/continue", { answer })).statusCode).toBe(403);
    }
    expect((await post("/callback/sandbox/continue", { code: "c" })).statusCode).toBe(405);
  });

  test("runs the script of its page by a hash, and no other", async () => {
    const page = await post("/callback/posted", { code: "c", state: "s" });
    const script = /<script>(.*?)<\/script>/s.exec(page.body)?.[1] ?? "";
    const hash = createHash("sha256").update(script).digest("base64");
    expect(page.headers["content-security-policy"]).toContain(`script-src 'sha256-${hash}'`);
    expect(page.headers["content-security-policy"]).not.toContain("unsafe");
    expect(page.body.match(/<script/g)).toHaveLength(1);
  });

  test("counts for a minute", async () => {
    const { browser, state } = await comingBack("posted");
    const { action, answer } = relayed(await post("/callback/posted", { code: "c", state }));
    stage.behaviour.passedMs = 60_001;
    expect((await browser.post(action, { answer })).statusCode).toBe(403);
  });

  test.each([
    ["a field twice", "code=a&code=b&state=s", 400],
    ["more than 16 KiB", `code=${"x".repeat(17_000)}`, 413],
  ])("with %s is refused before it is read", async (_what, body, status) => {
    expect((await post("/callback/posted", body)).statusCode).toBe(status);
  });

  test("is not taken where the definition does not ask for it", async () => {
    const answer = await post("/callback/sandbox", { code: "c", state: "s" });
    expect([answer.statusCode, answer.headers["allow"]]).toEqual([405, "GET"]);
    expect((await post("/callback/nope", { code: "c" })).statusCode).toBe(405);
  });

  test("leaves no rows, whatever is posted", async () => {
    const before = await countAttempts();
    const browser = open();
    await browser.get((await comingBack()).url);
    const { action, answer } = relayed(await post("/callback/posted", { code: "c", state: "made-up" }));
    expect((await browser.post(action, { answer })).statusCode).toBe(400);
    await browser.get("/callback/posted?state=made-up&code=c");
    expect(await countAttempts()).toBe(before);
  });
});
