import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { TokenBody } from "../../support/broker-api.ts";
import { patience } from "../../support/patience.ts";
import { query } from "../../support/query.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { proveByHand, vaultOf } from "../../support/prove-by-hand.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";
import { deep } from "./support/further-tokens.ts";

let server: AbleProvider;
let stage: AbilityStage<AbleProvider>;

/** Refresh tokens: `keeps` never replaces them, `rotates` replaces them each time, `may` does either, in `endless` they never expire. */
function define(able: AbleProvider) {
  const after_connect = [able.lookup()];
  const keeps = { rotation: "never", reuse: "safe" };
  return [
    able.definition("keeps", { after_connect, refresh: keeps, authorization: { manual_code: true } }),
    able.definition("keeps-unnamed", { refresh: keeps }),
    able.definition("may", { after_connect, refresh: { rotation: "auto", reuse: "safe" } }),
    able.definition("rotates", {}),
    able.definition("endless", { response: { expires: { from: "never" } } }),
    able.definition("exchanges", { response: { extra_tokens: [deep] } }),
    able.definition("by-device", { grants: ["device_code"], device: { url: `${able.origin}/device` } }),
  ];
}

const codesOf = ({ warnings }: TokenBody) => warnings.map(({ code }) => code);
const warningsOf = async (name: string) => codesOf(await stage.token(name));
const attentionOf = async (name: string) => (await stage.api.connection(name))["attention"];
const typesOf = async (name: string) => (await stage.events(name)).map(({ type }) => type);
const lacks = { code: "no_refresh_token", since: expect.any(String), detail: expect.any(String) };
const sql = async (text: string) => await query(stage.databaseUrl, text);

/** The refresh token that was sent last. */
const lastSent = () =>
  server.ledger.requestsTo("token").findLast(({ fields }) => fields["grant_type"] === "refresh_token")?.fields[
    "refresh_token"
  ];

/** A person connects once more, and the provider gives no refresh token. */
async function reconnectWithout(name: string, browser = new ScriptedBrowser()) {
  server.refreshToken = undefined;
  return await stage.consent(name, browser);
}

