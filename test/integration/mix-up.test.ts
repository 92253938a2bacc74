import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { ScriptedBrowser, type Page } from "../support/scripted-browser.ts";
import { describeWithServices, useDatabase, useRedis } from "../support/services/index.ts";
import { challengeOf, Issuer } from "./support/issuer.ts";

/**
 * Mix-up (RFC 9700, section 4.4): one definition, whose issuer an input of the client decides, with an honest and an evil issuer.
 * Somebody connects an account at the evil one. What must not get there: a code of an honest one, or the verifier of a challenge
 * that an honest one has seen. The variants, each by its line below:
 *
 * - 4.4.1, the basic attack: the evil server sends the browser on to the honest one, under the honest client's id
 * - the same with the honest client's redirect URI, and with a challenge of the evil server's own
 * - the same where both clients have one id, so that nothing has to be replaced
 * - metadata that lead astray ("malicious endpoints"): the honest authorize page, the honest token endpoint, the honest issuer's name
 * - answers that lie: the evil server's code under the honest issuer's name, and under nobody's
 * - "per-AS redirect URIs" that are not checked against the session: each flow's answer at the other one's redirect URI
 * - all that send an honest code, with the shared redirect URI of clients made before there were others
 * - one client of the two with a redirect URI of its own, the other one without
 *
 * The implicit grant's variant has no counterpart: the broker asks for codes alone. "Mix-up with interception" needs a browser that
 * reaches the broker without TLS, and then goes as the basic attack does.
 */
const honestId = "app-at-honest";
let broker: BrokerProcess;
let honest: Issuer;
/** Another honest issuer, which does not send `iss`. */
let silent: Issuer;
let evil: Issuer;

const ownUri = (client: string) => `${broker.publicUrl}/callback/tenants/${client}`;
const sharedUri = () => `${broker.publicUrl}/callback/tenants`;

/** A client at an issuer; `old`: made before there were redirect URIs of one client. */
async function addClient(
  name: string,
  at: Issuer,
  { clientId = at.clientId, old = false, tenant = "" }: { clientId?: string; old?: boolean; tenant?: string } = {},
) {
  const inputs = { issuer: `${at.origin}${tenant}` };
  const client_secret = `secret-of-${name}`;
  await broker.api.createClient({ name, provider: "tenants", client_id: clientId, client_secret, inputs });
  at.redirectUris.add(old ? sharedUri() : ownUri(name));
  if (old) await broker.api.changeClient(name, { own_redirect_uri: false });
}

/** Three clients of an evil issuer whose metadata nobody has read: with its own id, with the honest one's, and an old one. */
async function freshEvil(metadata: Record<string, unknown>): Promise<string[]> {
  const tenant = `/t-${randomUUID()}`;
  const names = ["own", "twin", "old"].map((kind) => `${kind}-${randomUUID()}`);
  const [own = "", twin = "", old = ""] = names;
  evil.metadata = metadata;
  await addClient(own, evil, { tenant });
  await addClient(twin, evil, { tenant, clientId: honestId });
  await addClient(old, evil, { tenant, old: true });
  return names;
}

/** A new connection of a client, and a person's browser at its link. */
async function connectionOf(client: string) {
  const name = `c-${randomUUID()}`;
  await broker.api.createConnection({ name, provider: "tenants", client });
  const { url } = await broker.api.consentLink(name);
  return { name, url };
}

/** The person presses "Continue"; the page at which all redirects end. */
async function press(url: string, browser = new ScriptedBrowser(), stopAt?: (url: URL) => boolean): Promise<Page> {
  const page = await browser.open(url);
  return page.forms.length === 0 ? page : await browser.submit(page, stopAt ? { stopAt } : {});
}

/** What the evil issuer has got that belongs to an honest one. */
function stolen(): string[] {
  const honestOnes = [honest, silent];
  const challenges = new Set(
    honestOnes.flatMap(({ seen }) => seen.map(({ fields }) => fields.get("code_challenge") ?? "none")),
  );
  return evil.seen.flatMap(({ fields }) => {
    const [code, verifier] = [fields.get("code") ?? "", fields.get("code_verifier") ?? ""];
    const isCode = honestOnes.some(({ codes }) => codes.has(code));
    return [...(isCode ? ["a code"] : []), ...(challenges.has(challengeOf(verifier)) ? ["a verifier"] : [])];
  });
}

const isCallback = (url: URL) => url.pathname.startsWith("/callback/");

async function shown(path: string): Promise<unknown> {
  return (await broker.api.api(path)).body["redirect_uri"];
}

