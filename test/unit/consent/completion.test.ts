import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Principal } from "../../../src/callers/principal.ts";
import { BrokerError } from "../../../src/errors.ts";
import { type ConsentStage, setConsentStage } from "../../support/consent-stage.ts";
import { proveByHand } from "../../support/prove-by-hand.ts";
import { createTestBrowser, csrfOf, type TestBrowser } from "./browser-client.ts";

const publicUrl = "http://localhost:8080";
const shop = "https://shop.example";
const asked = { completion: "app", endUser: "42", returnTo: `${shop}/connected` } as const;
/** Of the stage's links. */
const app: Principal = {
  callerId: "tests",
  actor: { kind: "key", id: "tests", name: null },
  abilities: ["connections"],
  connections: ["*"],
  labels: {},
  expiresAt: null,
};
let stage: ConsentStage;
/** The same broker after a restart with CONSENT_COMPLETION=app. */
let strict: ConsentStage;

beforeAll(async () => {
  const options = { publicUrl, returnOrigins: [shop] };
  [stage, strict] = [await setConsentStage(options), await setConsentStage({ ...options, completion: "app" })];
});
beforeEach(() => void Object.assign(stage.behaviour, { exchange: null, hurries: false }));
afterAll(async () => void (await Promise.all([stage.close(), strict.close()])));

type Given = { provider?: string; codeLifetimeSeconds?: number; browser?: TestBrowser; of?: ConsentStage };

/** From a link up to the callback; `address`: where the browser is led to. */
async function heldCode({ codeLifetimeSeconds, browser, of = stage }: Given = {}) {
  const { connectionId, connectionName, definition } = await of.connect();
  const { authorization } = definition;
  if (codeLifetimeSeconds !== undefined && authorization !== null) {
    const known = of.contexts.get(connectionId);
    const shorter = { ...definition, authorization: { ...authorization, codeLifetimeSeconds } };
    if (known !== undefined) of.contexts.set(connectionId, { ...known, definition: shorter });
  }
  const link = await of.createLink({ ...asked, connectionId });
  const own = browser ?? createTestBrowser(of.app, publicUrl);
  const toProvider = await own.press(link.url);
  const back = await own.post(String(toProvider.headers["location"]), { decision: "authorize" });
  const callback = String(back.headers["location"]);
  const address = await own.ticketOf(callback);
  return { ...link, browser: own, callback, address, connectionId, connectionName, ticket: ticketOf(address) };
}

/** Opens the link once more in its browser, up to the app; the ticket. */
async function comeBack(browser: TestBrowser, url: string): Promise<string> {
  const toProvider = await browser.press(url);
  const back = await browser.post(String(toProvider.headers["location"]), { decision: "authorize" });
  return ticketOf(await browser.ticketOf(String(back.headers["location"])));
}

const ticketOf = (address: string) => new URL(address).searchParams.get("ticket") ?? "";
const run = async (sql: string, ...values: unknown[]) =>
  await stage.database.prisma.$queryRawUnsafe<Record<string, unknown>[]>(sql, ...values);

async function complete(ticket: string, endUser = "42", principal = app): Promise<string> {
  try {
    const { completion } = stage.consent;
    const found = await completion.find(principal, ticket);
    return (await completion.complete(principal, found, endUser)).name;
  } catch (error) {
    if (error instanceof BrokerError) return error.code;
    throw error;
  }
}

const exchangesOf = (connectionId: string) => stage.exchanged.filter((each) => each.connectionId === connectionId);

