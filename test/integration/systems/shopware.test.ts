import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { ConnectionRequest } from "../../support/broker-api.ts";
import type { RequestEntry } from "../../support/providers/ledger.ts";
import { Shopware } from "../../support/providers/shopware.ts";
import { ProviderStage } from "../../support/provider-stage.ts";
import { brandNewSeconds, expectLife, rotate } from "../../support/rotations.ts";
import { Service, rulesMet } from "../../support/service.ts";
import { describeWithServices } from "../../support/services/index.ts";

const api = "/product";
const lifeSeconds = 600;

/** A shop with an integration, and another shop beside it. */
const [shop, other] = [new Shopware(), new Shopware()];
let stage: ProviderStage<Shopware>;
let integration: ConnectionRequest;
/** The admin user's connection: a password and no client. */
let admin: ConnectionRequest;
let round = 0;

/** A name that is used again goes on from its last version. So each test has names of its own. */
async function startOver(): Promise<void> {
  round += 1;
  await stage.startOver();
  for (const [name, server] of [["shop", shop] as const, ["other-shop", other] as const]) {
    await stage.addClient(name, "shopware", { server, inputs: { shop_url: server.origin } });
  }
  integration = { name: `integration-${round}`, provider: "shopware", client: "shop", grant: "client_credentials" };
  const inputs = { shop_url: shop.origin };
  admin = { name: `admin-${round}`, provider: "shopware", grant: "password", inputs, credentials: { ...shop.user } };
}

const shape = ({ headers, fields }: RequestEntry) =>
  [headers["content-type"], headers["authorization"] ?? "no header", Object.keys(fields).sort().join("+")].join(" | ");
const times = (count: number, text: string) => Array.from({ length: count }, () => text);

