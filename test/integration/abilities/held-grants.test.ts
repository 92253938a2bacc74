import { afterAll, beforeAll, expect, it } from "vitest";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { patience, startAccountStage } from "./support/account-stage.ts";
import { query } from "../../support/query.ts";

/** How long a person waits for the name of the account. */
const lookupMs = 10_000;

type Stage = Awaited<ReturnType<typeof startAccountStage>>;
let stage: Stage["stage"];
let server: Stage["server"];
let connectAda: Stage["connectAda"];
let reconnectAsBob: Stage["reconnectAsBob"];
let revokedOf: Stage["revokedOf"];

describeWithServices(["postgres", "redis"], "a grant of another account", () => {
  beforeAll(async () => {
    ({ stage, server, connectAda, reconnectAsBob, revokedOf } = await startAccountStage());
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it("'keep' leaves the old grant, and the new one is revoked where that ends nothing else", async () => {
    for (const [provider, revoked] of [
      ["able", 1],
      ["able-all", 0],
    ] as const) {
      const name = `kept-${provider}`;
      const before = await connectAda(name, provider);
      const earlier = revokedOf("bob").length;
      const browser = new ScriptedBrowser();
      const page = await browser.submit(await reconnectAsBob(name, browser), { button: /^Keep/ });
      expect([page.status, page.text]).toEqual([200, expect.stringContaining("Nothing has changed")]);
      expect((await stage.token(name)).version).toBe(before.version);
      expect(revokedOf("bob")).toHaveLength(earlier + revoked);
      expect(revokedOf("ada")).toEqual([]);
      await stage.api.refresh(name);
      expect(server.accountOf((await stage.token(name)).access_token)).toBe("ada");
    }
  });

  it("with the lookup away at a reconnect the account is unknown, so the person is asked; the old account's address is not kept", async () => {
    await connectAda("unknown");
    server.hangNext({ endpoint: "whoami" });
    const browser = new ScriptedBrowser();
    const askedMs = Date.now();
    const page = await reconnectAsBob("unknown", browser);
    expect(Date.now() - askedMs).toBeLessThan(lookupMs + 5000);
    expect(page.forms[0]?.buttons.map(({ label }) => label)).toEqual([
      "Keep ada at work",
      "Use the account I just signed in to from now on",
    ]);
    // It is away still when the person answers.
    server.failNext({ endpoint: "whoami", status: 503, body: {} });
    expect((await browser.submit(page, { button: /^Use/ })).text).toContain("Connected");
    const after = await stage.token("unknown");
    expect(server.accountOf(after.access_token)).toBe("bob");
    expect(await stage.api.connection("unknown")).toMatchObject({ account: null, account_label: null });
    const request = await stage.api.api<{ request?: { base_url: string } }>("/tokens/unknown?include=request");
    expect(request.body.request?.base_url).not.toBe(`${server.origin}/api/t-ada`);
    await stage.api.refresh("unknown");
    await expect.poll(() => stage.api.connection("unknown"), patience).toMatchObject({ account: "bob" });
  });

  it("a held grant waits through a kill and a start of the broker", async () => {
    const before = await connectAda("waiting");
    const browser = new ScriptedBrowser();
    const page = await reconnectAsBob("waiting", browser);
    await stage.first.kill();
    await stage.first.start();
    expect((await stage.token("waiting")).access_token).toBe(before.access_token);
    expect((await browser.submit(page, { button: /^Use/ })).text).toContain("Connected");
    expect(server.accountOf((await stage.token("waiting")).access_token)).toBe("bob");
  });

  it("further tokens of another account are held with it: kept, all of them are revoked; used, all of them are served", async () => {
    server.givesUserToken = true;
    await connectAda("many", "able-two");
    const user = await stage.token("many", { token: "user" });
    const revoked = revokedOf("bob").length;
    const browser = new ScriptedBrowser();
    await browser.submit(await reconnectAsBob("many", browser), { button: /^Keep/ });
    expect((await stage.token("many", { token: "user" })).access_token).toBe(user.access_token);
    expect(revokedOf("bob")).toHaveLength(revoked + 2);

    const page = await reconnectAsBob("many", browser);
    expect((await stage.token("many", { token: "user" })).access_token).toBe(user.access_token);
    await browser.submit(page, { button: /^Use/ });
    expect(server.accountOf((await stage.token("many", { token: "user" })).access_token)).toBe("bob");
    server.givesUserToken = false;
  });

  it("another account without the further token does not leave the old account's behind", async () => {
    server.givesUserToken = true;
    await connectAda("fewer", "able-two");
    await stage.token("fewer", { token: "user" });
    server.givesUserToken = false;
    const browser = new ScriptedBrowser();
    await browser.submit(await reconnectAsBob("fewer", browser), { button: /^Use/ });
    expect(server.accountOf((await stage.token("fewer")).access_token)).toBe("bob");
    const { status, body } = await stage.api.token("fewer", { token: "user" });
    expect([status, body.code]).toEqual([409, "authorization_pending"]);
  });

  it("a connection that is deleted takes a grant that waits with it: both are revoked", async () => {
    await connectAda("dropped");
    await reconnectAsBob("dropped");
    const revoked = ["ada", "bob"].map((account) => revokedOf(account).length);
    await stage.api.deleteConnection("dropped");
    await expect
      .poll(() => ["ada", "bob"].map((account) => revokedOf(account).length), patience)
      .toEqual(revoked.map((count) => count + 1));
  });

  it("a grant that nobody answers for is revoked after an hour; one that was used is not, even if its process ended on the way", async () => {
    const ofThem = "connection_id IN (SELECT id FROM connections WHERE name IN ('forgotten', 'accepted'))";
    const columns = "attempt_id, connection_id, generation, record_sealed";
    await connectAda("forgotten");
    await reconnectAsBob("forgotten");
    await connectAda("accepted");
    const browser = new ScriptedBrowser();
    const page = await reconnectAsBob("accepted", browser);
    const sql = async (text: string) => await query(stage.databaseUrl, text);
    await sql(`CREATE TABLE held_copy AS SELECT ${columns} FROM held_grants WHERE ${ofThem}`);
    expect((await browser.submit(page, { button: /^Use/ })).text).toContain("Connected");
    // As if the process had not come to dropping what it had accepted.
    await sql(`INSERT INTO held_grants (${columns}) SELECT ${columns} FROM held_copy ON CONFLICT DO NOTHING`);
    await sql("DROP TABLE held_copy");
    const age = `UPDATE held_grants SET created_at = created_at - interval '61 minutes' WHERE ${ofThem} RETURNING 1`;
    expect(await sql(age)).toHaveLength(2);
    const earlier = revokedOf("bob").length;
    await stage.first.kill();
    await stage.first.start(); // which begins with tidying
    await expect.poll(() => sql(`SELECT 1 FROM held_grants WHERE ${ofThem}`), patience).toEqual([]);
    await expect.poll(() => revokedOf("bob").length, patience).toBe(earlier + 1);
    await stage.api.refresh("accepted");
    expect(server.accountOf((await stage.token("accepted")).access_token)).toBe("bob");
    expect(server.accountOf((await stage.token("forgotten")).access_token)).toBe("ada");
  });

  it("a held grant that a newer reconnect has overtaken cannot be accepted any more", async () => {
    await connectAda("overtaken");
    const browser = new ScriptedBrowser();
    const page = await reconnectAsBob("overtaken", browser);
    await stage.consent("overtaken");
    const { version } = await stage.token("overtaken");
    const { status } = await stage.api.api("/connections/overtaken/account", {
      method: "POST",
      body: { accept: true },
    });
    expect(status).toBe(404);
    expect((await browser.submit(page, { button: /^Use/ })).status).toBe(403);
    expect((await stage.token("overtaken")).version).toBe(version);
  });
});