async function status(name: string): Promise<unknown> {
  return (await broker.api.connection(name)).status;
}

/** A client of the evil issuer is asked to connect an account; nothing honest may come of it. */
async function attack(client: string): Promise<Page> {
  const { name, url } = await connectionOf(client);
  const page = await press(url);
  expect([stolen(), await status(name)]).toEqual([[], "pending"]);
  return page;
}

describeWithServices(["postgres", "redis"], "mix-up: of two issuers one is evil", () => {
  beforeAll(async () => {
    [honest, silent, evil] = await Promise.all([
      Issuer.start(honestId),
      Issuer.start("app-at-silent"),
      Issuer.start("app-at-evil"),
    ]);
    silent.namesItself = false;
    evil.namesItself = false; // it announces nothing, so that nothing is required of its answers
    const definition = {
      id: "tenants",
      extends: "oidc",
      name: "Tenants",
      issuer: "{inputs.issuer}",
      inputs: { issuer: { pattern: String.raw`^https?://127\.0\.0\.1:[0-9]+(/t-[a-z0-9-]+)?$` } },
    };
    broker = await startBroker({
      databaseUrl: await useDatabase(),
      redisUrl: await useRedis(),
      providersDir: await providersFolder({ definitions: () => [definition] }),
    });
    await addClient("honest", honest);
    await addClient("silent", silent);
    await addClient("evil", evil);
    await addClient("twin", evil, { clientId: honestId });
    await addClient("old-honest", honest, { old: true });
    await addClient("old-silent", silent, { old: true });
    await addClient("old-evil", evil, { old: true });
  });
  beforeEach(() => {
    for (const issuer of [honest, silent, evil]) issuer.startOver();
  });
  afterAll(async () => {
    await broker[Symbol.asyncDispose]();
    await Promise.all([honest, silent, evil].map((issuer) => issuer[Symbol.asyncDispose]()));
  });

  it("without an attack every client connects, old ones too, and each issuer gets its own codes", async () => {
    for (const client of ["honest", "silent", "evil", "twin", "old-honest", "old-silent", "old-evil"]) {
      if (client === "twin") continue; // its id is not the id of a client at its issuer
      const { name, url } = await connectionOf(client);
      const page = await press(url);
      expect([client, page.text.startsWith("Connected"), await status(name)]).toEqual([client, true, "connected"]);
    }
    const codes = evil.seen.filter(({ path }) => path === "/token").map(({ fields }) => fields.get("code") ?? "");
    expect(codes.length).toBe(2);
    expect(codes.every((code) => evil.codes.has(code))).toBe(true);
    expect(stolen()).toEqual([]);
  });

  it("says which redirect URI to register, of a provider and of each client", async () => {
    expect(await shown("/clients/honest")).toBe(ownUri("honest"));
    expect(await shown("/clients/old-honest")).toBe(sharedUri());
    expect(await shown("/providers/tenants")).toBe(`${sharedUri()}/{client}`);
  });

  it.each([
    ["under the honest client's id", () => ({ client_id: honestId })],
    ["with its redirect URI", () => ({ client_id: honestId, redirect_uri: ownUri("honest") })],
    [
      "with a challenge of the attacker's",
      () => ({ client_id: honestId, redirect_uri: ownUri("honest"), code_challenge: challengeOf("attacker") }),
    ],
    ["with the shared redirect URI", () => ({ client_id: honestId, redirect_uri: sharedUri() })],
  ])("the browser is sent on to the honest issuer (RFC 9700, 4.4.1), %s", async (_how, changes) => {
    for (const client of ["evil", "twin", "old-evil"]) {
      evil.misleads = (asked) => honest.authorizeUrl(asked, changes());
      const page = await attack(client);
      expect(page.status).toBeGreaterThanOrEqual(400);
      evil.misleads = (asked) => silent.authorizeUrl(asked, { ...changes(), client_id: silent.clientId });
      if (client !== "old-evil") await attack(client);
    }
  });

  it.each(["twin", "old-evil"])(
    "the browser is sent on with nothing replaced, since both have one client id: %s",
    async (client) => {
      if (client === "old-evil") await broker.api.changeClient(client, { client_id: honestId });
      evil.misleads = (asked) => honest.authorizeUrl(asked);
      await attack(client);
      if (client === "old-evil") await broker.api.changeClient(client, { client_id: evil.clientId });
    },
  );

  it("the evil metadata name the honest authorize page", async () => {
    for (const query of ["", `?client_id=${honestId}&redirect_uri=${encodeURIComponent(ownUri("honest"))}`]) {
      const clients = await freshEvil({ authorization_endpoint: `${honest.origin}/authorize${query}` });
      for (const client of clients) await attack(client);
    }
    expect(honest.seen.some(({ path }) => path === "/authorize")).toBe(true);
  });

  it("the evil metadata name the honest token endpoint: what goes there is the evil issuer's own", async () => {
    const [client = ""] = await freshEvil({ token_endpoint: `${honest.origin}/token` });
    expect((await attack(client)).status).toBe(502);
    const sent = honest.seen.filter(({ path }) => path === "/token").map(({ fields }) => fields.get("code") ?? "");
    expect(sent).toHaveLength(1);
    expect(sent.every((code) => evil.codes.has(code))).toBe(true);
  });

  it("the evil metadata claim the honest issuer's name: they are not believed, and nobody is sent anywhere", async () => {
    const [client = ""] = await freshEvil({ issuer: honest.origin });
    const name = `c-${randomUUID()}`;
    await broker.api.createConnection({ name, provider: "tenants", client });
    const link = await broker.api.api(`/connections/${name}/consent-links`, { method: "POST", body: {} });
    expect([link.status, link.body["code"], stolen()]).toEqual([503, "provider_unavailable", []]);
  });

  it("the evil issuer answers with its own code under the honest one's name, or under nobody's", async () => {
    const [client = ""] = await freshEvil({ authorization_response_iss_parameter_supported: true });
    for (const iss of [honest.origin, `${honest.origin}/`, "", null]) {
      evil.misleads = (asked) => {
        const answer = new URLSearchParams({ code: "evil-code", state: asked.get("state") ?? "" });
        if (iss !== null) answer.set("iss", iss);
        return `${asked.get("redirect_uri")}?${answer.toString()}`;
      };
      expect((await attack(client)).status).toBe(502);
      expect(evil.seen.filter(({ path }) => path === "/token")).toEqual([]);
    }
  });

  it("of two consents in one browser each one's answer is brought to the other one's redirect URI", async () => {
    const browser = new ScriptedBrowser();
    const [good, bad] = [await connectionOf("honest"), await connectionOf("evil")];
    const [ofGood, ofBad] = [await press(good.url, browser, isCallback), await press(bad.url, browser, isCallback)];
    for (const [answer, place] of [
      [ofGood.url, ownUri("evil")],
      [ofGood.url, sharedUri()],
      [ofBad.url, ownUri("honest")],
    ] as const) {
      const crossed = new URL(`${place}${answer.search}`);
      expect((await browser.open(crossed)).status).toBeGreaterThanOrEqual(400);
      crossed.searchParams.set("state", (answer === ofGood.url ? ofBad : ofGood).url.searchParams.get("state") ?? "");
      const page = await browser.open(crossed);
      expect([page.status >= 400, stolen()]).toEqual([true, []]);
    }
    expect([stolen(), await status(good.name), await status(bad.name)]).toEqual([[], "pending", "pending"]);
  });

  it("where only one of two clients has a redirect URI of its own, nothing goes astray at silent issuers either", async () => {
    evil.misleads = (asked) =>
      silent.authorizeUrl(asked, { client_id: silent.clientId, redirect_uri: ownUri("silent") });
    await attack("old-evil");
    evil.misleads = (asked) => silent.authorizeUrl(asked, { client_id: silent.clientId, redirect_uri: sharedUri() });
    await attack("evil");
  });

  it("what is left is two old clients and a silent issuer; a redirect URI of its own for either mends it", async () => {
    evil.misleads = (asked) => silent.authorizeUrl(asked, { client_id: silent.clientId });
    const { url } = await connectionOf("old-evil");
    await press(url);
    expect(stolen(), "if this is empty, docs/decisions/0020 promises too little").toEqual(["a code", "a verifier"]);

    evil.seen.length = 0;
    const changed = await broker.api.changeClient("old-evil", { own_redirect_uri: true });
    expect(changed).toMatchObject({ own_redirect_uri: true, redirect_uri: ownUri("old-evil") });
    await attack("old-evil");
    await broker.api.changeClient("old-evil", { own_redirect_uri: false });

    // Now the other client: its issuer does not know the shared address any more.
    silent.redirectUris.delete(sharedUri());
    await broker.api.changeClient("old-silent", { own_redirect_uri: true });
    silent.redirectUris.add(ownUri("old-silent"));
    await attack("old-evil");
    const { name, url: good } = await connectionOf("old-silent");
    await press(good);
    expect(await status(name)).toBe("connected");
  });
});
