import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import { type ConsentStage, setConsentStage } from "../../support/consent-stage.ts";
import { createTestBrowser, csrfOf } from "./browser-client.ts";

const publicUrl = "http://localhost:8080";
let stage: ConsentStage;
/** How many entries the audit had before the test. */
let before = 0;

beforeAll(async () => {
  stage = await setConsentStage({ publicUrl });
});
beforeEach(() => {
  before = stage.audit.entries.length;
  Object.assign(stage.behaviour, { exchange: null });
  stage.audit.trouble = null;
});
afterAll(async () => await stage.close());

/** Action and result of each entry of this test, with whatever else of it is not the same for all. */
const entries = () => stage.audit.entries.slice(before);
const story = () => entries().map(({ action, outcome }) => [action, outcome?.result ?? "open"]);

/** A person who has opened a link and pressed its button. `back`: where the provider sends the browser to. */
async function sentAway(link: { manual?: boolean } = {}) {
  const { connectionId, connectionName } = await stage.connect(link.manual ? { provider: "apicbase" } : {});
  const { id, url } = await stage.createLink({ connectionId, ...link });
  const browser = createTestBrowser(stage.app, publicUrl);
  if (link.manual) return { browser, connectionId, connectionName, id, url, back: (_query: string) => "" };
  const answer = await browser.press(url);
  const state = new URL(String(answer.headers["location"])).searchParams.get("state") ?? "";
  const back = (query: string) => `/callback/sandbox?${query}&state=${state}`;
  return { browser, connectionId, connectionName, id, url, back };
}

/** An exchange that gives the connection's account, or another one. */
function exchangeGives({ connectionName }: { connectionName: string }, other: { attemptId: string } | null = null) {
  const held = other && { ...other, account: "42", label: "bob" };
  stage.behaviour.exchange = async () => ({ connectionName, held, endsSoon: false });
}

describe("what a person at a consent link leaves in the audit", () => {
  test("the link, who made it, the address, the connection; begun before the code is exchanged, ended before the page", async () => {
    const person = await sentAway();
    const during: unknown[] = [];
    stage.behaviour.exchange = async () => {
      during.push(story());
      return { connectionName: person.connectionName, held: null, endsSoon: false };
    };
    await person.browser.get(person.back("code=the-code"));
    expect(during).toEqual([
      [
        ["consents.begin", "ok"],
        ["consents.complete", "open"],
      ],
    ]);
    const common = {
      actor: { kind: "link", id: person.id, name: "tests" },
      target: { kind: "connection", name: person.connectionName },
      address: "127.0.0.1",
      detail: { binding: "weak" },
      mustNotFail: true,
    };
    expect(entries()).toEqual([
      { ...common, action: "consents.begin", outcome: { result: "ok" } },
      { ...common, action: "consents.complete", outcome: { result: "ok" } },
    ]);
  });

  test.each([
    ["a denial", "error=access_denied", "denied"],
    ["an error of the provider", "error=server_error", "provider_refused"],
  ])("%s is a result", async (_case, query, result) => {
    const { browser, back } = await sentAway();
    await browser.get(back(query));
    expect(story()).toEqual([
      ["consents.begin", "ok"],
      ["consents.complete", result],
    ]);
  });

  test.each([
    ["a refusal of the provider", new BrokerError("provider_rejected", "No."), "provider_refused"],
    ["a fault of the broker", new TypeError("a bug"), "internal_error"],
  ])("%s during the exchange is a result", async (_case, error, result) => {
    const { browser, back } = await sentAway();
    stage.behaviour.exchange = async () => {
      throw error;
    };
    await browser.get(back("code=the-code"));
    expect(story().at(-1)).toEqual(["consents.complete", result]);
  });

  test("what comes back twice stands there once", async () => {
    const person = await sentAway();
    exchangeGives(person);
    for (let time = 0; time < 3; time++) await person.browser.get(person.back("code=the-code"));
    expect(story()).toEqual([
      ["consents.begin", "ok"],
      ["consents.complete", "ok"],
    ]);
  });

  test("a code that was copied by hand, and what was pasted is not in it", async () => {
    const person = await sentAway({ manual: true });
    exchangeGives(person);
    await person.browser.press(person.url, { code: "code-by-hand" });
    expect(story()).toEqual([["consents.complete", "ok"]]);
    expect(JSON.stringify(entries())).not.toContain("code-by-hand");
  });

  test.each(["yes", "no"])("another account, and the decision on it: %s", async (accept) => {
    const person = await sentAway();
    const { connectionId, connectionName } = person;
    const other = { attemptId: randomUUID() };
    stage.behaviour.held.set(other.attemptId, { ...other, account: "42", label: "bob", connectionId, accepted: false });
    exchangeGives(person, other);
    const page = await person.browser.ticketOf(person.back("code=the-code"));
    const asked = await person.browser.get(page);
    await person.browser.post(page, { csrf: csrfOf(asked.body), accept });
    expect(story().slice(1)).toEqual([
      ["consents.complete", "other_account"],
      ["consents.account", "ok"],
    ]);
    expect(entries().at(-1)).toMatchObject({
      actor: { kind: "link", id: person.id, name: "tests" },
      target: { name: connectionName },
      detail: { accept: accept === "yes", binding: "weak" },
    });
  });

  test("unknown links and states, other browsers and old forms leave nothing", async () => {
    const { browser, url, back } = await sentAway();
    const after = entries().length;
    const stranger = createTestBrowser(stage.app, publicUrl);
    await browser.get("/callback/sandbox?code=x&state=made-up");
    await browser.get("/callback/sandbox?error=access_denied");
    await stranger.get(back("code=x"));
    await stranger.get(url);
    await stranger.post(url, { csrf: "x" });
    await browser.post(url, { csrf: "x" });
    await browser.post("/connect/0123456789abcdef-0123456789abcdef0123456789abcdef", { csrf: "x" });
    await browser.post("/connected/made-up", { csrf: "x", accept: "yes" });
    expect(entries().slice(after)).toEqual([]);
  });

  test("where neither disk nor database takes an entry, the code is exchanged all the same", async () => {
    const person = await sentAway();
    exchangeGives(person);
    stage.audit.trouble = new BrokerError("storage_unavailable", "Nothing takes it.");
    expect((await person.browser.get(person.back("code=the-code"))).body).toContain("<h1>Connected</h1>");
  });
});
