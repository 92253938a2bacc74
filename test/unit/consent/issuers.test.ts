import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { AuthorizationContext } from "../../../src/consent/links.ts";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { type ConsentStage, setConsentStage } from "../../support/consent-stage.ts";
import { createTestBrowser, type TestBrowser } from "./browser-client.ts";

const publicUrl = "http://localhost:8080";
const ours = "https://login.example/tenants/ours";
let stage: ConsentStage;
beforeAll(async () => void (stage = await setConsentStage({ publicUrl })));
afterAll(async () => await stage.close());

type Settings = Partial<NonNullable<ProviderDefinition["authorization"]>>;

/** A connection at the sandbox, whose definition says something else of its authorize page. */
async function connect(settings: Settings, changes: Partial<AuthorizationContext> = {}) {
  const known = stage.catalog.get("sandbox") as ProviderDefinition;
  const authorization = known.authorization && { ...known.authorization, ...settings };
  const context = await stage.connect({ definition: { ...known, authorization }, ...changes });
  const { connectionId } = context;
  const { url } = await stage.createLink({ connectionId });
  return { context, connectionId, url };
}

async function callbackOf(browser: TestBrowser, url: string, decision = "authorize"): Promise<URL> {
  const toProvider = await browser.press(url);
  const back = await browser.post(String(toProvider.headers["location"]), { decision });
  return new URL(String(back.headers["location"]));
}

async function answer(settings: Settings, change: (query: URLSearchParams) => void, decision = "authorize") {
  const { connectionId, url } = await connect(settings);
  const browser = createTestBrowser(stage.app, publicUrl);
  const callback = await callbackOf(browser, url, decision);
  const good = callback.href;
  callback.searchParams.delete("iss"); // whatever the sandbox says of itself
  change(callback.searchParams);
  const page = await browser.get(callback.href);
  const exchanged = () => stage.exchanged.filter((each) => each.connectionId === connectionId).length;
  const events = stage.events.filter(
    (each) => each.connectionId === connectionId && each.type !== "consent_link_created",
  );
  return { page, browser, good, exchanged, events, url };
}

const required: Settings = { issuer: ours, iss: "required" };