describe("a held code", () => {
  test("is exchanged with the verifier, the redirect URI and the destination of its consent, once", async () => {
    const { ticket, connectionId, connectionName } = await heldCode();
    expect(exchangesOf(connectionId)).toEqual([]);
    expect(await complete(ticket)).toBe(connectionName);
    expect(await complete(ticket)).toBe(connectionName);
    const [exchange, ...others] = exchangesOf(connectionId);
    expect(others).toEqual([]);
    expect(exchange).toMatchObject({ redirectUri: `${publicUrl}/callback/sandbox`, cannotWait: true });
    expect(exchange?.body).toMatchObject({ token_type: "Bearer" });
  });

  test.each([
    ["a minute at most", undefined, 60],
    ["no longer than the code lives", 30, 30],
    ["a minute at most, whatever the code lives", 600, 60],
  ])("waits %s", async (_what, codeLifetimeSeconds, seconds) => {
    const { connectionId } = await heldCode(codeLifetimeSeconds === undefined ? {} : { codeLifetimeSeconds });
    const before = `SELECT extract(epoch FROM r.expires_at - a.expires_at)::float AS "ahead", l.held_until = r.expires_at AS "same"
      FROM authorization_requests r JOIN consent_links l ON l.id = r.link_id JOIN consent_attempts a ON a.attempt_hash = r.state_hash
      WHERE r.connection_id = $1::uuid`;
    // The attempt of its state is noted in the same statement, for ten minutes.
    const [row] = await run(before, connectionId);
    expect(row?.["same"]).toBe(true);
    expect(Number(row?.["ahead"])).toBeLessThanOrEqual(seconds - 600);
    expect(Number(row?.["ahead"])).toBeGreaterThan(seconds - 600 - 30);
  });

  test("is unknown to another caller, who changes nothing by it", async () => {
    const { ticket, connectionId, connectionName } = await heldCode();
    expect(await complete(ticket, "42", { ...app, callerId: "other" })).toBe("not_found");
    expect(exchangesOf(connectionId)).toEqual([]);
    expect(await complete(ticket)).toBe(connectionName);
    expect(await complete(ticket, "42", { ...app, callerId: "other" })).toBe("not_found");
  });

  test("is over, with its link, when the app names another user; the right one comes too late then", async () => {
    const { ticket, connectionId, browser, url } = await heldCode();
    const story = [await complete(ticket, "7"), await complete(ticket), await complete(ticket, "7")];
    expect(story).toEqual(["wrong_end_user", "wrong_end_user", "wrong_end_user"]);
    expect(exchangesOf(connectionId)).toEqual([]);
    expect((await browser.get(url)).statusCode).toBe(410);
  });

  test("is over when its time is, by the database's clock: its link is free again, and an older ticket takes nothing of it", async () => {
    const { ticket, connectionId, connectionName, id, browser, url } = await heldCode();
    const end = async (table: string, column: string, key: string) =>
      await run(`UPDATE ${table} SET ${column} = ${column} - interval '61 seconds' WHERE ${key} = $1`, id);
    await end("consent_links", "held_until", "id");
    // The link goes on while the row of its older ticket is still there: nobody may complete both.
    const again = await comeBack(browser, url);
    expect(await complete(ticket)).toBe("not_found");
    await end("consent_links", "held_until", "id");
    await end("authorization_requests", "expires_at", "link_id");
    expect([await complete(again), await complete(again, "7")]).toEqual([
      "authorization_expired",
      "authorization_expired",
    ]);
    expect(exchangesOf(connectionId)).toEqual([]);
    expect(await complete(await comeBack(browser, url))).toBe(connectionName);
    expect(exchangesOf(connectionId)).toHaveLength(1);
  });

  test("keeps its link to itself: a second tab's code is held neither, and is not exchanged", async () => {
    const { connectionId, connectionName } = await stage.connect();
    const { url } = await stage.createLink({ ...asked, connectionId });
    const browser = createTestBrowser(stage.app, publicUrl);
    const tabs = [await browser.press(url), await browser.press(url)].map(({ headers }) => String(headers["location"]));
    const callbacks: string[] = [];
    for (const tab of tabs) {
      const back = await browser.post(tab, { decision: "authorize" });
      callbacks.push(String(back.headers["location"]));
    }
    const [first = "", second = ""] = callbacks;
    const address = await browser.ticketOf(first);
    expect((await browser.get(second)).statusCode).toBe(410);
    expect(await complete(ticketOf(address))).toBe(connectionName);
    expect(exchangesOf(connectionId)).toHaveLength(1);
  });

  test("does not come to be where another browser is first at the callback: 403 there, and 403 in its own", async () => {
    const { connectionId } = await stage.connect();
    const { url } = await stage.createLink({ ...asked, connectionId });
    const [own, other] = [createTestBrowser(stage.app, publicUrl), createTestBrowser(stage.app, publicUrl)];
    const toProvider = await own.press(url);
    const back = await own.post(String(toProvider.headers["location"]), { decision: "authorize" });
    const callback = String(back.headers["location"]);
    expect((await other.get(callback)).body).toContain("This belongs to another browser");
    const stopped = await own.get(callback);
    expect([stopped.statusCode, stopped.body]).toEqual([403, expect.stringContaining("This attempt has been stopped")]);
    expect((await own.get(url)).statusCode).toBe(200);
  });

  test("of another account waits for a decision, and says so as often as it is asked; afterwards it says that it was decided", async () => {
    const { ticket, connectionId, connectionName } = await heldCode();
    const other = { attemptId: connectionId, account: "7", label: "bob" };
    stage.behaviour.held.set(other.attemptId, { ...other, connectionId, accepted: false });
    stage.behaviour.exchange = async () => ({ connectionName, held: other, endsSoon: false });
    expect([await complete(ticket), await complete(ticket)]).toEqual(["account_changed", "account_changed"]);
    stage.behaviour.held.delete(other.attemptId);
    expect(await complete(ticket)).toBe("conflict");
  });

  test("whose broker was killed in the exchange: who asks waits at first, and is told that it was interrupted later", async () => {
    const { ticket, connectionId } = await heldCode();
    await new Promise<void>((begun) => {
      stage.behaviour.exchange = async () => {
        begun();
        return await new Promise(() => {});
      };
      void complete(ticket);
    });
    stage.behaviour.hurries = true;
    expect(await complete(ticket)).toBe("conflict");
    await run(
      "UPDATE consent_attempts SET expires_at = expires_at - interval '151 seconds' WHERE link_id = (SELECT id FROM consent_links WHERE connection_id = $1::uuid) AND ticket IS NULL",
      connectionId,
    );
    const found = await stage.consent.completion.find(app, ticket);
    await expect(stage.consent.completion.complete(app, found, "42")).rejects.toThrow(/was stopped while/);
  });

  test.each([
    ["another ticket", "ticket_hash = decode(repeat('00', 32), 'hex')"],
    ["another connection", "connection_id = $2::uuid"],
    ["another link", "link_id = $3"],
    ["another browser", "browser_hash = decode(repeat('00', 32), 'hex')"],
    [
      "the seal of another",
      "request_sealed = (SELECT request_sealed FROM authorization_requests WHERE connection_id = $2::uuid)",
    ],
  ])("whose row somebody has given %s is unknown, and is not sent", async (_what, change) => {
    const [one, other] = [await heldCode(), await heldCode()];
    const values = [one.connectionId, other.connectionId, other.id].slice(0, change.includes("$3") ? 3 : 2);
    const used = change.includes("$3")
      ? "AND $2::uuid IS NOT NULL"
      : change.includes("$2")
        ? ""
        : "AND $2::uuid IS NOT NULL";
    await run(`UPDATE authorization_requests SET ${change} WHERE connection_id = $1::uuid ${used}`, ...values);
    expect(await complete(one.ticket)).toBe("not_found");
    expect([exchangesOf(one.connectionId), exchangesOf(other.connectionId)]).toEqual([[], []]);
  });

  test("that somebody makes a state again, by hand, is unknown to its callback", async () => {
    const { browser, callback, connectionId } = await heldCode();
    await run("UPDATE authorization_requests SET ticket_hash = NULL WHERE connection_id = $1::uuid", connectionId);
    expect((await browser.get(callback)).statusCode).toBe(400);
    expect(exchangesOf(connectionId)).toEqual([]);
  });
});

