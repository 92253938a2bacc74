import { createHmac, randomBytes } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { createAccountRows } from "../../../src/store/accounts.ts";
import { openPostgres } from "../../../src/store/database.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { patience } from "../../support/patience.ts";
import { query } from "../../support/query.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";

const fallbackSeconds = 3600;
const unwatched = { answered() {}, lost() {}, rowWasBusy() {}, losses: () => 0, uninterruptedMs: () => 0 };

function define(server: AbleProvider) {
  const shop = { param: "shop", pattern: "^[a-z0-9-]+\\.shops\\.example$" };
  return [
    server.definition("asked", {
      response: { expires: { from: "introspect", fallback: fallbackSeconds } },
      introspection: { url: `${server.origin}/introspect` },
    }),
    server.definition("signed", {
      authorization: { callback: { verify: "hmac_sha256_query", capture: { shop } } },
      token: { headers: { "x-shop": "{callback.shop}" } },
    }),
  ];
}

let stage: AbilityStage<AbleProvider>;
let server: AbleProvider;

const between = (from: number, to: number) => expect.toSatisfy((value: number) => value >= from && value <= to);

const isCallback = ({ pathname }: URL) => pathname.startsWith("/callback/");
const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000);

/** A person's browser that has agreed at the provider, and the callback that it was sent to. */
async function agree(name: string): Promise<{ browser: ScriptedBrowser; callback: URL }> {
  const browser = new ScriptedBrowser();
  const asked = await browser.submit(await browser.open((await stage.api.consentLink(name)).url));
  return { browser, callback: (await browser.submit(asked, { button: "Authorize", stopAt: isCallback })).url };
}

function sign(url: URL, changes: Record<string, string>, secret = server.client.secret): URL {
  const signed = new URL(url);
  for (const [name, value] of Object.entries(changes)) signed.searchParams.set(name, value);
  const message = [...signed.searchParams]
    .map(([name, value]) => `${name}=${value}`)
    .toSorted()
    .join("&");
  signed.searchParams.set("hmac", createHmac("sha256", secret).update(message).digest("hex"));
  return signed;
}

function change(url: URL, name: string, value: string | null): URL {
  const changed = new URL(url);
  if (value === null) changed.searchParams.delete(name);
  else changed.searchParams.set(name, value);
  return changed;
}

