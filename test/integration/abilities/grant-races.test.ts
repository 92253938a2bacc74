import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { TokenBody } from "../../support/broker-api.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";
import { deep, user } from "./support/further-tokens.ts";
import { query } from "../../support/query.ts";

const patience = { timeout: 15_000, interval: 50 };
/** Longer than an idle process takes to stop. */
const slowAnswerMs = 1500;
/** The longest that a replica trusts a row. */
const trustMs = 4000;

function define(server: AbleProvider) {
  const after_connect = [server.lookup()];
  const device = { url: `${server.origin}/device` };
  return [
    server.definition("able", { after_connect, revocation: server.revocation("token") }),
    server.definition("able-many", { after_connect, response: { extra_tokens: [user, deep] } }),
    server.definition("able-device", { grants: ["device_code"], device }),
  ];
}

let stage: AbilityStage<AbleProvider>;
let server: AbleProvider;

const sql = async (text: string) => await query(stage.databaseUrl, text);
const decide = async (name: string, accept: boolean) =>
  await stage.api.api<{ account: string | null }>(`/connections/${name}/account`, { method: "POST", body: { accept } });
const statusOf = async (name: string) => (await stage.api.connection(name)).status;
const accountOf = ({ access_token }: TokenBody) => server.accountOf(access_token);
const currentRefreshToken = ({ access_token }: TokenBody) =>
  server.ledger.currentRefreshToken(server.ledger.familyOf(access_token) ?? "") ?? "";

/** A connection of ada's, and bob's grant that waits for a word. */
async function holdBobs(name: string): Promise<void> {
  await stage.connect(name, "able");
  server.account = "bob";
  const page = await stage.consent(name);
  server.account = "ada";
  expect(page.text).toContain("another account");
}

/** While `work` runs, Postgres takes its time with each new grant of this connection. */
async function whileStoringIsSlow<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  await sql(
    "CREATE FUNCTION slowly() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep(0.7); RETURN NEW; END $$ LANGUAGE plpgsql",
  );
  await sql(`CREATE TRIGGER slowly BEFORE UPDATE ON connections FOR EACH ROW
    WHEN (NEW.name = '${name}' AND NEW.authorization_seq <> OLD.authorization_seq) EXECUTE FUNCTION slowly()`);
  try {
    return await work();
  } finally {
    await sql("DROP FUNCTION slowly CASCADE");
  }
}

describeWithServices(["postgres", "redis"], "a grant and what happens at the same moment", () => {
  beforeAll(async () => {
    server = new AbleProvider();
    stage = await AbilityStage.start(server, define);
  });
  beforeEach(() => {
    server.account = "ada";
    server.givesUserToken = false;
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it("a no that comes while a yes is being stored is refused: what was accepted is served, refreshes, and was not revoked", async () => {
    await holdBobs("both");
    const held =
      "SELECT 1 FROM held_grants h JOIN connections c ON c.id = h.connection_id WHERE c.name = 'both' AND h.accepted";
    const [yes, no] = await whileStoringIsSlow("both", async () => {
      const accepting = decide("both", true);
      await expect.poll(() => sql(held), patience).toHaveLength(1);
      const declined = await decide("both", false);
      return [await accepting, declined] as const;
    });
    expect([yes.status, no.status]).toEqual([200, 404]);
    await expect.poll(async () => (await stage.api.connection("both"))["account"], patience).toBe("bob");
    expect(accountOf(await stage.token("both"))).toBe("bob");
    expect(server.revoked).toEqual([]);
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

  it("a yes whose process ended before the grant was stored is carried out by the next one that tidies up, and nothing is revoked", async () => {
    await holdBobs("unfinished");
    const earlier = server.revoked.length;
    const done = `UPDATE held_grants h SET accepted = true, created_at = h.created_at - interval '6 minutes'
      FROM connections c WHERE c.id = h.connection_id AND c.name = 'unfinished' RETURNING 1`;
    expect(await sql(done)).toHaveLength(1);
    await stage.first.kill();
    await stage.first.start(); // which begins with tidying
    await expect.poll(async () => (await stage.api.connection("unfinished"))["account"], patience).toBe("bob");
    await stage.api.refresh("unfinished");
    expect(accountOf(await stage.token("unfinished"))).toBe("bob");
    expect(server.revoked.slice(earlier)).toEqual([]);
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
    await expect.poll(further, { timeout: trustMs + 1000 }).toEqual(["authorization_pending", false, ""]);
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
    const { body } = await stage.api.api<{ user_code: string }>("/connections/coded/device", { method: "POST" });
    server.devices.answer(body.user_code, "approved");
    server.switches.answerDelayMs = slowAnswerMs;
    const code = server.devices.codeOf(body.user_code);
    const polls = () => server.ledger.requestsTo("token").filter(({ fields }) => fields["device_code"] === code);
    await expect.poll(() => polls().length, patience).toBe(1);
    // Not SIGTERM, after which a broker goes on for as long as a load balancer may not have seen it.
    expect(await stage.first.stop("SIGINT")).toBe(0);
    server.switches.answerDelayMs = 0;
    await stage.first.start();
    expect(await statusOf("coded")).toBe("connected");
    expect(accountOf(await stage.token("coded"))).toBe("ada");
    expect(polls()).toHaveLength(1);
  });
});
