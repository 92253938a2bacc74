import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { TokenBody } from "../../support/broker-api.ts";
import { patience } from "../../support/patience.ts";
import { overrideFiles } from "../../support/providers/definition-files.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";
import { deep, user } from "./support/further-tokens.ts";
import { query } from "../../support/query.ts";

const callersPerReplica = 50;
const lifeSeconds = 3600;

function define(server: AbleProvider) {
  return [
    server.definition("able", {}),
    server.definition("able-user", {
      response: { extra_tokens: [user] },
      revocation: server.revocation("token"),
    }),
    server.definition("able-less", { response: { extra_tokens: [user] } }),
    server.definition("able-deep", { response: { extra_tokens: [deep] } }),
  ];
}

let stage: AbilityStage<AbleProvider>;
let server: AbleProvider;

/** `callersPerReplica` callers read at each replica at once. Returns the one token that all of them got. */
async function crowd(name: string, wish: Record<string, string | number>): Promise<TokenBody> {
  const callers = stage.brokers.flatMap((broker) => Array.from({ length: callersPerReplica }, () => broker));
  const replies = await Promise.all(callers.map(({ api }) => api.token(name, { wait: 30, ...wish })));
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]));
  const got = new Map(replies.map(({ body }) => [`${body.version} ${body.access_token}`, body]));
  const told = [...got.values()].map(({ version, warnings, expires_in }) => ({ version, warnings, expires_in }));
  expect(got.size, JSON.stringify(told)).toBe(1);
  return replies[0]?.body as TokenBody;
}

const familyOf = ({ access_token }: TokenBody) => server.ledger.familyOf(access_token) ?? "";
const exchanges = () =>
  server.ledger.requestsTo("token").filter(({ fields }) => fields["grant_type"]?.endsWith(":token-exchange"));