describeWithServices(["postgres", "redis"], "a connection without a refresh token", () => {
  beforeAll(async () => {
    server = new AbleProvider({ rotation: "fixed" });
    stage = await AbilityStage.start(server, define);
  });
  afterEach(() => {
    server.refreshToken = "given";
    server.account = "ada";
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it.each<[string, AbleProvider["refreshToken"]]>([
    ["no field", undefined],
    ["null", null],
    ["an empty one", ""],
  ])("says so at once, in the history, with the token, in its view and on the page: %s", async (how, value) => {
    const name = `at-once-${how.replaceAll(" ", "-")}`;
    server.refreshToken = value;
    await stage.create(name, "rotates");
    expect((await stage.consent(name)).text).toMatch(/Connected, but not for long.*must be connected again/s);
    expect((await typesOf(name)).slice(-2)).toEqual(["connected", "no_refresh_token"]);
    const { warnings } = await stage.token(name);
    expect(warnings).toEqual([{ code: "no_refresh_token", detail: expect.stringContaining("connect it again") }]);
    expect(await attentionOf(name)).toEqual(lacks);
  });

  it("says nothing where its token never ends", async () => {
    server.refreshToken = undefined;
    server.namesLife = false;
    await stage.create("for-ever", "endless");
    expect((await stage.consent("for-ever")).text).not.toContain("not for long");
    server.namesLife = true;
    expect([await warningsOf("for-ever"), await attentionOf("for-ever")]).toEqual([[], null]);
    expect(await typesOf("for-ever")).not.toContain("no_refresh_token");
  });

  it("is as good as any once a reconnect has brought one", async () => {
    server.refreshToken = undefined;
    await stage.connect("mended", "rotates");
    expect(await warningsOf("mended")).toEqual(["no_refresh_token"]);
    server.refreshToken = "given";
    expect((await stage.consent("mended")).text).not.toContain("not for long");
    expect([await warningsOf("mended"), await attentionOf("mended")]).toEqual([[], null]);
  });

  it("ends with its token, as it has said: then its status says that a person must act", async () => {
    server.refreshToken = undefined;
    await stage.connect("over", "rotates");
    await stage.pass(3601, "over");
    expect(await stage.api.token("over")).toMatchObject({ status: 409, body: { code: "needs_reauthorization" } });
    expect(await stage.api.connection("over")).toMatchObject({ status: "needs_reauthorization", attention: null });
  });

  it("was connected with a user code: page and view say so", async () => {
    server.refreshToken = undefined;
    await stage.create("coded", "by-device");
    const browser = new ScriptedBrowser();
    const { url } = await stage.api.consentLink("coded");
    await browser.submit(await browser.open(url));
    const [code = ""] = server.devices.userCodes();
    server.devices.answer(code, "approved");
    await expect.poll(async () => (await browser.open(url)).text, patience).toMatch(/^Connected, but not for long/);
    expect(await attentionOf("coded")).toEqual(lacks);
  });

  it("was imported so: the answer to the import says it, and what an earlier consent had brought is not kept", async () => {
    await stage.connect("handed", "keeps");
    const { accessToken } = server.issueTokenSet();
    await stage.api.importTokens("handed", { access_token: accessToken, expires_in: 3600 });
    expect(await attentionOf("handed")).toEqual(lacks);
    expect((await typesOf("handed")).slice(-3)).toContain("no_refresh_token");
    const { status, body } = await stage.api.api("/connections/handed/refresh", { method: "POST" });
    expect([status, body["code"]]).toEqual([409, "grant_not_applicable"]);
  });

  it("ends what is exchanged for its token as well, which says so too", async () => {
    server.refreshToken = undefined;
    await stage.connect("owner", "exchanges");
    const further = await stage.token("owner", { token: "deep" });
    expect(codesOf(further)).toEqual(["no_refresh_token"]);
    server.refreshToken = "given";
    await stage.connect("sound", "exchanges");
    expect(codesOf(await stage.token("sound", { token: "deep" }))).toEqual([]);
  });

  it("counts as such from the refresh on that brought no new one although each should, until one comes", async () => {
    await stage.connect("stopped", "rotates");
    server.refreshToken = undefined;
    await stage.api.refresh("stopped");
    expect(await warningsOf("stopped")).toEqual(["no_refresh_token"]);
    expect((await stage.events("stopped")).at(-1)).toMatchObject({ type: "no_refresh_token", detail: { kept: true } });
    await stage.api.refresh("stopped");
    expect((await typesOf("stopped")).filter((type) => type === "no_refresh_token")).toHaveLength(1);
    server.refreshToken = "given";
    await stage.api.refresh("stopped");
    expect([await warningsOf("stopped"), await attentionOf("stopped")]).toEqual([[], null]);
  });

  it("tells in its view which scopes were not granted, and since when", async () => {
    await stage.connect("narrow", "rotates", { scopes: ["read"] });
    expect(await stage.api.connection("narrow")).toMatchObject({ missing_scopes: [], attention: null });
    await stage.api.api("/connections/narrow", { method: "PATCH", body: { scopes: ["read", "write"] } });
    const told = { code: "missing_scopes", since: expect.any(String), detail: expect.stringContaining("write") };
    expect(await attentionOf("narrow")).toEqual(told);
    expect((await stage.token("narrow")).missing_scopes).toEqual(["write"]);
    await stage.api.api("/connections/narrow", { method: "PATCH", body: { scopes: ["read"] } });
    expect(await attentionOf("narrow")).toBeNull();
  });

  describe("after a reconnect", () => {
    it("of the same account goes on with the one from before, and warns until that one has worked", async () => {
      await stage.connect("kept", "keeps", { scopes: ["read"] });
      const before = await stage.token("kept");
      await stage.api.refresh("kept");
      const sent = lastSent();
      const page = await reconnectWithout("kept");
      expect(page.text).not.toContain("not for long");
      const after = await stage.token("kept");
      expect([after.access_token === before.access_token, codesOf(after)]).toEqual([false, ["no_refresh_token"]]);
      expect(await attentionOf("kept")).toEqual({ ...lacks, detail: expect.stringContaining("is kept and sent next") });
      expect((await stage.events("kept")).find(({ type }) => type === "no_refresh_token")?.detail).toEqual({
        kept: true,
      });

      await stage.api.refresh("kept");
      expect([typeof sent, lastSent()]).toEqual(["string", sent]);
      expect([await warningsOf("kept"), await attentionOf("kept")]).toEqual([[], null]);
      expect(await stage.api.connection("kept")).toMatchObject({ account: "ada", status: "connected" });
    });

    it("that was refused later, it has warned, and a person must act", async () => {
      await stage.connect("refused-later", "keeps");
      const before = await stage.token("refused-later");
      await reconnectWithout("refused-later");
      server.grants.killFamily(server.ledger.familyOf(before.access_token) ?? "");
      expect((await stage.api.api("/connections/refused-later/refresh", { method: "POST" })).status).toBe(409);
      const view = await stage.api.connection("refused-later");
      expect(view).toMatchObject({ status: "needs_reauthorization", last_error: { code: "invalid_grant" } });
    });

    it.each<{ where: string; name: string; provider?: string; change?: (name: string) => Promise<unknown> }>([
      { where: "where the definition does not say that refresh tokens stay", name: "not-kept-may", provider: "may" },
      { where: "where nobody knows whose it is", name: "not-kept-unnamed", provider: "keeps-unnamed" },
      {
        where: "whose former grant the provider has refused",
        name: "not-kept-refused",
        change: async (name) => {
          server.grants.killFamily(server.ledger.familyOf((await stage.token(name)).access_token) ?? "");
          await stage.api.api(`/connections/${name}/refresh`, { method: "POST" });
        },
      },
      {
        where: "whose former grant was given to another client id",
        name: "not-kept-client",
        change: async (name) => {
          const older = `UPDATE connections SET authorized_client_id = 'older' WHERE name = '${name}' RETURNING 1`;
          expect(await sql(older)).toHaveLength(1);
        },
      },
      {
        where: "that grants less than the former one",
        name: "not-kept-less",
        change: async (name) => await stage.api.api(`/connections/${name}`, { method: "PATCH", body: { scopes: [] } }),
      },
    ])("it is not kept: $where", async ({ name, provider = "keeps", change = async () => undefined }) => {
      await stage.connect(name, provider, { scopes: ["read"] });
      await change(name);
      const page = await reconnectWithout(name);
      expect(page.text).toContain("not for long");
      expect(await warningsOf(name)).toEqual(["no_refresh_token"]);
      const { status, body } = await stage.api.api(`/connections/${name}/refresh`, { method: "POST" });
      expect([status, body["code"]]).toEqual([409, "grant_not_applicable"]);
    });

    it("of the same account keeps it as well where the process that knew so ended before it was stored", async () => {
      await stage.connect("unfinished", "keeps");
      server.failNext({ endpoint: "whoami", status: 503, body: {} });
      expect((await reconnectWithout("unfinished")).text).toContain("Is that the same account?");
      const known = `UPDATE held_grants h SET account = 'ada', accepted = true, created_at = h.created_at - interval '6 minutes'
        FROM connections c WHERE c.id = h.connection_id AND c.name = 'unfinished' RETURNING 1`;
      expect(await sql(known)).toHaveLength(1);
      await proveByHand(
        (text, values) => query(stage.databaseUrl, text, values),
        vaultOf(stage.first.encryptionKeys ?? ""),
      );
      await stage.first.kill();
      await stage.first.start(); // a start deletes at once what is too old
      await expect.poll(() => attentionOf("unfinished"), patience).toEqual(lacks);
      await stage.api.refresh("unfinished");
      expect(await warningsOf("unfinished")).toEqual([]);
      // A slow database may store a token after a caller has got it.
      await expect.poll(() => attentionOf("unfinished"), patience).toBeNull();
    });

    it("it is not kept where a person has accepted another account, whose page says so", async () => {
      await stage.connect("other", "keeps");
      server.account = "bob";
      const browser = new ScriptedBrowser();
      const page = await reconnectWithout("other", browser);
      const done = await browser.submit(page, { button: /^Use/ });
      expect(done.text).toContain("not for long");
      expect(await stage.api.connection("other")).toMatchObject({ account: "bob", attention: lacks });
      const { body } = await stage.api.api("/connections/other/refresh", { method: "POST" });
      expect(body["code"]).toBe("grant_not_applicable");
    });
  });
});
