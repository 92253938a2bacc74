import { expect, it } from "vitest";
import { Bakeronline } from "../../support/providers/bakeronline.ts";
import type { RequestEntry } from "../../support/providers/ledger.ts";
import { ProviderStage } from "../../support/provider-stage.ts";
import { expectLife, rotate, shortLifeSeconds } from "../../support/rotations.ts";
import { rulesMet } from "../../support/service.ts";
import { describeWithServices } from "../../support/services/index.ts";

const api = "/company/shops";
const scopes = ["company:read", "customer:read"];
const uuid = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;

/** Besides a form the reference names JSON, and besides S256 a plain challenge: each a file of its own. */
const variants = [
  { id: "bakeronline-json", extends: "bakeronline", token: { encoding: "json" } },
  { id: "bakeronline-plain", extends: "bakeronline", authorization: { pkce_method: "plain" } },
];

async function setStage() {
  const stage = await ProviderStage.start(new Bakeronline(), { more: () => variants });
  for (const provider of ["bakeronline", ...variants.map(({ id }) => id)]) await stage.addClient(provider, provider);
  const connect = (name: string, provider = "bakeronline") =>
    stage.connect({ name, provider, client: provider, scopes }, api);
  return { stage, connect };
}

function sent({ server }: ProviderStage<Bakeronline>, grantType: string): RequestEntry[] {
  return server.ledger.requestsTo("token").filter(({ fields }) => fields["grant_type"] === grantType);
}

describeWithServices(["postgres", "redis"], "Bakeronline", () => {
  it("each of several devices gets ten new tokens, by form and by JSON, with its refresh token and version header alone", async () => {
    const { stage, connect } = await setStage();
    await using _ = stage;
    const services = [
      await connect("acme"),
      await connect("acme-till"),
      await connect("acme-json", "bakeronline-json"),
      await connect("acme-plain", "bakeronline-plain"),
    ];
    const { ledger, switches } = stage.server;
    const first = await Promise.all(services.map((service) => service.token()));
    for (const token of first) expectLife(token, 3600);
    switches.accessLifeSeconds = shortLifeSeconds;
    await rotate({ stage, services });

    expect(first.map(({ access_token }) => ledger.refreshes(ledger.familyOf(access_token)))).toEqual([10, 10, 10, 10]);
    expect(ledger.reuses).toEqual([]);
    expect(ledger.peakConcurrency()).toBe(1);
    const requests = ledger.requestsTo("token");
    expect(requests.map(({ status }) => status)).toEqual(Array.from({ length: 44 }, () => 200));
    expect(new Set(requests.map(({ headers }) => headers["x-version"]))).toEqual(new Set(["1.9.0"]));
    const asked = ledger.requestsTo("authorize").filter(({ method }) => method === "GET");
    expect(asked.map(({ fields }) => fields["code_challenge_method"])).toEqual(["S256", "S256", "S256", "plain"]);
    const refreshes = sent(stage, "refresh_token");
    expect(new Set(refreshes.map(({ fields }) => Object.keys(fields).sort().join()))).toEqual(
      new Set(["grant_type,refresh_token"]),
    );
    const mediaTypes = refreshes.map(({ headers }) => headers["content-type"]?.split(";")[0]);
    expect(mediaTypes.filter((type) => type === "application/json")).toHaveLength(10);
    expect(mediaTypes.filter((type) => type === "application/x-www-form-urlencoded")).toHaveLength(30);
  });

  it("a connection is one device for good: a uuid of its own that stays the same over reconnects", async () => {
    const { stage, connect } = await setStage();
    await using _ = stage;
    await connect("acme");
    await connect("acme-till");
    await stage.consent("acme");
    const devices = sent(stage, "code").map(({ fields }) => fields["device_id"]);
    expect(devices).toEqual([expect.stringMatching(uuid), expect.stringMatching(uuid), devices[0]]);
    expect(devices[1]).not.toBe(devices[0]);
    expect(sent(stage, "code")[0]?.fields).toMatchObject({ client_id: stage.server.client.id, device_name: "Freshet" });
    expect(sent(stage, "code")[0]?.fields).not.toHaveProperty("redirect_uri");
    expect((await stage.api.connection("acme"))["inputs"]).toMatchObject({ device_id: devices[0] });
  });

  it("the API's expired_access_token is named by expired_when, whatever status it comes with", async () => {
    const { stage, connect } = await setStage();
    await using _ = stage;
    const service = await connect("acme");
    const token = await service.token();
    stage.server.killAccessTokens();
    for (const status of [401, 403, 400]) {
      stage.server.expiredStatus = status;
      const answer = await service.call(token);
      expect(answer.status).toBe(status);
      expect(rulesMet(token, answer)).toContainEqual({ body: "expired_access_token" });
    }
    expect(rulesMet(token, { status: 400, body: '{"error":{"code":"invalid_field"}}' })).toEqual([]);
  });

  it("a refresh token that has died ends the connection with a useful detail, and a reconnect under its name mends it", async () => {
    const { stage, connect } = await setStage();
    await using _ = stage;
    const service = await connect("acme");
    const { version } = await service.token();
    stage.server.switches.accessLifeSeconds = shortLifeSeconds;
    await stage.api.refresh("acme");
    stage.server.killRefreshTokens();
    const refused = await stage.api.api("/connections/acme/refresh", { method: "POST" });
    expect([refused.status, refused.body["code"]]).toEqual([409, "needs_reauthorization"]);

    const valid = await service.token({ min_ttl: 0 });
    expect(valid.warnings.map(({ code }) => code)).toEqual(["refresh_failing"]);
    expect(await service.call(valid)).toMatchObject({ status: 200 });
    await service.untilExpired(valid);
    const requests = stage.server.ledger.requestsTo("token").length;
    for (let count = 0; count < 5; count++) {
      const { status, body } = await service.read();
      expect([status, body.code]).toEqual([409, "needs_reauthorization"]);
      expect(body.detail).toMatch(/consent link.*revoked/);
    }
    expect(stage.server.ledger.requestsTo("token")).toHaveLength(requests);

    await stage.consent("acme");
    const token = await service.token();
    expect(token.version).toBeGreaterThan(version);
    expect(await service.call(token)).toMatchObject({ status: 200 });
    expect(stage.server.ledger.reuses).toEqual([]);
  });

  it("a token set that was handed over is refreshed like one of its own", async () => {
    const { stage } = await setStage();
    await using _ = stage;
    const service = await stage.create(
      { name: "acme", provider: "bakeronline", client: "bakeronline", grant: "import" },
      api,
    );
    const { refreshToken = "" } = stage.server.issueTokenSet({ slot: "till" });
    stage.server.switches.accessLifeSeconds = shortLifeSeconds;
    await stage.api.importTokens("acme", { refresh_token: refreshToken, verify: true });
    await rotate({ stage, services: [service], endings: ["order", "refusal"] });
    expect(stage.server.ledger.refreshes()).toBe(3);
    expect(stage.server.ledger.reuses).toEqual([]);
  });
});
