import { randomUUID } from "node:crypto";
import { request } from "undici";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { ScriptedBrowser, type Page } from "../support/scripted-browser.ts";
import { describeWithServices, useDatabase, useRedis } from "../support/services/index.ts";
import { walkConsent } from "../support/walk-consent.ts";
import { Issuer } from "./support/issuer.ts";

let broker: BrokerProcess;
let issuer: Issuer;
const providers = ["signed", "signed-without-pkce", "shown", "shown-to-ops", "wants-uri"] as const;
type ProviderId = (typeof providers)[number];

async function create(provider: ProviderId): Promise<string> {
  const name = `c-${randomUUID()}`;
  await broker.api.createConnection({ name, provider, client: provider });
  return name;
}

async function consent(name: string): Promise<Page> {
  return await walkConsent((await broker.api.consentLink(name)).url);
}

async function eventsOf(name: string) {
  const { body } = await broker.api.api<{ items: { type: string; detail: unknown }[] }>(`/connections/${name}/events`);
  return body.items.filter(({ type }) => type.startsWith("id_token") || type.startsWith("consent_failed"));
}

/** Newest first: how the consent ended, and why. */
const refusedFor = (detail: object) => [
  expect.objectContaining({ type: "consent_failed", detail: { error: "provider_refused" } }),
  expect.objectContaining({ type: "id_token_refused", detail }),
];

/** Opens a manual link and follows the address that its page shows: to paste, the address that it leads to. */
async function copy(name: string) {
  const { url } = await broker.api.consentLink(name, { manual: true });
  const browser = new ScriptedBrowser();
  const page = await browser.open(url);
  const href = /href="([^"]*\/authorize\?[^"]*)"/.exec(page.html)?.[1]?.replaceAll("&amp;", "&") ?? "";
  const answer = await request(href);
  await answer.body.dump();
  const address = new URL(String(answer.headers["location"]));
  return { page, address, paste: async (code: string) => await browser.submit(page, { fields: { code } }) };
}

function changed(address: URL, change: (query: URLSearchParams) => void): string {
  const other = new URL(address);
  change(other.searchParams);
  return other.href;
}

const isUnused = () => issuer.seenAt("/token").length === 0;
const nonceOf = (asked: URLSearchParams) => ({ nonce: asked.get("nonce") });