describeWithServices(["postgres", "redis"], "further tokens of a connection", () => {
  beforeAll(async () => {
    server = new AbleProvider();
    stage = await AbilityStage.start(server, define, { replicas: 2 });
  });
  beforeEach(() => {
    server.givesUserToken = true;
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it("both tokens of one answer are read by name, shown in the connection's view, and are one entry of the list", async () => {
    await stage.connect("both", "able-user");
    const own = await stage.token("both");
    const further = await stage.token("both", { token: "user" });
    expect(further).toMatchObject({ connection: "both", token: "user", version: 1 });
    expect(own).not.toHaveProperty("token");
    expect(server.ledger.granted("authed_user", familyOf(further))).toBe(1);
    expect(familyOf(own)).not.toBe(familyOf(further));

    const view = await stage.api.connection("both");
    expect(view["tokens"]).toMatchObject({ user: { status: "connected", version: 1, last_error: null } });
    const { body } = await stage.api.api<{ items: { name: string }[] }>("/connections?limit=100");
    expect(body.items.map(({ name }) => name).filter((name) => name.startsWith("both"))).toEqual(["both"]);
    for (const path of ["/connections/both%23user", "/tokens/both%23user"]) {
      expect((await stage.api.api(path)).status, path).toBe(404);
    }
  });

  it("a name that the provider does not give is a 400 naming those that it gives, and one it has not given yet a 409", async () => {
    await stage.connect("known", "able-user");
    const unknown = await stage.api.token("known", { token: "boss" });
    expect([unknown.status, unknown.body.code]).toEqual([400, "invalid_request"]);
    expect(unknown.body.detail).toMatch(/"boss".*user/);
    const malformed = await stage.api.token("known", { token: "no#name" });
    expect(malformed.status).toBe(400);
    expect((await stage.api.token("nobody", { token: "user" })).status).toBe(404);

    server.givesUserToken = false;
    await stage.connect("without", "able-user");
    expect((await stage.token("without")).version).toBe(1);
    const absent = await stage.api.token("without", { token: "user" });
    expect([absent.status, absent.body.code, absent.body.connection]).toEqual([
      409,
      "authorization_pending",
      "without",
    ]);
    await stage.connect("plain", "able");
    const none = await stage.api.token("plain", { token: "user" });
    expect([none.status, none.body.detail]).toEqual([400, expect.stringContaining("gives none")]);
  });

  it("a caller that is bound to labels reads those of connections that carry them, and is told of no others", async () => {
    for (const [name, customer] of [
      ["labelled", "acme"],
      ["others", "beta"],
    ] as const) {
      await stage.connect(name, "able-user");
      await stage.api.changeConnection(name, { labels: { customer } });
    }
    const labels = { customer: "acme" };
    const key = await stage.api.createKey({ name: "tenant", abilities: ["tokens"], connections: ["*"], labels });
    const read = async (name: string, token: string) => await stage.api.token(name, { key, token });
    expect((await read("labelled", "user")).body).toMatchObject({ token: "user", version: 1 });
    expect((await read("labelled", "boss")).body.code).toBe("invalid_request");
    const answers = ["others", "nobody"].flatMap((name) =>
      ["user", "boss"].map(async (token) => {
        const { status, body } = await read(name, token);
        return JSON.stringify([status, body]).replaceAll(name, "NAME");
      }),
    );
    expect(new Set(await Promise.all(answers)).size).toBe(1);
    await stage.api.changeConnection("labelled", { labels: { customer: "beta" } });
    expect((await read("labelled", "user")).body.code).toBe("connection_not_found");
    await stage.api.changeConnection("others", { labels });
    expect((await read("others", "user")).status).toBe(200);
  });

  it("two replicas and two hundred callers cause one refresh of each token, each with its own refresh token, round after round", async () => {
    await stage.connect("chains", "able-user");
    let [own, further] = [await stage.token("chains"), await stage.token("chains", { token: "user" })];
    const families = [familyOf(own), familyOf(further)];
    for (let round = 1; round <= 2; round++) {
      await stage.pass(lifeSeconds + 1, "chains");
      const wish = { min_ttl: 0 };
      const now = await Promise.all([crowd("chains", wish), crowd("chains", { ...wish, token: "user" })]);
      expect(now.map(familyOf)).toEqual(families);
      expect(now.map(({ version }) => version)).toEqual([own.version + 1, further.version + 1]);
      [own, further] = now;
    }
    expect(families.map((family) => server.ledger.refreshes(family))).toEqual([2, 2]);
    expect([server.ledger.reuses, server.ledger.peakConcurrency()]).toEqual([[], 1]);
  });

  it("a further token whose refresh token has died ends by itself, and the connection goes on", async () => {
    await stage.connect("half", "able-user");
    const further = await stage.token("half", { token: "user", min_ttl: 0 });
    server.grants.killFamily(familyOf(further));
    await stage.pass(lifeSeconds + 1, "half");
    const refused = await stage.api.token("half", { token: "user" });
    expect([refused.status, refused.body.code]).toEqual([409, "needs_reauthorization"]);
    expect((await stage.api.connection("half"))["tokens"]).toMatchObject({ user: { status: "needs_reauthorization" } });
    expect(await stage.api.connection("half")).toMatchObject({ status: "connected", last_error: null });
    await stage.api.refresh("half");
    await stage.consent("half");
    expect((await stage.token("half", { token: "user" })).version).toBeGreaterThan(further.version);
  });

  it("disabling the connection stops all of its tokens on every replica, and enabling brings them back", async () => {
    await stage.connect("switched", "able-user");
    const statuses = async () => {
      const asked = stage.brokers.flatMap(({ api }) => [
        api.token("switched"),
        api.token("switched", { token: "user" }),
      ]);
      return [...new Set((await Promise.all(asked)).map(({ status, body }) => body.code ?? status))];
    };
    expect(await statuses()).toEqual([200]);
    await stage.api.changeConnection("switched", { disabled: true });
    const here = [await stage.api.token("switched"), await stage.api.token("switched", { token: "user" })];
    expect(here.map(({ body }) => body.code)).toEqual(["connection_disabled", "connection_disabled"]);
    await expect.poll(statuses, patience).toEqual(["connection_disabled"]);
    await stage.api.changeConnection("switched", { disabled: false });
    await expect.poll(statuses, patience).toEqual([200]);
  });

  it("deleting the connection revokes all of its tokens and leaves no row of it", async () => {
    await stage.connect("gone", "able-user");
    const families = [await stage.token("gone"), await stage.token("gone", { token: "user" })].map(familyOf);
    const current = families.map((family) => server.ledger.currentRefreshToken(family));
    await stage.api.deleteConnection("gone");
    await expect.poll(() => new Set(server.revoked.slice(-2)), patience).toEqual(new Set(current));
    expect((await stage.api.token("gone", { token: "user" })).status).toBe(404);
    const rows = await query(stage.databaseUrl, "SELECT name FROM connections WHERE split_part(name, '#', 1) = 'gone'");
    expect(rows).toEqual([]);
    const events =
      "SELECT 1 FROM connection_events e WHERE NOT EXISTS (SELECT 1 FROM connections c WHERE c.id = e.connection_id)";
    expect(await query(stage.databaseUrl, events)).toEqual([]);
  });

  it("a token that is exchanged for is asked for once by all callers, with the newest access token, and again when it ends", async () => {
    await stage.connect("deep", "able-deep");
    const own = await stage.token("deep", { min_ttl: 0 });
    const before = exchanges().length;
    const first = await crowd("deep", { token: "deep", min_ttl: 0 });
    expect(
      exchanges()
        .slice(before)
        .map(({ fields }) => fields["audience"]),
    ).toEqual(["deep"]);
    expect(server.ledger.granted("token_exchange", familyOf(first))).toBe(1);

    await stage.pass(lifeSeconds + 1, "deep");
    const second = await crowd("deep", { token: "deep", min_ttl: 0 });
    const asked = exchanges().slice(before);
    expect(asked).toHaveLength(2);
    expect(second.version).toBe(first.version + 1);
    // The connection's own token had run out, too: it was refreshed first.
    const now = await stage.token("deep");
    expect([asked[1]?.fields["subject_token"], now.version]).toEqual([now.access_token, own.version + 1]);
    expect(server.ledger.refreshes(familyOf(own))).toBe(1);
  });

  it("after a reconnect a token that is exchanged for is the new account's at once", async () => {
    server.account = "ada";
    await stage.connect("moved", "able-deep");
    expect(server.accountOf((await stage.token("moved", { token: "deep" })).access_token)).toBe("ada");
    server.account = "bob";
    await stage.consent("moved");
    server.account = "ada";
    expect(server.accountOf((await stage.token("moved")).access_token)).toBe("bob");
    expect(server.accountOf((await stage.token("moved", { token: "deep" })).access_token)).toBe("bob");
  });

  it("a further token that the definition does not have any more is told in words, and the connection goes on", async () => {
    await stage.connect("less", "able-less");
    await stage.pass(lifeSeconds + 1, "less");
    await overrideFiles({ definitions: () => [server.definition("able-less", {})] }, stage.providersDir);
    const restarted = stage.brokers[1];
    await restarted?.kill();
    await restarted?.start();
    const gone = await restarted?.api.token("less", { token: "user" });
    expect([gone?.status, gone?.body.detail]).toEqual([503, expect.stringMatching(/no further token "user" any more/)]);
    expect((await restarted?.api.token("less"))?.status).toBe(200);
  });

  it("an imported connection has the tokens that are exchanged for, too", async () => {
    await stage.create("handed", "able-deep", { grant: "import" });
    const { accessToken, refreshToken } = server.issueTokenSet();
    await stage.api.importTokens("handed", {
      access_token: accessToken,
      refresh_token: refreshToken,
      expires_in: 3600,
    });
    const token = await stage.token("handed", { token: "deep" });
    expect(server.ledger.granted("token_exchange", familyOf(token))).toBe(1);
    expect(exchanges().at(-1)?.fields["subject_token"]).toBe(accessToken);
  });
});
