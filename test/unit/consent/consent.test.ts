import { createHash, randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type AuthorizationContext, formOf } from "../../../src/consent/links.ts";
import { BrokerError, type ErrorCode } from "../../../src/errors.ts";
import { type ConsentStage, type ExchangedCode, setConsentStage } from "../../support/consent-stage.ts";
import { proveByHand } from "../../support/prove-by-hand.ts";
import { createTestBrowser, csrfOf, pathOf, type TestBrowser } from "./browser-client.ts";

const publicUrl = "http://localhost:8080";
const shop = "https://shop.example";
let stage: ConsentStage;
const open = () => createTestBrowser(stage.app, publicUrl);

beforeAll(async () => {
  stage = await setConsentStage({ publicUrl, returnOrigins: [shop] });
});
afterAll(async () => await stage.close());

async function makeLink(
  request: { returnTo?: string; purpose?: string; connectionId?: string; expiresInSeconds?: number } = {},
) {
  const connectionId = request.connectionId ?? (await stage.connect()).connectionId;
  return { connectionId, ...(await stage.createLink({ ...request, connectionId })) };
}

/** Presses "Continue" and decides at the sandbox; returns the callback's address. */
async function callbackOf(browser: TestBrowser, link: string, decision = "authorize"): Promise<string> {
  const toProvider = await browser.press(link);
  const back = await browser.post(String(toProvider.headers["location"]), { decision });
  return String(back.headers["location"]);
}

async function expire(table: "consent_links" | "authorization_requests", connectionId: string) {
  const query = `UPDATE ${table} SET expires_at = clock_timestamp() - interval '1 second' WHERE connection_id = $1::uuid`;
  expect(await stage.database.prisma.$executeRawUnsafe(query, connectionId)).toBeGreaterThan(0);
  await proveByHand((sql, values) => stage.database.prisma.$queryRawUnsafe(sql, ...values), stage.vault);
}

const tokenOf = (url: string) => new URL(url).pathname.split("/").at(-1) ?? "";

const refusal = async (promise: Promise<unknown>) => await promise.catch((error: BrokerError) => error.code);

const age = async (id: string, days: number) => {
  await stage.database.prisma
    .$executeRaw`UPDATE consent_links SET expires_at = clock_timestamp() - make_interval(days => ${days}) WHERE id = ${id}`;
  await proveByHand((sql, values) => stage.database.prisma.$queryRawUnsafe(sql, ...values), stage.vault);
};

const answering = async (change: (callback: URL) => void) => {
  const { url, connectionId } = await makeLink();
  const browser = open();
  const callback = new URL(await callbackOf(browser, url));
  change(callback);
  return { connectionId, url, browser, callback, answer: await browser.get(callback.href) };
};

const manual = async () => {
  const { connectionId } = await stage.connect({ provider: "apicbase", scopes: ["accounts"] });
  const link = await stage.createLink({ connectionId, manual: true });
  return { connectionId, ...link };
};

const handIn = async (connectionId: string, code: string) =>
  await stage.submitCode({ connectionId, code }).then(
    () => "exchanged",
    (error: unknown) => (error instanceof BrokerError ? [error.code, error.message] : error),
  );
const counted = (answer: () => Promise<ExchangedCode>) => {
  const codes: string[] = [];
  stage.behaviour.exchange = async ({ code }) => {
    codes.push(code);
    return await answer();
  };
  return codes;
};

const address = (html: string) => /href="(https:\/\/app\.apicbase\.com[^"]*)"/.exec(html)?.[1];