describeWithServices(["postgres", "redis"], "what a provider answers", () => {
  beforeAll(async () => {
    server = new AbleProvider();
    stage = await AbilityStage.start(server, define);
  });
  beforeEach(() => {
    server.namesLife = false;
    server.introspectedSeconds = 1800;
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it("the end of an opaque token is asked for: at the first connect, and after each refresh", async () => {
    await stage.connect("opaque", "asked");
    expect((await stage.token("opaque")).expires_in).toEqual(between(1700, 1801));
    server.introspectedSeconds = 900;
    await stage.api.refresh("opaque");
    await expect
      .poll(async () => (await stage.token("opaque", { rejected_version: 99 })).expires_in, patience)
      .toEqual(between(800, 901));
    const { fields } = server.ledger.requestsTo("introspect").at(-1) ?? {};
    expect(fields).toEqual({ token: (await stage.token("opaque")).access_token, token_type_hint: "access_token" });
  });

  it("the token is there before the answer to the question, with the fallback, and stays so when there is none", async () => {
    await stage.connect("unanswered", "asked");
    server.hangNext({ endpoint: "introspect" });
    await stage.api.refresh("unanswered");
    const held = await stage.token("unanswered", { rejected_version: 99 });
    expect([held.version, held.expires_in]).toEqual([2, between(3500, 3600)]);

    server.failNext({ endpoint: "introspect", status: 503, body: {} });
    await stage.connect("down", "asked");
    expect((await stage.token("down")).expires_in).toEqual(between(3500, 3600));
    server.introspectedSeconds = null; // the provider says that the token is not active
    await stage.api.refresh("down");
    await expect.poll(() => server.ledger.requestsTo("introspect").at(-1)?.status, patience).toBe(200);
    expect((await stage.token("down", { rejected_version: 99 })).expires_in).toEqual(between(3500, 3600));
  });

  it("an end that was asked for counts: the token is refreshed when it is over", async () => {
    await stage.connect("short", "asked");
    const { version } = await stage.token("short", { min_ttl: 0 });
    await stage.pass(1801, "short"); // with the fallback's lifetime, the token would still be good
    expect((await stage.token("short", { min_ttl: 0 })).version).toBe(version + 1);
  });

  it("an end that is learnt late moves the time at which the token is refreshed ahead", async () => {
    await stage.connect("early", "asked");
    await stage.token("early");
    const dueSeconds = async () => {
      const due = "extract(epoch FROM next_refresh_at - clock_timestamp())::int AS due, in_use, id::text, generation";
      type Row = { due: number; in_use: boolean; id: string; generation: number };
      const [row] = await query<Row>(stage.databaseUrl, `SELECT ${due} FROM connections WHERE name = 'early'`);
      return row;
    };
    await expect.poll(async () => (await dueSeconds())?.in_use, patience).toBe(true);
    const { id = "", generation = 0 } = (await dueSeconds()) ?? {};
    const database = await openPostgres(stage.databaseUrl, unwatched);
    const vault = createTokenVault(createKeyring([{ id: "k1", key: randomBytes(32) }])); // no row is signed in this test
    const ends = { expiresAt: inSeconds(400), refreshDueAt: inSeconds(300) };
    await createAccountRows(database, vault).learnExpiry({ id, generation }, ends);
    await database.close();
    expect((await dueSeconds())?.due).toEqual(between(200, 301));
  });

  it("a callback that is signed and fits connects, and what is taken from it is sent from then on", async () => {
    await stage.create("shop", "signed");
    const { browser, callback } = await agree("shop");
    const page = await browser.open(sign(callback, { shop: "acme.shops.example", timestamp: "1" }));
    expect(page.text).toMatch(/^Connected/);
    await stage.api.refresh("shop");
    const shops = server.ledger
      .requestsTo("token")
      .slice(-2)
      .map(({ headers }) => headers["x-shop"]);
    expect(shops).toEqual(["acme.shops.example", "acme.shops.example"]);
  });

  it("while the client's secret is rotated, a signature by either counts", async () => {
    const { id: client_id, secret } = server.client;
    await stage.api.createClient({ name: "rotated", provider: "signed", client_id, client_secret: secret });
    await stage.create("rotated", "signed", { client: "rotated" });
    const next = "next-secret-of-callbacks";
    await stage.api.changeClient("rotated", { client_secret: next });
    for (const by of [secret, next]) {
      const { browser, callback } = await agree("rotated");
      const page = await browser.open(sign(callback, { shop: "acme.shops.example" }, by));
      expect(page.text, by).toMatch(/^Connected/);
    }
  });

  it("a callback whose signature is wrong, lacking or another's is refused, and its code is not exchanged", async () => {
    await stage.create("tampered", "signed");
    const fits = { shop: "acme.shops.example" };
    const attempts: ((callback: URL) => URL)[] = [
      (callback) => change(sign(callback, fits), "shop", "evil.shops.example"),
      (callback) => change(sign(callback, fits), "code", server.copiedCode()),
      (callback) => change(sign(callback, fits), "extra", "1"),
      (callback) => change(sign(callback, fits), "hmac", null),
      (callback) => change(sign(callback, fits), "hmac", "0".repeat(64)),
      (callback) => change(sign(callback, fits), "hmac", "0g"),
      (callback) => sign(callback, fits, "another-secret"),
    ];
    const before = server.ledger.granted("authorization_code");
    for (const tamper of attempts) {
      const { browser, callback } = await agree("tampered");
      const page = await browser.open(tamper(callback));
      expect([page.status, page.text]).toEqual([502, expect.stringContaining("signature")]);
      // The signed callback does not count any more, either: its state has been used, and the page says how that ended.
      expect((await browser.open(sign(callback, fits))).status).toBe(502);
    }
    expect(server.ledger.granted("authorization_code")).toBe(before);
    const failed = (await stage.events("tampered")).filter(({ type }) => type === "consent_failed");
    expect(failed.map(({ detail }) => detail["error"])).toEqual(attempts.map(() => "invalid_signature"));
    expect((await stage.api.connection("tampered")).status).toBe("pending");
  });

  it("a captured domain that does not fit its pattern is refused, however well it is signed, and its code is not exchanged", async () => {
    await stage.create("foreign", "signed");
    for (const shop of [
      "evil.example",
      "acme.shops.example.evil.example",
      "acme.shops.example/x",
      "ACME.shops.example",
    ]) {
      const { browser, callback } = await agree("foreign");
      const page = await browser.open(sign(callback, { shop }));
      expect([page.status, page.text], shop).toEqual([502, expect.stringContaining("shop")]);
      const code = callback.searchParams.get("code");
      expect(page.html).not.toContain(code);
      expect(server.ledger.requestsTo("token").filter(({ fields }) => fields["code"] === code)).toEqual([]);
    }
    const failed = (await stage.events("foreign")).filter(({ type }) => type === "consent_failed");
    expect(new Set(failed.map(({ detail }) => detail["error"]))).toEqual(new Set(["unexpected_parameter"]));
  });
});