describe("an app's link", () => {
  test("whose end user somebody has changed, or taken away, is unknown", async () => {
    for (const endUser of ["7", null]) {
      const { connectionId } = await stage.connect();
      const { url } = await stage.createLink({ ...asked, connectionId });
      await run("UPDATE consent_links SET end_user = $1 WHERE connection_id = $2::uuid", endUser, connectionId);
      expect((await createTestBrowser(stage.app, publicUrl).get(url)).statusCode).toBe(404);
    }
  });

  test("is noted as what it is: the link, the hold by the person, and how it ended in the history", async () => {
    const before = stage.audit.entries.length;
    const { ticket, connectionId } = await heldCode();
    await complete(ticket, "7");
    const story = stage.audit.entries
      .slice(before)
      .map(({ action, detail, outcome }) => [action, detail, outcome?.result]);
    expect(story).toEqual([
      ["consents.begin", { binding: "app" }, "ok"],
      ["consents.hold", { binding: "app" }, "ok"],
    ]);
    expect(stage.events.findLast((event) => event.connectionId === connectionId)).toMatchObject({
      type: "consent_failed",
      detail: { error: "wrong_end_user" },
    });
  });
});

/** A plain link from before, and its browser: `begun` at the broker of then, `later` at that of now. */
async function fromBefore(given: { manual?: boolean } = {}) {
  const context = await stage.connect(given.manual ? { provider: "apicbase" } : {});
  const { connectionId } = context;
  strict.contexts.set(connectionId, context);
  const link = await stage.createLink({ connectionId, ...given });
  const begun = createTestBrowser(stage.app, publicUrl);
  const page = await begun.get(link.url);
  const later = createTestBrowser(strict.app, publicUrl);
  later.cookie = begun.cookie;
  return { ...link, ...context, begun, later, csrf: csrfOf(page.body) };
}