describe("a consent that succeeds", () => {
  test("goes from the link by way of the provider to Connected, and exchanges the code with its verifier", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const toProvider = await browser.press(url);
    expect(toProvider.statusCode).toBe(303);
    const asked = new URL(String(toProvider.headers["location"]));
    expect(`${asked.origin}${asked.pathname}`).toBe(`${publicUrl}/sandbox/authorize`);
    expect(asked.searchParams.get("redirect_uri")).toBe(`${publicUrl}/callback/sandbox`);
    expect(asked.searchParams.get("code_challenge_method")).toBe("S256");
    expect(asked.searchParams.get("state")).toHaveLength(43);
    const back = await browser.post(asked.href, { decision: "authorize" });
    const done = await browser.get(String(back.headers["location"]));
    expect(done.statusCode).toBe(200);
    expect(done.body).toContain("Connected");
    const exchange = stage.exchanged.find((each) => each.connectionId === connectionId);
    expect(exchange?.body).toMatchObject({ token_type: "Bearer", expires_in: 90, scope: "read" });
  });

  test("uses the link up", async () => {
    const { url } = await makeLink();
    const browser = open();
    await browser.get(await callbackOf(browser, url));
    expect((await browser.get(url)).statusCode).toBe(410);
    expect((await open().get(url)).body).toContain("This link has been used");
  });

  test("offers the way back with name and status, keeping the query that is there", async () => {
    const { url, connectionId } = await makeLink({ returnTo: `${shop}/done?order=7&status=x` });
    const browser = open();
    const done = await browser.get(await callbackOf(browser, url));
    const name = stage.contexts.get(connectionId)?.connectionName;
    expect(done.statusCode).toBe(200);
    expect(done.body).toContain(`href="${shop}/done?order=7&amp;status=connected&amp;connection=${name}"`);
  });
});

describe("a person who says no", () => {
  test("sees Not connected with 200, and the link stays usable", async () => {
    const { url, connectionId } = await makeLink({ returnTo: `${shop}/done` });
    const browser = open();
    const denied = await browser.get(await callbackOf(browser, url, "deny"));
    expect(denied.statusCode).toBe(200);
    expect(denied.body).toContain("Not connected");
    expect(denied.body).toContain("status=denied");
    expect(stage.events).toContainEqual({ connectionId, type: "consent_denied", detail: {} });
    expect((await browser.get(await callbackOf(browser, url))).body).toContain("<h1>Connected</h1>");
  });
});

describe("a link", () => {
  test("is not changed by any number of GETs", async () => {
    const { url } = await makeLink();
    for (let scan = 0; scan < 3; scan++) expect((await open().get(url)).statusCode).toBe(200);
    expect((await open().press(url)).statusCode).toBe(303);
  });

  test("belongs to the browser that posts first; another gets 403 on POST and GET", async () => {
    const { url } = await makeLink();
    const [first, second] = [open(), open()];
    const csrf = csrfOf((await second.get(url)).body);
    await first.press(url);
    expect((await second.post(url, { csrf })).statusCode).toBe(403);
    expect((await second.get(url)).body).toContain("another browser");
    expect((await first.press(url)).statusCode).toBe(303);
  });

  test("is claimed by exactly one of many browsers that post at once", async () => {
    const { url } = await makeLink();
    const browsers = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const browser = open();
        return { browser, csrf: csrfOf((await browser.get(url)).body) };
      }),
    );
    const answers = await Promise.all(browsers.map(async ({ browser, csrf }) => await browser.post(url, { csrf })));
    const statuses = answers.map(({ statusCode }) => statusCode).sort((a, b) => a - b);
    expect(statuses).toEqual([303, 403, 403, 403, 403, 403, 403, 403]);
  });

  test("that expired is 410, before and after the POST", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const csrf = csrfOf((await browser.get(url)).body);
    await expire("consent_links", connectionId);
    expect((await browser.get(url)).statusCode).toBe(410);
    const answer = await browser.post(url, { csrf });
    expect(answer.statusCode).toBe(410);
    expect(answer.body).toContain("expired");
  });

  test.each(["nonsense", "a".repeat(80), "%00", "0123456789abcdef-0123456789abcdef0123456789abcdef"])(
    "that is unknown is 404: %s",
    async (link) => {
      const answer = await open().get(`/connect/${link}`);
      expect(answer.statusCode).toBe(404);
      expect(answer.headers["content-type"]).toBe("text/html; charset=utf-8");
    },
  );

  test("with the right id and a wrong secret is unknown", async () => {
    const { url } = await makeLink();
    const answer = await open().get(`${url.slice(0, -1)}${url.endsWith("0") ? "1" : "0"}`);
    expect(answer.statusCode).toBe(404);
  });

  test("of a connection that was deleted is 404, of a disabled one 409", async () => {
    const deleted = await makeLink();
    await stage.database.prisma.connection.delete({ where: { id: deleted.connectionId } });
    expect((await open().get(deleted.url)).statusCode).toBe(404);
    const disabled = await stage.connect();
    const { url } = await makeLink({ connectionId: disabled.connectionId });
    stage.contexts.set(disabled.connectionId, { ...disabled, disabled: true });
    expect((await open().get(url)).statusCode).toBe(409);
  });

  test("is stored without its secret", async () => {
    const { url, id } = await makeLink();
    const row = await stage.database.prisma.consentLink.findUniqueOrThrow({ where: { id } });
    const secret = url.slice(-32);
    expect(secret).toMatch(/^[0-9a-f]{32}$/);
    const stored = JSON.stringify(row, (_key, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : value,
    );
    expect(stored).not.toContain(secret);
    expect(stored).not.toContain(Buffer.from(secret, "hex").toString("latin1"));
  });
});