describe("the issuer of an answer (RFC 9207, section 2.4)", () => {
  test("is compared to the letter: another tenant of the same origin is refused, and its name not repeated", async () => {
    for (const iss of ["https://login.example/tenants/other-tenant", `${ours}/`, "https://login.example", ""]) {
      const { page, exchanged, events } = await answer({ issuer: ours }, (query) => query.set("iss", iss));
      expect([page.statusCode, exchanged()]).toEqual([502, 0]);
      expect(page.body).toContain("another issuer");
      expect(page.body).not.toContain("other-tenant");
      expect(events).toMatchObject([{ type: "consent_failed", detail: { error: "issuer_mismatch" } }]);
    }
    const right = await answer({ issuer: ours }, (query) => query.set("iss", ours));
    expect([right.page.statusCode, right.exchanged()]).toEqual([200, 1]);
  });

  test("is required where it is announced: a code without it is refused, and its state is over", async () => {
    const { page, exchanged, browser, good } = await answer(required, () => {});
    expect([page.statusCode, exchanged()]).toEqual([502, 0]);
    expect(page.body).toContain("does not name its issuer");
    expect((await browser.get(good)).statusCode).toBe(502); // the page of how it ended
    expect(exchanged()).toBe(0);
  });

  test("may be lacking where the definition says if_present, though it is announced", async () => {
    const { page, exchanged } = await answer({ issuer: ours, iss: "if_present" }, () => {});
    expect([page.statusCode, exchanged()]).toEqual([200, 1]);
  });

  test("an error without it, where it is required, is shown and leaves the state to the right answer", async () => {
    const { page, browser, good, exchanged } = await answer(required, (query) => {
      query.delete("code");
      query.set("error", "server_error");
      query.set("error_description", "out of order");
    });
    expect(page.statusCode).toBe(502);
    expect(page.body).toContain("server_error: out of order");
    const right = new URL(good);
    right.searchParams.set("iss", ours);
    expect((await browser.get(right.href)).statusCode).toBe(200);
    expect(exchanged()).toBe(1);
  });

  test("an error without it stands in the history once, however often it comes back; the answer that counts is added", async () => {
    const {
      browser,
      good,
      events: first,
    } = await answer(required, (query) => {
      query.delete("code");
      query.set("error", "server_error");
    });
    const connection = first[0]?.connectionId;
    const events = () =>
      stage.events.filter(({ connectionId }) => connectionId === connection).map(({ detail }) => detail);
    const wrong = new URL(good);
    for (const name of ["iss", "code"]) wrong.searchParams.delete(name);
    wrong.searchParams.set("error", "access_denied");
    for (let again = 0; again < 3; again++) expect((await browser.get(wrong.href)).statusCode).toBe(200);
    expect(events().slice(1)).toEqual([{ error: "issuer_missing", said: "server_error" }]);
    wrong.searchParams.set("iss", ours);
    expect((await browser.get(wrong.href)).statusCode).toBe(200);
    expect(events().slice(1)).toEqual([{ error: "issuer_missing", said: "server_error" }, {}]);
  });

  test("a denial without it likewise", async () => {
    const { page, browser, good } = await answer(required, (query) => {
      query.delete("code");
      query.set("error", "access_denied");
    });
    expect([page.statusCode, page.body.includes("Not connected")]).toEqual([200, true]);
    const right = new URL(good);
    right.searchParams.set("iss", ours);
    expect((await browser.get(right.href)).statusCode).toBe(200);
  });

  test("an error that names another issuer is shown as that alone, and ends the state: two servers have seen it", async () => {
    const { page, browser, good, exchanged } = await answer({ issuer: ours }, (query) => {
      query.delete("code");
      query.set("iss", "https://evil.example");
      query.set("error", "server_error");
      query.set("error_description", "call 555-0100");
    });
    expect([page.statusCode, page.body.includes("another issuer")]).toEqual([502, true]);
    expect(page.body).not.toMatch(/555-0100|server_error|evil\.example/);
    expect((await browser.get(good)).statusCode).toBe(502); // the page of how it ended
    expect(exchanged()).toBe(0);
  });

  test("is that of the beginning: what the definition or its metadata say later changes nothing", async () => {
    const { context, connectionId, url } = await connect(required);
    const browser = createTestBrowser(stage.app, publicUrl);
    const callback = await callbackOf(browser, url);
    const evil = "https://evil.example";
    const { definition } = context;
    const authorization = definition.authorization && {
      ...definition.authorization,
      issuer: evil,
      iss: "if_present" as const,
    };
    stage.contexts.set(connectionId, { ...context, definition: { ...definition, authorization } });
    callback.searchParams.set("iss", evil);
    expect((await browser.get(callback.href)).statusCode).toBe(502);
    expect(stage.exchanged.filter((each) => each.connectionId === connectionId)).toEqual([]);
  });
});

describe("a redirect URI of one client (RFC 9700, section 4.4.2.2)", () => {
  const own = `${publicUrl}/callback/sandbox/app-1`;

  test.each([
    [`${publicUrl}/callback/sandbox`, own],
    [`${publicUrl}/callback/sandbox/app-2`, own],
    [`${publicUrl}/callback/sandbox/app-1/`, own],
    [`${publicUrl}/callback/sandbox/APP-1`, own],
    [`${publicUrl}/callback/apicbase/app-1`, own],
    [own, `${publicUrl}/callback/sandbox`],
  ])("a callback at %s is not one at %s: it is refused, and the state waits on", async (wrong, redirectUri) => {
    const { connectionId, url } = await connect({}, { redirectUri: `${publicUrl}/callback/sandbox` });
    const context = stage.contexts.get(connectionId) as AuthorizationContext;
    const browser = createTestBrowser(stage.app, publicUrl);
    stage.contexts.set(connectionId, { ...context, redirectUri });
    const asked = new URL(String((await browser.press(url)).headers["location"]));
    expect(asked.searchParams.get("redirect_uri")).toBe(redirectUri);
    const query = `?code=the-code&state=${asked.searchParams.get("state")}`;
    const seen: unknown[] = [];
    stage.behaviour.exchange = async (given) => {
      seen.push(given.redirectUri);
      return { connectionName: context.connectionName, held: null, endsSoon: false };
    };
    const refused = await browser.get(`${wrong}${query}`);
    expect([refused.statusCode >= 400 && refused.statusCode < 500, seen]).toEqual([true, []]);
    const right = await browser.get(`${redirectUri}${query}`);
    stage.behaviour.exchange = null;
    expect([right.statusCode, seen]).toEqual([200, [redirectUri]]);
  });
});