/** At the broker of then, up to the callback. */
async function callbackOf({ begun, url, csrf }: { begun: TestBrowser; url: string; csrf: string }): Promise<string> {
  const toProvider = await begun.post(url, { csrf });
  const back = await begun.post(String(toProvider.headers["location"]), { decision: "authorize" });
  return String(back.headers["location"]);
}

describe("with CONSENT_COMPLETION=app", () => {
  test("plain links, manual ones, and codes that are handed in are refused; an app's are not", async () => {
    const { connectionId } = await strict.connect();
    await expect(strict.createLink({ connectionId })).rejects.toMatchObject({ code: "grant_not_applicable" });
    const { connectionId: manual } = await strict.connect({ provider: "apicbase" });
    const refused = {
      code: "grant_not_applicable",
      message: expect.stringContaining("CONSENT_COMPLETION=app") as string,
    };
    await expect(strict.createLink({ connectionId: manual, manual: true })).rejects.toMatchObject(refused);
    await expect(strict.submitCode({ connectionId: manual, code: "x" })).rejects.toMatchObject(refused);
    const { address } = await heldCode({ of: strict });
    expect(address).toContain(`${shop}/connected?ticket=`);
  });

  test.each(["opened", "pressed", "pasted", "back"])(
    "a plain link from before is no longer accepted (%s): 410, and nothing is exchanged",
    async (step) => {
      const link = await fromBefore({ manual: step === "pasted" });
      const { later, url, csrf, connectionId } = link;
      const answer =
        step === "opened"
          ? await later.get(url)
          : step === "pressed"
            ? await later.post(url, { csrf })
            : step === "pasted"
              ? await later.post(url, { csrf, code: "one-minute-code" })
              : await later.get(await callbackOf(link));
      expect([answer.statusCode, answer.body]).toEqual([410, expect.stringContaining("no longer accepted")]);
      expect([...stage.exchanged, ...strict.exchanged].filter((each) => each.connectionId === connectionId)).toEqual(
        [],
      );
    },
  );

  test("the question about another account, from before, can only be answered with no", async () => {
    const link = await fromBefore();
    const { begun, later, connectionId, connectionName } = link;
    const held = { attemptId: connectionId, account: "7", label: "bob" };
    for (const { behaviour } of [stage, strict]) {
      behaviour.held.set(connectionId, { ...held, connectionId, accepted: false });
    }
    stage.behaviour.exchange = async () => ({ connectionName, held, endsSoon: false });
    const page = await begun.ticketOf(await callbackOf(link));
    const csrf = csrfOf((await begun.get(page)).body);
    expect((await later.post(page, { csrf, accept: "yes" })).statusCode).toBe(410);
    expect((await later.post(page, { csrf, accept: "no" })).statusCode).toBe(200);
  });
});

test("the MAC of a plain link has no end user in it: links from before there were any are as valid as they were", async () => {
  const { connectionId } = await stage.connect();
  const { url } = await stage.createLink({ connectionId });
  await proveByHand((sql, values) => stage.database.prisma.$queryRawUnsafe(sql, ...values), stage.vault);
  const row = { id: "l", connectionId, secretHash: new Uint8Array(2), returnTo: null, manual: false, purpose: null };
  const link = { ...row, createdBy: "k", expiresAt: new Date(0), claimedBy: null };
  const text = JSON.stringify([
    { id: "l", connectionId, returnTo: null, manual: false, purpose: null, createdBy: "k", expiresAt: new Date(0) },
    { secretHash: "0000", claimedBy: null },
  ]);
  expect(stage.sign("consent_links", text)).toBe(stage.vault.links.sign({ ...link, endUser: null }));
  expect((await createTestBrowser(stage.app, publicUrl).get(url)).statusCode).toBe(200);
});
