import { proveByHand, vaultOf } from "../../support/prove-by-hand.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { TokenBody } from "../../support/broker-api.ts";
import { patience } from "../../support/patience.ts";
import { query } from "../../support/query.ts";
import { type Page, ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { startAccountStage } from "./support/account-stage.ts";

/** Longer than an idle process takes to stop. */
const idleStopMs = 1500;

type Stage = Awaited<ReturnType<typeof startAccountStage>>;
let stage: Stage["stage"];
let server: Stage["server"];
let connectAda: Stage["connectAda"];
let reconnectAsBob: Stage["reconnectAsBob"];
let revokedOf: Stage["revokedOf"];

const sql = async (text: string) => await query(stage.databaseUrl, text);
const decide = async (name: string, accept: boolean) =>
  await stage.api.api<{ account: string | null }>(`/connections/${name}/account`, { method: "POST", body: { accept } });
const statusOf = async (name: string) => (await stage.api.connection(name)).status;
const accountOf = ({ access_token }: TokenBody) => server.accountOf(access_token);
const currentRefreshToken = ({ access_token }: TokenBody) =>
  server.ledger.currentRefreshToken(server.ledger.familyOf(access_token) ?? "") ?? "";

/** A connection of ada's, and a grant of bob's that waits to be confirmed. */
async function holdBobs(name: string): Promise<void> {
  await connectAda(name);
  expect((await reconnectAsBob(name)).text).toContain("another account");
}

/** While `work` runs, Postgres does not finish storing a new grant of this connection. */
async function whileStoringWaits<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  const holder = new Client({ connectionString: stage.databaseUrl });
  await holder.connect();
  await holder.query("SELECT pg_advisory_lock(1)");
  await sql(
    "CREATE FUNCTION hold() RETURNS trigger AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$ LANGUAGE plpgsql",
  );
  await sql(`CREATE TRIGGER hold BEFORE UPDATE ON connections FOR EACH ROW
    WHEN (NEW.name = '${name}' AND NEW.authorization_seq <> OLD.authorization_seq) EXECUTE FUNCTION hold()`);
  try {
    return await work();
  } finally {
    await holder.end();
    await sql("DROP FUNCTION hold CASCADE");
  }
}

const ofThem = "connection_id IN (SELECT id FROM connections WHERE name IN ('forgotten', 'accepted'))";

/** Two unconfirmed grants that are older than an hour. One was accepted, and its process did not get to deleting it. */
async function leaveForgotten(): Promise<void> {
  const columns = "attempt_id, connection_id, generation, record_sealed, mac";
  await holdBobs("forgotten");
  await connectAda("accepted");
  const other = new ScriptedBrowser();
  const page = await reconnectAsBob("accepted", other);
  await sql(`CREATE TABLE held_copy AS SELECT ${columns} FROM held_grants WHERE ${ofThem}`);
  expect((await other.submit(page, { button: /^Use/ })).text).toContain("Connected");
  await sql(`INSERT INTO held_grants (${columns}) SELECT ${columns} FROM held_copy ON CONFLICT DO NOTHING`);
  await sql("DROP TABLE held_copy");
  const age = `UPDATE held_grants SET created_at = created_at - interval '61 minutes' WHERE ${ofThem} RETURNING 1`;
  expect(await sql(age)).toHaveLength(2);
}

/** An unconfirmed grant that was accepted, and whose process ended before it was stored. */
async function leaveUnfinished(): Promise<void> {
  await holdBobs("unfinished");
  const done = `UPDATE held_grants h SET accepted = true, created_at = h.created_at - interval '6 minutes'
    FROM connections c WHERE c.id = h.connection_id AND c.name = 'unfinished' RETURNING 1`;
  expect(await sql(done)).toHaveLength(1);
  await proveByHand(
    (text, values) => query(stage.databaseUrl, text, values),
    vaultOf(stage.brokers[0]?.encryptionKeys ?? ""),
  );
}