describe("making a link", () => {
  test("gives an hour unless told, and at most seven days", async () => {
    const askedMs = Date.now();
    const { expiresAt } = await makeLink();
    const madeMs = expiresAt.getTime() - 3_600_000;
    expect([madeMs >= askedMs - 1000, madeMs <= Date.now() + 1000]).toEqual([true, true]);
    await expect(makeLink({ expiresInSeconds: 7 * 24 * 3600 })).resolves.toBeDefined();
    for (const expiresInSeconds of [0, -1, 1.5, 7 * 24 * 3600 + 1, Number.NaN]) {
      await expect(makeLink({ expiresInSeconds })).rejects.toThrow(/expires_in must be .* from 1 to 604800/);
    }
  });

  test.each([
    "https://evil.example/",
    "javascript:alert(1)",
    "/relative",
    "https://shop.example.evil.example",
    "https://u:p@shop.example/",
  ])("refuses to return to %s, naming what is allowed", async (returnTo) => {
    await expect(makeLink({ returnTo })).rejects.toThrow(
      `return_to must be an address at one of RETURN_ORIGINS: ${shop}`,
    );
  });

  // Zero-width, Hangul filler, tags, joiner, override, word joiner, soft hyphen, not assigned, private.
  const unseen = ["\u200b", "\u3164", "\u{e0041}", "\u034f", "\u202e", "\u2060", "\u00ad", "\u0378", "\ue000"].flatMap(
    (each) => [each, `Orders${each}`],
  );

  test("takes a purpose of one line and at most 200 characters", async () => {
    for (const purpose of ["Invoices for March", "é".repeat(200), "7", `a${"🧾".repeat(199)}`]) {
      await expect(makeLink({ purpose })).resolves.toBeDefined();
    }
    for (const purpose of [
      "x".repeat(201),
      "",
      " ",
      "two\nlines",
      "bell\u0007",
      "\u202ebackwards",
      "half \ud83e",
      "🧾",
      "...",
      ...unseen,
    ]) {
      await expect(makeLink({ purpose })).rejects.toThrow("purpose must be one line of 1 to 200 characters");
    }
  });

  test("refuses a disabled connection, a provider without authorize page, and manual where no code is shown", async () => {
    const disabled = await stage.connect({ disabled: true });
    expect(await refusal(makeLink(disabled))).toBe("connection_disabled");
    expect(await refusal(makeLink(await stage.connect({ provider: "shopware" })))).toBe("grant_not_applicable");
    const { connectionId } = await stage.connect();
    expect(await refusal(stage.createLink({ connectionId, manual: true }))).toBe("grant_not_applicable");
  });

  test("forgets links of the connection that ran out a month ago, and no others", async () => {
    const old = await makeLink();
    const recent = await makeLink({ connectionId: old.connectionId });
    await age(old.id, 31);
    await age(recent.id, 29);
    await makeLink({ connectionId: old.connectionId });
    expect((await open().get(old.url)).statusCode).toBe(404);
    expect((await open().get(recent.url)).statusCode).toBe(410);
  });
});