describeWithServices(["postgres", "redis"], "what a consent binds", () => {
  beforeAll(async () => {
    issuer = await Issuer.start("app-1");
    const { origin } = issuer;
    const shown = { manual_code: true, manual_redirect_uri: `${origin}/shows` };
    const own = { extends: "oidc", issuer: origin };
    const definitions = [
      { ...own, id: "signed", revocation: { kills: "token" } },
      { ...own, id: "signed-without-pkce", authorization: { pkce: "off" }, revocation: { kills: "token" } },
      { ...own, id: "shown", authorization: { ...shown, iss: "required" } },
      { ...own, id: "shown-to-ops", authorization: { ...shown, pkce: "optional" } },
      {
        ...own,
        id: "wants-uri",
        authorization: { scope: { default: ["openid"] } },
        token: {
          grants: { refresh_token: { fields: { refresh_token: "{refresh_token}", redirect_uri: "{redirect_uri}" } } },
        },
      },
    ];
    broker = await startBroker({
      databaseUrl: await useDatabase(),
      redisUrl: await useRedis(),
      providersDir: await providersFolder({ definitions: () => definitions }),
    });
    issuer.redirectUris.add(`${origin}/shows`);
    for (const id of providers) {
      issuer.redirectUris.add(broker.redirectUri(id)).add(`${broker.redirectUri(id)}/${id}`);
      await broker.api.createClient({ name: id, provider: id, client_id: issuer.clientId, client_secret: "s3cret" });
    }
  });
  beforeEach(() => issuer.startOver());
  afterAll(async () => {
    await broker[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
  });

  describe("a nonce", () => {
    it("is a fresh one for each consent that asks for openid, and an id_token that repeats it connects", async () => {
      issuer.idToken = nonceOf;
      const names = [await create("signed"), await create("signed-without-pkce"), await create("signed")];
      for (const name of names) expect((await consent(name)).text).toMatch(/^Connected/);
      const nonces = issuer.seenAt("/authorize").map((asked) => asked.get("nonce") ?? "");
      expect(new Set(nonces).size).toBe(3);
      for (const nonce of nonces) expect(nonce).toMatch(/^[A-Za-z0-9_-]{43}$/);
      expect(await eventsOf(names[0] ?? "")).toEqual([]);
    });

    it("goes with prompt=consent where offline_access is asked for (OpenID Connect Core, section 11), and only there", async () => {
      await consent(await create("signed"));
      await consent(await create("wants-uri"));
      const [offline, online] = issuer.seenAt("/authorize");
      expect([offline?.get("scope"), offline?.get("prompt")]).toEqual(["openid offline_access", "consent"]);
      expect([online?.get("scope"), online?.get("prompt")]).toEqual(["openid", null]);
    });

    it.each([
      ["another nonce", { nonce: "of-another-sign-in" }, { claim: "nonce" }],
      ["another issuer", { iss: "https://evil.example" }, { claim: "iss" }],
      ["another client", { aud: "app-2" }, { claim: "aud" }],
    ])(
      "an id_token with %s is refused: nothing is kept, what was there stays, the new grant is revoked",
      async (_what, claims, detail) => {
        issuer.idToken = nonceOf;
        const name = await create("signed");
        await consent(name);
        const before = (await broker.api.token(name)).body;
        issuer.idToken = (asked) => ({ ...nonceOf(asked), ...claims });
        const page = await consent(name);
        expect([page.status, page.text]).toEqual([502, expect.stringContaining("another sign-in")]);
        const after = (await broker.api.token(name)).body;
        expect([after.access_token, after.version]).toEqual([before.access_token, before.version]);
        const revoked = issuer.seenAt("/revoke").map((fields) => fields.get("token"));
        expect([revoked.length, revoked.includes(before.access_token)]).toEqual([2, false]);
        expect(await eventsOf(name)).toEqual(refusedFor(detail));

        const fresh = await create("signed");
        expect((await consent(fresh)).status).toBe(502);
        expect((await broker.api.connection(fresh)).status).toBe("pending");
      },
    );

    it.each([
      ["no nonce", () => ({}), "no_nonce"],
      ["what cannot be read", () => "encrypted.to.some.body.else", "unreadable"],
    ])(
      "an id_token with %s is stored and told where PKCE binds the code, and refused where nothing does",
      async (_what, idToken, reason) => {
        issuer.idToken = idToken;
        const [bound, unbound] = [await create("signed"), await create("signed-without-pkce")];
        expect((await consent(bound)).text).toMatch(/^Connected/);
        expect(await eventsOf(bound)).toEqual([
          expect.objectContaining({ type: "id_token_unchecked", detail: { reason } }),
        ]);
        expect((await consent(unbound)).status).toBe(502);
        expect((await broker.api.connection(unbound)).status).toBe("pending");
        expect(await eventsOf(unbound)).toEqual(refusedFor({ reason }));
      },
    );
  });

  it("a grant is refreshed with the redirect URI that it was got with, whatever the client's is by now", async () => {
    const [old, anew] = [await create("wants-uri"), await create("wants-uri")];
    await consent(old);
    await broker.api.changeClient("wants-uri", { own_redirect_uri: true });
    await consent(anew);
    for (const name of [old, anew, old, anew]) await broker.api.refresh(name);
    await broker.api.importTokens(await create("wants-uri"), { refresh_token: "by hand", verify: true });
    const sent = issuer.seenAt("/token").filter((fields) => fields.get("grant_type") === "refresh_token");
    const [shared, own] = [broker.redirectUri("wants-uri"), `${broker.redirectUri("wants-uri")}/wants-uri`];
    expect(sent.map((fields) => fields.get("redirect_uri"))).toEqual([shared, own, shared, own, shared]);
    await broker.api.changeClient("wants-uri", { own_redirect_uri: false });
  });

  describe("an address that is pasted", () => {
    it("connects as it came, by the page; a code alone does so, too", async () => {
      issuer.idToken = (asked) => ({ nonce: asked.get("nonce") });
      for (const pick of [(address: URL) => address.href, ({ searchParams }: URL) => searchParams.get("code") ?? ""]) {
        const name = await create("shown");
        const { address, paste } = await copy(name);
        expect((await paste(pick(address))).text).toMatch(/^Connected/);
        expect(await eventsOf(name)).toEqual([]);
      }
    });

    it("with a nonce of another page in the id_token is refused", async () => {
      issuer.idToken = () => ({ nonce: "of-another-page" });
      const { address, paste } = await copy(await create("shown"));
      expect((await paste(address.href)).status).toBe(502);
    });

    it.each<[string, (query: URLSearchParams) => void, [number, string]]>([
      ["another state", (query: URLSearchParams) => query.set("state", "another"), [400, "another sign-in"]],
      ["a state twice", (query: URLSearchParams) => query.append("state", "another"), [400, "more than once"]],
      ["another issuer", (query: URLSearchParams) => query.set("iss", "https://evil.example"), [502, "another issuer"]],
      ["no issuer where one must be named", (query: URLSearchParams) => query.delete("iss"), [502, "does not name"]],
      ["no code", (query: URLSearchParams) => query.delete("code"), [400, "code must be"]],
    ])("with %s is refused in words, and its code sent nowhere", async (_what, change, [status, words]) => {
      const name = await create("shown");
      const { address, paste } = await copy(name);
      const page = await paste(changed(address, change));
      expect([page.status, page.text]).toEqual([status, expect.stringContaining(words)]);
      expect([isUnused(), (await broker.api.connection(name)).status]).toEqual([true, "pending"]);
      expect((await paste(address.href)).text).toMatch(/^Connected/);
    });

    it("of another page than the one that shows codes is refused, naming that one", async () => {
      const { address, paste } = await copy(await create("shown"));
      for (const place of ["https://evil.example/shows", `${issuer.origin}/elsewhere`, broker.redirectUri("shown")]) {
        const page = await paste(`${place}${address.search}`);
        expect([page.status, page.text]).toEqual([400, expect.stringContaining(`${issuer.origin}/shows`)]);
      }
      expect(isUnused()).toBe(true);
    });

    it("of another link's page is refused", async () => {
      const [one, two] = [await copy(await create("shown")), await copy(await create("shown"))];
      expect((await one.paste(two.address.href)).status).toBe(400);
      expect(isUnused()).toBe(true);
    });

    it("with an error says what happened, and the link stays usable", async () => {
      const { address, paste } = await copy(await create("shown"));
      const failed = await paste(
        changed(address, (query) => {
          query.delete("code");
          query.set("error", "invalid_scope");
          query.set("error_description", "no such scope");
        }),
      );
      expect([failed.status, failed.text]).toEqual([502, expect.stringContaining("invalid_scope: no such scope")]);
      const denied = await paste(
        changed(address, (query) => {
          query.delete("code");
          query.set("error", "access_denied");
        }),
      );
      expect([denied.status, denied.text]).toEqual([200, expect.stringMatching(/^Not connected/)]);
      expect((await paste(address.href)).text).toMatch(/^Connected/);
    });

    it.each<[string, string, [number, string]]>([
      ["a state, which only its page can check", "?code=c-1&state=any", [400, "paste it there"]],
      ["another issuer", "?code=c-1&iss=https%3A%2F%2Fevil.example", [422, "another issuer"]],
      ["an error", "?error=access_denied", [422, "denied"]],
      ["an error in words", "?error=invalid_scope&error_description=no+such", [422, "invalid_scope: no such"]],
      ["no code", "?x=1", [400, "code must be"]],
    ])("that ops hand over counts the same: %s", async (_what, query, [status, words]) => {
      const name = await create("shown-to-ops");
      const body = { code: `${issuer.origin}/shows${query}` };
      const answer = await broker.api.api(`/connections/${name}/code`, { method: "POST", body });
      expect([answer.status, answer.body["detail"]]).toEqual([status, expect.stringContaining(words)]);
      expect(isUnused()).toBe(true);
    });

    it("that ops hand over with a code and the right issuer, or the code alone, connects", async () => {
      for (const form of ["address", "code"]) {
        const asked = { client_id: issuer.clientId, redirect_uri: `${issuer.origin}/shows`, response_type: "code" };
        const answer = await request(issuer.authorizeUrl(new URLSearchParams(asked)));
        await answer.body.dump();
        const address = new URL(String(answer.headers["location"]));
        address.searchParams.delete("state");
        const name = await create("shown-to-ops");
        await broker.api.submitCode(name, form === "address" ? address.href : (address.searchParams.get("code") ?? ""));
        expect((await broker.api.connection(name)).status).toBe("connected");
      }
    });
  });
});