describeWithServices(["postgres", "redis"], "a grant that is held, or meets another at the same moment", () => {
  beforeAll(async () => {
    ({ stage, server, connectAda, reconnectAsBob, revokedOf } = await startAccountStage());
  });
  beforeEach(() => {
    server.account = "ada";
    server.givesUserToken = false;
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
    const page = await reconnectAsBob("unknown", browser);
    expect(page.forms[0]?.buttons.map(({ label }) => label)).toEqual([
      "Keep ada at work",
      "Use the account I just signed in to from now on",
    ]);
    // The lookup still fails when the person answers.
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
    expect((await browser.submit(page, { button: /^Use/ })).status).toBe(410);
    expect((await stage.token("overtaken")).version).toBe(version);
  });

  it("a no that comes while a yes is being stored is refused: what was accepted is served, refreshes, and was not revoked", async () => {
    await holdBobs("both");
    const earlier = server.revoked.length;
    const held =
      "SELECT 1 FROM held_grants h JOIN connections c ON c.id = h.connection_id WHERE c.name = 'both' AND h.accepted";
    const { yes, no } = await whileStoringWaits("both", async () => {
      const accepting = decide("both", true);
      await expect.poll(() => sql(held), patience).toHaveLength(1);
      return { yes: accepting, no: await decide("both", false) };
    });
    expect([(await yes).status, no.status]).toEqual([200, 404]);
    await expect.poll(async () => (await stage.api.connection("both"))["account"], patience).toBe("bob");
    expect(accountOf(await stage.token("both"))).toBe("bob");
    expect(server.revoked.slice(earlier)).toEqual([]);
    await stage.api.refresh("both");
    expect(await stage.api.connection("both")).toMatchObject({ status: "connected", last_error: null });
  });

  it("a yes that comes after a no is refused, and the connection keeps what it had", async () => {
    await holdBobs("declined");
    const earlier = server.revoked.length;
    const [no, yes] = [await decide("declined", false), await decide("declined", true)];
    expect([no.status, yes.status]).toEqual([200, 404]);
    expect(server.revoked.slice(earlier).map((token) => server.accountOf(token))).toEqual(["bob"]);
    await stage.api.refresh("declined");
    expect(accountOf(await stage.token("declined"))).toBe("ada");
  });

  it("a declined grant that holds the very tokens that are in use is not revoked", async () => {
    await stage.connect("same", "able");
    const inUse = await stage.token("same");
    const refresh_token = currentRefreshToken(inUse);
    const body = { access_token: inUse.access_token, refresh_token, expires_in: 3600 };
    server.failNext({ status: 200, endpoint: "token", body });
    server.failNext({ status: 500, endpoint: "whoami", body: {} });
    expect((await stage.consent("same")).text).toContain("Is that the same account?");
    const earlier = server.revoked.length;
    expect((await decide("same", false)).status).toBe(200);
    expect(server.revoked.slice(earlier)).toEqual([]);
    await stage.api.refresh("same");
    expect(await statusOf("same")).toBe("connected");
  });

  it("with an imported set nothing of the account before is left: no name, no further token, none that was exchanged for", async () => {
    server.givesUserToken = true;
    await stage.connect("handed", "able-many");
    const before = await stage.token("handed", { token: "deep" });
    expect((await stage.token("handed", { token: "user" })).version).toBe(1);
    server.failNext({ status: 500, endpoint: "whoami", body: {} });
    const { accessToken, refreshToken } = server.issueTokenSet();
    const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 3600 };
    await stage.api.importTokens("handed", set);
    expect(await stage.api.connection("handed")).toMatchObject({ account: null, account_label: null });
    const further = async () => {
      const { body } = await stage.api.token("handed", { token: "user" });
      const exchanged = await stage.token("handed", { token: "deep" });
      return [body.code, exchanged.access_token === before.access_token, accountOf(exchanged)];
    };
    await expect.poll(further, patience).toEqual(["authorization_pending", false, ""]);
  });

  it("a further token that comes with a refresh is served beside it", async () => {
    await stage.connect("later", "able-many");
    expect((await stage.api.connection("later"))["tokens"]).toMatchObject({ user: { status: "pending" } });
    const authed_user = { access_token: "came along", expires_in: 3600 };
    const own = { access_token: "own", refresh_token: "own too", expires_in: 3600 };
    server.failNext({ status: 200, endpoint: "token", body: { ...own, authed_user } });
    await stage.api.refresh("later");
    expect((await stage.token("later")).access_token).toBe("own");
    expect((await stage.token("later", { token: "user" })).access_token).toBe("came along");
  });

  it("a person who has confirmed a user code is connected although the broker is told to stop before the provider has answered", async () => {
    await stage.create("coded", "able-device");
    const release = server.holdTokens();
    const { body } = await stage.api.api<{ user_code: string }>("/connections/coded/device", { method: "POST" });
    server.devices.answer(body.user_code, "approved");
    const code = server.devices.codeOf(body.user_code);
    const polls = () => server.ledger.requestsTo("token").filter(({ fields }) => fields["device_code"] === code);
    await expect.poll(() => polls().length, patience).toBe(1);
    // Not SIGTERM: after that a broker goes on for some seconds, so that a load balancer can notice.
    const stopping = stage.first.stop("SIGINT");
    await sleep(idleStopMs);
    release();
    expect(await stopping).toBe(0);
    await stage.first.start();
    expect(await statusOf("coded")).toBe("connected");
    expect(accountOf(await stage.token("coded"))).toBe("ada");
    expect(polls()).toHaveLength(1);
  });

  describe("through a kill and a start of the broker", () => {
    const browser = new ScriptedBrowser();
    let waiting: { before: TokenBody; page: Page };
    let bobsBefore: string[];
    let adasBefore: string[];

    beforeAll(async () => {
      server.account = "ada";
      waiting = { before: await connectAda("waiting"), page: await reconnectAsBob("waiting", browser) };
      await leaveForgotten();
      await leaveUnfinished();
      [bobsBefore, adasBefore] = [revokedOf("bob"), revokedOf("ada")];
      await stage.first.kill();
      await stage.first.start(); // a start deletes at once what is too old
    });

    it("a held grant waits", async () => {
      expect((await stage.token("waiting")).access_token).toBe(waiting.before.access_token);
      expect((await browser.submit(waiting.page, { button: /^Use/ })).text).toContain("Connected");
      expect(accountOf(await stage.token("waiting"))).toBe("bob");
    });

    it("one that nobody answers for is revoked after an hour; one that was used is not, even if its process ended on the way", async () => {
      await expect.poll(() => sql(`SELECT 1 FROM held_grants WHERE ${ofThem}`), patience).toEqual([]);
      await expect.poll(() => revokedOf("bob").length, patience).toBe(bobsBefore.length + 1);
      await stage.api.refresh("accepted");
      expect(accountOf(await stage.token("accepted"))).toBe("bob");
      expect(accountOf(await stage.token("forgotten"))).toBe("ada");
    });

    it("a yes whose process ended before the grant was stored is carried out by the next one that tidies up, and nothing else is revoked", async () => {
      await expect.poll(async () => (await stage.api.connection("unfinished"))["account"], patience).toBe("bob");
      await stage.api.refresh("unfinished");
      expect(accountOf(await stage.token("unfinished"))).toBe("bob");
      expect(revokedOf("bob")).toHaveLength(bobsBefore.length + 1);
      expect(revokedOf("ada").filter((token) => !adasBefore.includes(token))).toEqual([]);
    });
  });
});