describe("a state", () => {
  test("counts once: its browser sees how it ended as often as it comes, another browser nothing", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    for (let look = 0; look < 3; look++) {
      const { statusCode, body } = await browser.get(callback);
      expect([statusCode, body]).toEqual([200, expect.stringContaining("<h1>Connected</h1>")]);
    }
    expect((await open().get(callback)).statusCode).toBe(403);
    expect(stage.exchanged.filter((each) => each.connectionId === connectionId)).toHaveLength(1);
  });

  test("is consumed by one of 60 callbacks at once, its code is sent once, and all of them see Connected", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    const answers = await Promise.all(Array.from({ length: 60 }, async () => await browser.get(callback)));
    const seen = answers.map(({ statusCode, body }) => [statusCode, body.includes("<h1>Connected</h1>")]);
    expect(seen).toEqual(Array.from({ length: 60 }, () => [200, true]));
    expect(stage.exchanged.filter((each) => each.connectionId === connectionId)).toHaveLength(1);
  });

  test("does nothing in another browser, and is left for the right one", async () => {
    const { url } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    expect((await open().get(callback)).statusCode).toBe(403);
    const other = open();
    await other.get((await makeLink()).url);
    expect((await other.get(callback)).statusCode).toBe(403);
    expect((await browser.get(callback)).statusCode).toBe(200);
  });

  test("that is altered, missing or ten minutes old is 400", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const callback = new URL(await callbackOf(browser, url));
    const good = callback.searchParams.get("state") ?? "";
    for (const state of [`${good}x`, good.slice(1), ""]) {
      callback.searchParams.set("state", state);
      expect((await browser.get(callback.href)).statusCode).toBe(400);
    }
    callback.searchParams.delete("state");
    expect((await browser.get(callback.href)).statusCode).toBe(400);
    await expire("authorization_requests", connectionId);
    callback.searchParams.set("state", good);
    expect((await browser.get(callback.href)).statusCode).toBe(400);
  });

  test("lives for ten minutes and those that ran out are removed when the next consent begins", async () => {
    const old = await makeLink();
    await open().press(old.url);
    const rows = await stage.database.prisma.$queryRaw<{ life: number }[]>`
      SELECT extract(epoch FROM expires_at - created_at)::float AS life
      FROM authorization_requests WHERE connection_id = ${old.connectionId}::uuid`;
    // The end is computed before the row is written: on a slow machine the row shows a little less time.
    expect(rows[0]?.life).toBeGreaterThan(0);
    expect(rows[0]?.life).toBeLessThan(600.1);
    await expire("authorization_requests", old.connectionId);
    await open().press((await makeLink()).url);
    const where = { connectionId: old.connectionId };
    expect(await stage.database.prisma.authorizationRequest.count({ where })).toBe(0);
  });

  test("of one provider is unknown at the redirect URI of another, and not consumed there", async () => {
    const { url } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    expect((await browser.get(callback.replace("/callback/sandbox", "/callback/apicbase"))).statusCode).toBe(400);
    expect((await browser.get(callback)).statusCode).toBe(200);
  });

  test("of a second tab is refused once the link is used: 410, and no second exchange", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const [one, two] = [await callbackOf(browser, url), await callbackOf(browser, url)];
    expect((await browser.get(one)).statusCode).toBe(200);
    expect((await browser.get(two)).statusCode).toBe(410);
    expect(stage.exchanged.filter((each) => each.connectionId === connectionId)).toHaveLength(1);
  });

  test("and its verifier are not stored in the clear", async () => {
    const { url, connectionId } = await makeLink();
    const toProvider = await open().press(url);
    const state = new URL(String(toProvider.headers["location"])).searchParams.get("state") ?? "";
    const where = { connectionId };
    const row = await stage.database.prisma.authorizationRequest.findFirstOrThrow({ where });
    expect(Buffer.from(row.stateHash).toString("latin1")).not.toContain(
      Buffer.from(state, "base64url").toString("latin1"),
    );
    expect(row.request.length).toBeGreaterThan(43 + 28);
    expect(Buffer.from(row.request).toString("latin1")).not.toMatch(/[A-Za-z0-9_-]{43}/);
  });
});

