import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { Bakeronline } from "../../support/providers/bakeronline.ts";
import type { RequestEntry } from "../../support/providers/ledger.ts";
import { ProviderStage } from "../../support/provider-stage.ts";
import { expectLife, rotate } from "../../support/rotations.ts";
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

const lifeSeconds = 3600;
let stage: ProviderStage<Bakeronline>;

const connect = (name: string, provider = "bakeronline") =>
  stage.connect({ name, provider, client: provider, scopes }, api);

function sent(grantType: string): RequestEntry[] {
  return stage.server.ledger.requestsTo("token").filter(({ fields }) => fields["grant_type"] === grantType);
}

describeWithServices(["postgres", "redis"], "Bakeronline", () => {
  beforeAll(async () => {
    stage = await ProviderStage.start(new Bakeronline(), { more: () => variants });
  });
  beforeEach(async () => {
    await stage.startOver();
    for (const provider of ["bakeronline", ...variants.map(({ id }) => id)]) await stage.addClient(provider, provider);
  });
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("each of several devices gets ten new tokens, by form and by JSON, with its refresh token and version header alone", async () => {
    const services = [
      await connect("till-one"),
      await connect("till-one-till"),
      await connect("till-one-json", "bakeronline-json"),
      await connect("till-one-plain", "bakeronline-plain"),
    ];
    const { ledger } = stage.server;
    const first = await Promise.all(services.map((service) => service.token()));
    for (const token of first) expectLife(token, lifeSeconds);
    await rotate({ stage, services });

    expect(first.map(({ access_token }) => ledger.refreshes(ledger.familyOf(access_token)))).toEqual([10, 10, 10, 10]);
    expect(ledger.reuses).toEqual([]);
    expect(ledger.peakConcurrency()).toBe(1);
    const requests = ledger.requestsTo("token");
    expect(requests.map(({ status }) => status)).toEqual(Array.from({ length: 44 }, () => 200));
    expect(new Set(requests.map(({ headers }) => headers["x-version"]))).toEqual(new Set(["1.9.0"]));
    const asked = ledger.requestsTo("authorize").filter(({ method }) => method === "GET");
    expect(asked.map(({ fields }) => fields["code_challenge_method"])).toEqual(["S256", "S256", "S256", "plain"]);
    const refreshes = sent("refresh_token");
    expect(new Set(refreshes.map(({ fields }) => Object.keys(fields).sort().join()))).toEqual(
      new Set(["grant_type,refresh_token"]),
    );
    const mediaTypes = refreshes.map(({ headers }) => headers["content-type"]?.split(";")[0]);
    expect(mediaTypes.filter((type) => type === "application/json")).toHaveLength(10);
    expect(mediaTypes.filter((type) => type === "application/x-www-form-urlencoded")).toHaveLength(30);
  });

  it("a connection is one device for good: a uuid of its own that stays the same over reconnects", async () => {
    await connect("owned");
    await connect("owned-till");
    await stage.consent("owned");
    const devices = sent("code").map(({ fields }) => fields["device_id"]);
    expect(devices).toEqual([expect.stringMatching(uuid), expect.stringMatching(uuid), devices[0]]);
    expect(devices[1]).not.toBe(devices[0]);
    expect(sent("code")[0]?.fields).toMatchObject({ client_id: stage.server.client.id, device_name: "Freshet" });
    expect(sent("code")[0]?.fields).not.toHaveProperty("redirect_uri");
    expect((await stage.api.connection("owned"))["inputs"]).toMatchObject({ device_id: devices[0] });
  });

  it("the API's expired_access_token is named by expired_when, whatever status it comes with", async () => {
    const service = await connect("expiring");
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
    const service = await connect("dying");
    const { version } = await service.token();
    stage.server.killRefreshTokens();
    const refused = await stage.api.api("/connections/dying/refresh", { method: "POST" });
    expect([refused.status, refused.body["code"]]).toEqual([409, "needs_reauthorization"]);

    const valid = await service.token({ min_ttl: 0 });
    expect(valid.warnings.map(({ code }) => code)).toEqual(["refresh_failing"]);
    expect(await service.call(valid)).toMatchObject({ status: 200 });
    await stage.pass(lifeSeconds + 1);
    await service.meetEnd(valid);
    const requests = stage.server.ledger.requestsTo("token").length;
    for (let count = 0; count < 5; count++) {
      const { status, body } = await service.read();
      expect([status, body.code]).toEqual([409, "needs_reauthorization"]);
      expect(body.detail).toMatch(/consent link.*revoked/);
    }
    expect(stage.server.ledger.requestsTo("token")).toHaveLength(requests);

    await stage.consent("dying");
    const token = await service.token();
    expect(token.version).toBeGreaterThan(version);
    expect(await service.call(token)).toMatchObject({ status: 200 });
    expect(stage.server.ledger.reuses).toEqual([]);
  });

  it("a token set that was handed over is refreshed like one of its own", async () => {
    const service = await stage.create(
      { name: "handed", provider: "bakeronline", client: "bakeronline", grant: "import" },
      api,
    );
    const { refreshToken = "" } = stage.server.issueTokenSet({ slot: "till" });
    await stage.api.importTokens("handed", { refresh_token: refreshToken, verify: true });
    await rotate({ stage, services: [service], endings: ["order", "refusal"] });
    expect(stage.server.ledger.refreshes()).toBe(3);
    expect(stage.server.ledger.reuses).toEqual([]);
  });
});