describeWithServices(["postgres", "redis"], "Shopware", () => {
  beforeAll(async () => {
    stage = await ProviderStage.start(shop, { beside: [other] });
  });
  beforeEach(startOver);
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("a user's token is refreshed ten times and those of two shops' integrations fetched ten times, each at its own host", async () => {
    const services = [
      await stage.create(admin, api),
      await stage.create(integration, api),
      await stage.create({ ...integration, name: `other-${integration.name}`, client: "other-shop" }, api),
    ];
    for (const service of services) expectLife(await service.token(), lifeSeconds);
    await rotate({ stage, services, servers: [stage.server, other] });

    const json = "application/json | no header";
    const fetches = times(11, `${json} | client_id+client_secret+grant_type`);
    const { ledger } = stage.server;
    expect(other.ledger.requestsTo("token").map((entry) => shape(entry))).toEqual(fetches);
    expect(
      ledger
        .requestsTo("token")
        .map((entry) => shape(entry))
        .sort(),
    ).toEqual(
      [
        ...fetches,
        `${json} | client_id+grant_type+password+scopes+username`,
        ...times(10, `${json} | client_id+grant_type+refresh_token`),
      ].sort(),
    );
    expect(ledger.requestsTo("token").filter(({ status }) => status !== 200)).toEqual([]);
    expect([ledger.granted("password"), ledger.refreshes(), ledger.granted("client_credentials")]).toEqual([1, 10, 11]);
    expect(ledger.reuses).toEqual([]);
    expect(ledger.peakConcurrency()).toBe(1);
  });

  it("a refresh token that has died, told by 401 or by 400, is made up for in the same read by logging in again", async () => {
    const { server } = stage;
    const service = await stage.create(admin, api);
    for (const library of [8, 9] as const) {
      server.library = library;
      const before = await service.token({ min_ttl: 0 });
      const requests = server.ledger.requestsTo("token").length;
      server.killRefreshTokens();
      server.killAccessTokens();
      await stage.pass(brandNewSeconds + 1);
      const refusal = await service.call(before);
      expect(rulesMet(before, refusal)).toContainEqual(expect.objectContaining({ body: expect.any(String) }));
      const { status, body } = await service.report(before);
      expect([status, body.version]).toEqual([200, before.version + 1]);
      expect(await service.call(body)).toMatchObject({ status: 200 });
      const sent = server.ledger.requestsTo("token").slice(requests);
      expect(sent.map((entry) => [entry.fields["grant_type"], entry.status])).toEqual([
        ["refresh_token", library === 8 ? 401 : 400],
        ["password", 200],
      ]);
    }
    await stage.api.refresh(admin.name);
    expect(server.ledger.granted("password")).toBe(3);
    expect(server.ledger.reuses).toEqual([]);
  });

  it("a changed password is tried once, ends in needs_reauthorization, and is mended by new credentials", async () => {
    const { server } = stage;
    const service = await stage.create(admin, api);
    const before = await service.token({ min_ttl: 0 });
    const password = server.changePassword();
    await stage.pass(lifeSeconds + 1);
    await service.meetEnd(before);
    const refused = await service.report(before);
    expect([refused.status, refused.body.code]).toEqual([409, "needs_reauthorization"]);
    expect(refused.body.detail).toMatch(
      /credentials.*PATCH.*the provider answered 400; the definition does not fix its host/,
    );
    for (let count = 0; count < 5; count++) expect((await service.report(before)).status).toBe(409);
    const logins = () => server.ledger.requestsTo("token").filter(({ fields }) => fields["grant_type"] === "password");
    expect(logins().map(({ status }) => status)).toEqual([200, 400]);

    const { username } = server.user;
    await stage.api.changeConnection(admin.name, { credentials: { username, password: "wrong-again" } });
    expect((await service.report(before)).status).toBe(409);
    await stage.api.changeConnection(admin.name, { credentials: { username, password } });
    const token = await service.token({ min_ttl: 0 });
    expect(token.version).toBeGreaterThan(before.version);
    expect(await service.call(token)).toMatchObject({ status: 200 });
    expect(server.ledger.reuses).toEqual([]);
  });

  it("after an integration's secret was changed, what is valid is served, then client_rejected, until the client is corrected", async () => {
    const service = await stage.create(integration, api);
    const client_secret = stage.server.changeSecret();
    const refused = await stage.api.api(`/connections/${integration.name}/refresh`, { method: "POST" });
    expect([refused.status, refused.body["code"]]).toEqual([502, "client_rejected"]);
    const valid = await service.token({ min_ttl: 0 });
    expect(valid.warnings.map(({ code }) => code)).toEqual(["refresh_failing"]);
    expect(await service.call(valid)).toMatchObject({ status: 200 });
    await stage.pass(lifeSeconds + 1);
    await service.meetEnd(valid);
    const { status, body } = await service.read();
    expect([status, body.code]).toEqual([502, "client_rejected"]);
    expect(body.detail).toMatch(/client id or secret.*the provider answered 401; the definition does not fix its host/);

    await stage.api.changeClient("shop", { client_secret });
    const mended = await service.token({ min_ttl: 0 });
    expect([mended.version, mended.warnings]).toEqual([valid.version + 1, []]);
    expect(await service.call(mended)).toMatchObject({ status: 200 });
  });

  it("a wrong secret or password is refused when a connection is made, and nothing is stored", async () => {
    stage.server.changeSecret();
    stage.server.changePassword();
    for (const [body, reason] of [
      [integration, /the provider answered 401; the definition does not fix its host/],
      [admin, /the provider answered 400; the definition does not fix its host/],
    ] as const) {
      const refused = await stage.api.api("/connections", { method: "POST", body });
      expect([refused.status, refused.body["code"]]).toEqual([422, "provider_rejected"]);
      expect(refused.body["detail"]).toMatch(reason);
      expect((await stage.api.api(`/connections/${body.name}`)).status).toBe(404);
    }
    expect((await stage.api.api("/connections")).body).toEqual({ items: [], next_cursor: null });
  });

  it("connections that are made while the shop is away wait, and connect once it is back", async () => {
    stage.server.failNext({ status: 503, body: "maintenance", times: 1000 });
    for (const request of [integration, admin]) {
      expect(await stage.api.createConnection(request)).toMatchObject({ status: "pending", version: 0 });
      const { status, body } = await stage.api.token(request.name);
      expect([status, body.code]).toEqual([503, "provider_unavailable"]);
    }
    stage.server.behave();
    for (const { name } of [integration, admin]) {
      const service = new Service({ api: stage.api, connection: name, path: api });
      expect(await service.call(await service.untilToken())).toMatchObject({ status: 200 });
      expect((await stage.api.connection(name)).status).toBe("connected");
    }
  });

  it("a shop's address stands on the client, so that no connection can have its secret sent elsewhere", async () => {
    const body = { ...integration, inputs: { shop_url: other.origin } };
    const refused = await stage.api.api("/connections", { method: "POST", body });
    expect([refused.status, refused.body["code"]]).toEqual([400, "invalid_request"]);
    expect(refused.body["detail"]).toMatch(/inputs\.shop_url.*client/);
    expect(other.ledger.requests).toEqual([]);
  });

  it("the shop that a stored password is for stays, whatever state the connection is in", async () => {
    await stage.api.createConnection(admin);
    for (const changes of [{ disabled: true }, { disabled: false }]) {
      await stage.api.changeConnection(admin.name, changes);
      const body = { inputs: { shop_url: other.origin } };
      const refused = await stage.api.api(`/connections/${admin.name}`, { method: "PATCH", body });
      expect([refused.status, refused.body["code"]]).toEqual([409, "conflict"]);
      expect(refused.body["detail"]).toMatch(/inputs\.shop_url/);
    }
    await stage.api.refresh(admin.name);
    expect(other.ledger.requests).toEqual([]);
  });
});