describe("an answer of the provider", () => {
  test("that is an error is 502, says what it was, and leaves the link usable", async () => {
    const { answer, url, browser, connectionId } = await answering(({ searchParams }) => {
      searchParams.delete("code");
      searchParams.set("error", "invalid_scope");
      searchParams.set("error_description", "no <b>such</b> scope");
    });
    expect(answer.statusCode).toBe(502);
    expect(answer.body).toContain("invalid_scope: no &lt;b&gt;such&lt;/b&gt; scope");
    expect(stage.events).toContainEqual({ connectionId, type: "consent_failed", detail: { error: "invalid_scope" } });
    expect((await browser.get(url)).statusCode).toBe(200);
  });

  test("that is an error without a valid state is 400", async () => {
    const { answer } = await answering(({ searchParams }) => {
      searchParams.set("error", "access_denied");
      searchParams.set("state", "made-up");
    });
    expect(answer.statusCode).toBe(400);
  });

  test("that repeats state and code does not bring them into the page or the history", async () => {
    const { answer, callback, connectionId } = await answering(({ searchParams }) => {
      const [state, code] = [searchParams.get("state"), searchParams.get("code")];
      searchParams.set("error", "server_error");
      searchParams.set("error_description", `state ${state} with code ${code}`);
    });
    expect(answer.statusCode).toBe(502);
    for (const name of ["state", "code"]) expect(answer.body).not.toContain(callback.searchParams.get(name));
    const said = JSON.stringify(stage.events.filter((event) => event.connectionId === connectionId));
    expect(said).not.toContain(callback.searchParams.get("state"));
  });

  test("without a code is 502", async () => {
    expect((await answering(({ searchParams }) => searchParams.delete("code"))).answer.statusCode).toBe(502);
  });

  test("from another issuer is 502, and its code is not exchanged (RFC 9207)", async () => {
    const { answer, connectionId } = await answering(({ searchParams }) =>
      searchParams.set("iss", "https://evil.example"),
    );
    expect(answer.statusCode).toBe(502);
    expect(stage.exchanged.filter((each) => each.connectionId === connectionId)).toEqual([]);
  });

  test("with unknown parameters is as good as without", async () => {
    expect((await answering(({ searchParams }) => searchParams.set("session_state", "x"))).answer.statusCode).toBe(200);
  });

  test.each(["state", "code", "error", "iss", "anything"])(
    "with %s twice is 400, and the state is kept",
    async (name) => {
      const { answer, callback, browser } = await answering(({ searchParams }) => {
        searchParams.append(name, searchParams.get(name) ?? "a");
        if (searchParams.getAll(name).length < 2) searchParams.append(name, "b");
      });
      expect(answer.statusCode).toBe(400);
      const values = new Map(callback.searchParams);
      for (const [key, value] of values) callback.searchParams.set(key, value);
      if (name !== "error" && name !== "anything") expect((await browser.get(callback.href)).statusCode).toBe(200);
    },
  );

  test("for a connection that was disabled meanwhile is 409, for a deleted one 400", async () => {
    const { url, connectionId } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    const context = stage.contexts.get(connectionId);
    if (context) stage.contexts.set(connectionId, { ...context, disabled: true });
    expect((await browser.get(callback)).statusCode).toBe(409);
    const deleted = await makeLink();
    const late = await callbackOf(browser, deleted.url);
    await stage.database.prisma.connection.delete({ where: { id: deleted.connectionId } });
    expect((await browser.get(late)).statusCode).toBe(400);
  });
});

describe("an exchange that fails", () => {
  const failures: [ErrorCode, number][] = [
    ["provider_rejected", 502],
    ["provider_unavailable", 502],
    ["client_rejected", 502],
    ["connection_disabled", 409],
    ["duplicate_grant", 409],
    ["connection_not_found", 404],
    ["storage_unavailable", 503],
  ];
  test.each(failures)("with %s ends in %i, and the link stays usable", async (code, status) => {
    const { url } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    stage.behaviour.exchange = async () => {
      throw new BrokerError(code, "What <the provider> said.");
    };
    const answer = await browser.get(callback);
    stage.behaviour.exchange = null;
    expect(answer.statusCode).toBe(status);
    expect(answer.body).toContain("What &lt;the provider&gt; said.");
    expect((await browser.get(await callbackOf(browser, url))).statusCode).toBe(200);
  });

  test("for no known reason ends in a page with 500 that says nothing of the cause", async () => {
    const { url } = await makeLink();
    const browser = open();
    const callback = await callbackOf(browser, url);
    stage.behaviour.exchange = async () => {
      throw new TypeError("inner workings");
    };
    const answer = await browser.get(callback);
    stage.behaviour.exchange = null;
    expect(answer.statusCode).toBe(500);
    expect(answer.body).not.toContain("inner workings");
  });
});