describe("a code whose consent began under other settings", () => {
  const before = { provider: "sandbox", clientRef: "c-1", clientId: "sandbox", inputs: { domain: "a.example" } };
  test.each([
    ["another client", { ...before, clientRef: "c-2" }],
    ["another client id", { ...before, clientId: "other" }],
    ["another host", { ...before, inputs: { domain: "b.example" } }],
    ["an input less", { ...before, inputs: {} }],
  ])("is sent nowhere: %s", async (_what, destination) => {
    const { connectionId, url } = await connect({}, { destination: before });
    const browser = createTestBrowser(stage.app, publicUrl);
    const callback = await callbackOf(browser, url);
    const context = stage.contexts.get(connectionId) as AuthorizationContext;
    stage.contexts.set(connectionId, { ...context, destination });
    const page = await browser.get(callback.href);
    expect([page.statusCode, page.body.includes("changed meanwhile")]).toEqual([400, true]);
    expect(stage.exchanged.filter((each) => each.connectionId === connectionId)).toEqual([]);
    expect(stage.events).toContainEqual({
      connectionId,
      type: "consent_failed",
      detail: { error: "changed_meanwhile" },
    });
    stage.contexts.set(connectionId, { ...context, destination });
    expect((await browser.get((await callbackOf(browser, url)).href)).statusCode).toBe(200);
  });
});

describe("a request whose row was written by hand", () => {
  const changes: [string, string][] = [
    ["another connection", "connection_id = $2::uuid"],
    ["another link", "link_id = $3"],
    ["another browser", "browser_hash = decode(repeat('ab', 32), 'hex')"],
    [
      "another sealed request",
      "request_sealed = (SELECT request_sealed FROM authorization_requests WHERE connection_id = $2::uuid)",
    ],
    [
      "a flipped bit",
      "request_sealed = set_byte(request_sealed, length(request_sealed) - 1, get_byte(request_sealed, length(request_sealed) - 1) # 1)",
    ],
  ];
  test.each(changes)("counts for nothing: %s", async (_what, change) => {
    const [mine, other] = [await connect({}), await connect({})];
    const browser = createTestBrowser(stage.app, publicUrl);
    const [callback] = [await callbackOf(browser, mine.url), await callbackOf(browser, other.url)];
    const otherLink = await stage.database.prisma.consentLink.findFirstOrThrow({
      where: { connectionId: other.connectionId },
    });
    const used = [mine.connectionId, other.connectionId, otherLink.id];
    const count = 1 + Math.max(0, ...[...change.matchAll(/\$(\d)/g)].map(([, index]) => Number(index) - 1));
    const sql = `UPDATE authorization_requests SET ${change} WHERE connection_id = $1::uuid`;
    const params = change.includes("$3") ? [used[0], used[2]] : used.slice(0, count);
    expect(await stage.database.prisma.$executeRawUnsafe(sql.replace("$3", "$2"), ...params)).toBe(1);
    const page = await browser.get(callback.href);
    expect([400, 403]).toContain(page.statusCode);
    const ids = new Set([mine.connectionId, other.connectionId]);
    expect(stage.exchanged.filter((each) => ids.has(each.connectionId))).toEqual([]);
  });
});