describe("a form", () => {
  test.each([
    {},
    { origin: "" },
    { origin: "null" },
    { origin: "https://evil.example" },
    { origin: `${publicUrl}.evil.example` },
  ])("with the origin %j is refused, and claims nothing", async (headers: { origin?: string }) => {
    const { url } = await makeLink();
    const browser = open();
    const csrf = csrfOf((await browser.get(url)).body);
    const answer = await stage.app.inject({
      method: "POST",
      url: pathOf(url),
      headers: { ...headers, cookie: String(browser.cookie), "content-type": "application/x-www-form-urlencoded" },
      payload: `csrf=${csrf}`,
    });
    expect(answer.statusCode).toBe(403);
    expect((await open().press(url)).statusCode).toBe(303);
  });

  test("needs the hidden field that fits this cookie and this link", async () => {
    const [mine, other] = [await makeLink(), await makeLink()];
    const [browser, stranger] = [open(), open()];
    await browser.get(mine.url);
    const ofStranger = csrfOf((await stranger.get(mine.url)).body);
    const ofOtherLink = csrfOf((await browser.get(other.url)).body);
    for (const csrf of [ofStranger, ofOtherLink, "", "ä".repeat(43)]) {
      expect((await browser.post(mine.url, { csrf })).statusCode).toBe(403);
    }
    expect((await browser.post(mine.url, {})).statusCode).toBe(403);
    expect((await open().press(mine.url)).statusCode).toBe(303);
  });

  test("without the cookie is refused", async () => {
    const { url } = await makeLink();
    const browser = open();
    const csrf = csrfOf((await browser.get(url)).body);
    browser.cookie = null;
    expect((await browser.post(url, { csrf })).statusCode).toBe(403);
  });

  test.each([
    ["application/json", "{}", 415],
    ["text/plain", "csrf=1", 415],
    ["application/x-www-form-urlencoded", `csrf=${"x".repeat(40_000)}`, 413],
    ["application/x-www-form-urlencoded", "csrf=1&csrf=2", 400],
  ])("of type %s that cannot be read gets a page: %#", async (type, payload, status) => {
    const { url } = await makeLink();
    const browser = open();
    await browser.get(url);
    const headers = { "content-type": type, origin: publicUrl, cookie: String(browser.cookie) };
    const answer = await stage.app.inject({ method: "POST", url: pathOf(url), headers, payload });
    expect(answer.statusCode).toBe(status);
    expect(answer.headers["content-type"]).toBe("text/html; charset=utf-8");
  });
});

describe("a form counts for what its page showed", () => {
  const changes: [string, (context: AuthorizationContext) => Partial<AuthorizationContext>][] = [
    ["scopes", () => ({ scopes: ["read", "write", "admin"] })],
    ["the order of scopes", ({ scopes }) => ({ scopes: [...scopes, "write"].toReversed() })],
    ["name", () => ({ connectionName: "somebody-else" })],
    ["provider", ({ definition }) => ({ definition: { ...definition, name: "Other" } })],
    ["words", ({ definition }) => ({ definition: { ...definition, scopeDescriptions: { read: "do anything" } } })],
    ["client id", () => ({ clientId: "other-app" })],
    ["host", ({ destination }) => ({ destination: { ...destination, inputs: { shop_url: "https://other.example" } } })],
    ["client", ({ destination }) => ({ destination: { ...destination, clientRef: "other" } })],
    ["redirect URI", () => ({ redirectUri: `${publicUrl}/callback/sandbox/other` })],
  ];

  test.each(changes)("and not for a changed one: %s", async (_what, change) => {
    for (const given of [{}, { provider: "apicbase", scopes: ["accounts"] }]) {
      const context = await stage.connect(given);
      const { connectionId } = context;
      const link = { connectionId, manual: given.provider !== undefined };
      const { url } = await stage.createLink(link);
      const browser = open();
      const code = link.manual ? { code: "c-1" } : {};
      const csrf = csrfOf((await browser.get(url)).body);
      stage.contexts.set(connectionId, { ...context, ...change(context) });
      const late = await browser.post(url, { csrf, ...code });
      expect([late.statusCode, late.body]).toEqual([403, expect.stringContaining("This page is out of date")]);
      expect(late.body).toContain(`href="${pathOf(url)}"`);
      // Nobody has claimed the link. Its page as it is now is what counts.
      expect((await open().get(url)).statusCode).toBe(200);
      stage.contexts.set(connectionId, context);
      expect((await browser.get(url)).body).toContain(context.connectionName);
      if (!link.manual) expect((await browser.press(url)).statusCode).toBe(303);
    }
  });

  test("nor for another purpose, or another organisation, than was read", async () => {
    const { url } = await makeLink({ purpose: "Read your orders" });
    const { row, context } = await stage.consent.links.open({ link: tokenOf(url), browser: "b" });
    const at = { browser: "b", link: tokenOf(url) };
    const form = formOf(stage.asker, at, { row, context });
    expect(formOf(stage.asker, at, { row: { ...row, purpose: "Anything" }, context })).not.toEqual(form);
    const organisation = { name: "Other", contact: null };
    expect(formOf({ organisation }, at, { row, context })).not.toEqual(form);
  });

  test("nor for another account than the question named", async () => {
    const context = await stage.connect({ account: "ada" });
    const { connectionId } = context;
    const { url } = await makeLink({ connectionId });
    const held = { attemptId: randomUUID(), account: "42", label: "bob" };
    stage.behaviour.held.set(held.attemptId, { ...held, connectionId, accepted: false });
    stage.behaviour.exchange = async () => ({ connectionName: "", held, endsSoon: false });
    const browser = open();
    const location = await browser.ticketOf(await callbackOf(browser, url));
    stage.behaviour.exchange = null;
    const old = csrfOf((await browser.get(location)).body);
    stage.contexts.set(connectionId, { ...context, account: "carol" });
    const late = await browser.post(location, { csrf: old, accept: "yes" });
    expect([late.statusCode, late.body]).toEqual([403, expect.stringContaining(`href="${location}"`)]);
    stage.behaviour.held.set(held.attemptId, { ...held, label: "mallory", connectionId, accepted: false });
    const page = await browser.get(location);
    expect(page.body).toMatch(/Keep carol.*Use mallory from now on/s);
    const done = await browser.post(location, { csrf: csrfOf(page.body), accept: "yes" });
    expect([done.statusCode, done.body]).toEqual([200, expect.stringContaining("The account mallory")]);
  });
});

describe("a code that is copied by hand", () => {
  const taken: string[] = [];
  const take = () => {
    taken.length = 0;
    stage.behaviour.exchange = async ({ code }) => {
      taken.push(code);
      return { connectionName: "acme", held: null, endsSoon: false };
    };
  };

  test("is asked for beside the provider's address, which stays the same at every look", async () => {
    const { url } = await manual();
    const browser = open();
    const first = address((await browser.get(url)).body);
    expect(first).toContain("scope=accounts");
    expect(first).not.toContain("redirect_uri");
    expect(address((await browser.get(url)).body)).toBe(first);
    expect(address((await open().get(url)).body)).not.toBe(first);
  });

  test.each(["one-minute-code", "  one-minute-code\n", "https://app.apicbase.com/done?code=one-minute-code"])(
    "connects at once, and uses the link up: %j",
    async (code) => {
      take();
      const { url } = await manual();
      const browser = open();
      const answer = await browser.press(url, { code });
      stage.behaviour.exchange = null;
      expect(answer.statusCode).toBe(200);
      expect(answer.body).not.toContain("one-minute-code");
      expect(taken).toEqual(["one-minute-code"]);
      expect((await browser.get(url)).statusCode).toBe(410);
    },
  );

  test("connects with the verifier of the page that was shown, also when the keys were rotated since", async () => {
    const verifiers: (string | null)[] = [];
    stage.behaviour.exchange = async ({ codeVerifier }) => {
      verifiers.push(codeVerifier);
      return { connectionName: "acme", held: null, endsSoon: false };
    };
    const { url, connectionId } = await manual();
    const context = stage.contexts.get(connectionId);
    const { definition } = context ?? {};
    if (!definition?.authorization) throw new Error("no authorize page");
    const authorization = { ...definition.authorization, pkce: "required" } as const;
    Object.assign(context ?? {}, { definition: { ...definition, authorization } });
    const browser = open();
    const { body } = await browser.get(url);
    const challenge = new URL((address(body) ?? "").replaceAll("&amp;", "&")).searchParams.get("code_challenge");
    stage.rotateKeys();
    const answer = await browser.post(url, { csrf: csrfOf(body), code: "one-minute-code" });
    stage.behaviour.exchange = null;
    expect(answer.statusCode).toBe(200);
    expect(
      verifiers.map((verifier) =>
        createHash("sha256")
          .update(verifier ?? "")
          .digest("base64url"),
      ),
    ).toEqual([challenge]);
  });

  test("that the same page sends again after the keys were rotated has the outcome of the first time", async () => {
    take();
    const { url } = await manual();
    const browser = open();
    const form = { csrf: csrfOf((await browser.get(url)).body), code: "sent-twice" };
    const first = await browser.post(url, form);
    stage.rotateKeys();
    const second = await browser.post(url, form);
    stage.behaviour.exchange = null;
    expect([second.statusCode, second.body]).toEqual([200, first.body]);
    expect(taken.filter((code) => code === "sent-twice")).toHaveLength(1);
  });

  test.each(["", "two words", "https://app.apicbase.com/done", "x".repeat(5000)])(
    "that is none is 400: %j",
    async (code) => {
      const { url } = await manual();
      const answer = await open().press(url, { code });
      expect(answer.statusCode).toBe(400);
      expect(answer.body).toContain("code must be");
    },
  );

  test("is refused on a plain link, and its absence on a manual one", async () => {
    expect((await open().press((await makeLink()).url, { code: "abc" })).statusCode).toBe(400);
    expect((await open().press((await manual()).url)).statusCode).toBe(400);
  });

  test("can be copied again, so that it waits for the provider's limits; one that the browser brings back cannot", async () => {
    const waits: boolean[] = [];
    stage.behaviour.exchange = async ({ cannotWait }) => {
      waits.push(!cannotWait);
      return { connectionName: "acme", held: null, endsSoon: false };
    };
    const { url, connectionId } = await manual();
    await stage.submitCode({ connectionId, code: "handed" });
    await open().press(url, { code: "copied" });
    const browser = open();
    await browser.get(await callbackOf(browser, (await makeLink()).url));
    stage.behaviour.exchange = null;
    expect(waits).toEqual([true, true, false]);
  });

  describe("that a key hands in more than once", () => {
    const connected = { connectionName: "acme", held: null, endsSoon: false };
    afterEach(() => void (stage.behaviour.exchange = null));

    test("is exchanged once, however many hand it in at once, and whoever comes later is told the same", async () => {
      const answered = Promise.withResolvers<ExchangedCode>();
      const codes = counted(async () => await answered.promise);
      const { connectionId } = await manual();
      const all = Array.from({ length: 8 }, async () => await handIn(connectionId, "same-code"));
      answered.resolve(connected);
      expect(await Promise.all(all)).toEqual(Array.from({ length: 8 }, () => "exchanged"));
      expect([await handIn(connectionId, " same-code "), codes]).toEqual(["exchanged", ["same-code"]]);
      await handIn((await manual()).connectionId, "same-code");
      await handIn(connectionId, "other-code");
      expect(codes).toEqual(["same-code", "same-code", "other-code"]);
    });

    test("is exchanged once also where the encryption key has changed in between", async () => {
      const codes = counted(async () => await Promise.resolve(connected));
      const { connectionId } = await manual();
      expect(await handIn(connectionId, "kept-code")).toBe("exchanged");
      stage.rotateKeys();
      expect([await handIn(connectionId, "kept-code"), codes]).toEqual(["exchanged", ["kept-code"]]);
    });

    test("is told the provider's verdict again, and sent again where there was none", async () => {
      const { connectionId } = await manual();
      const refused = new BrokerError("provider_rejected", "The provider refuses: invalid_grant");
      const rejected = counted(async () => await Promise.reject(refused));
      const verdict = ["provider_rejected", "The provider refuses: invalid_grant"];
      for (let turn = 0; turn < 3; turn++) expect(await handIn(connectionId, "junk")).toEqual(verdict);
      expect(rejected).toEqual(["junk"]);
      const away = counted(async () => await Promise.reject(new BrokerError("provider_unavailable", "away")));
      for (let turn = 0; turn < 2; turn++) {
        expect(await handIn(connectionId, "good")).toEqual(["provider_unavailable", "away"]);
      }
      expect(away).toEqual(["good", "good"]);
    });
  });

  test("can be handed over without a browser, where the definition says so", async () => {
    take();
    const { connectionId } = await manual();
    await stage.submitCode({ connectionId, code: "from-ops" });
    stage.behaviour.exchange = null;
    expect(taken).toEqual(["from-ops"]);
    const plain = await stage.connect();
    await expect(stage.submitCode({ ...plain, code: "x" })).rejects.toMatchObject({
      code: "grant_not_applicable",
    });
  });
});
