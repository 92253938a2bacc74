import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { ConnectionRequest } from "../../support/broker-api.ts";
import { Bol } from "../../support/providers/bol.ts";
import type { RequestEntry } from "../../support/providers/ledger.ts";
import { ProviderStage } from "../../support/provider-stage.ts";
import { brandNewSeconds, expectLife, rotate } from "../../support/rotations.ts";
import { Service, type ServiceToken } from "../../support/service.ts";
import { describeWithServices } from "../../support/services/index.ts";

const api = "/orders";
/** The two documented ways for retailers, and the one for intermediaries. */
const byBasic: ConnectionRequest = { name: "by-basic", provider: "bol", client: "bol", grant: "client_credentials" };
const byForm = { ...byBasic, name: "by-form", provider: "bol-form", client: "bol-form" };
const byConsent: ConnectionRequest = { name: "by-consent", provider: "bol", client: "bol" };

const [retailerLife, codeFlowLife] = [299, 599];

/** Whether refresh tokens stay (Method 1) or rotate (Method 2) goes by the client: each method has a login of its own here. */
const methodOne = new Bol({ rotation: "fixed" });
let stage: ProviderStage<Bol>;
let round = 0;

/** A name that is used again goes on from its last version. So each test has names of its own. */
const named = (connection: ConnectionRequest) => ({ ...connection, name: `${connection.name}-${round}` });

/** Everything in a token request that the documents say something about. */
function shape({ path, headers, fields }: RequestEntry): string {
  const basic = headers["authorization"]?.startsWith("Basic ") ? "Basic" : "no header";
  const names = Object.keys(fields).sort().join("+");
  return [path, headers["accept"], basic, headers["content-type"] ?? "no body", names].join(" | ");
}

const times = (count: number, text: string) => Array.from({ length: count }, () => text);
const form = "application/x-www-form-urlencoded";
const json = "/token | application/json";

describeWithServices(["postgres", "redis"], "bol.com", () => {
  beforeAll(async () => {
    const more = () => [{ ...methodOne.definitions()[0], id: "bol-method-1", extends: "bol" }];
    stage = await ProviderStage.start(new Bol(), { beside: [methodOne], more });
  });
  beforeEach(async () => {
    round += 1;
    await stage.startOver();
    for (const provider of ["bol", "bol-form"]) await stage.addClient(provider, provider);
    await stage.addClient("bol-method-1", "bol-method-1", { server: methodOne });
  });
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("ten more tokens come by Basic without a body, by form, with refresh tokens that stay and with ones used once", async () => {
    const methodTwo = stage.server;
    const retailers = [await stage.create(named(byBasic), api), await stage.create(named(byForm), api)];
    const intermediaries = [
      await stage.connect(named(byConsent), api),
      await stage.connect({ name: "by-method-1", provider: "bol-method-1", client: "bol-method-1" }, api),
    ];
    for (const service of retailers) {
      expectLife(await service.token(), retailerLife);
      expect(await service.token()).toMatchObject({ scopes: ["RETAILER"], missing_scopes: [], warnings: [] });
      expect(await stage.api.connection(service.connection)).toMatchObject({ missing_scopes: [], attention: null });
    }
    for (const service of intermediaries) expectLife(await service.token(), codeFlowLife);
    await rotate({ stage, services: [...retailers, ...intermediaries], servers: [methodOne, methodTwo] });

    const codeFlow = [
      `${json} | Basic | ${form} | code+grant_type+redirect_uri`,
      ...times(10, `${json} | Basic | ${form} | grant_type+refresh_token`),
    ];
    const shapes = methodTwo.ledger.requestsTo("token").map((entry) => shape(entry));
    expect(shapes.sort()).toEqual(
      [
        ...times(11, `${json} | Basic | no body | grant_type`),
        ...times(11, `${json} | no header | ${form} | client_id+client_secret+grant_type`),
        ...codeFlow,
      ].sort(),
    );
    expect(methodOne.ledger.requestsTo("token").map((entry) => shape(entry))).toEqual(codeFlow);
    expect(methodTwo.ledger.granted("client_credentials")).toBe(22);
    for (const [{ ledger }, refreshTokens] of [[methodOne, 1] as const, [methodTwo, 11] as const]) {
      expect(ledger.refreshes()).toBe(10);
      expect(ledger.tokens.filter(({ kind }) => kind === "refresh")).toHaveLength(refreshTokens);
      expect(ledger.reuses).toEqual([]);
      expect(ledger.peakConcurrency()).toBe(1);
    }
  });

  it("299-second tokens cause no refresh loop, whatever min_ttl asks for", async () => {
    const service = await stage.create(named(byBasic), api);
    for (const fetches of [1, 2]) {
      const replies = await Promise.all(Array.from({ length: 50 }, () => service.read({ min_ttl: 300 })));
      for (const { status, body } of replies) {
        expect([status, body.version]).toEqual([200, fetches]);
        expect(body.warnings.map(({ code }) => code)).toEqual(["min_ttl_exceeds_lifetime"]);
      }
      expect(stage.server.ledger.requestsTo("token")).toHaveLength(fetches);
      await stage.api.refresh(service.connection);
    }
  });

  it("after the secret was changed at bol.com, what is valid is served, then client_rejected, until the client is corrected", async () => {
    const services = [await stage.create(named(byBasic), api), await stage.create(named(byForm), api)];
    const client_secret = stage.server.changeSecret();
    const valid = await Promise.all(
      services.map(async (service) => {
        const refused = await stage.api.api(`/connections/${service.connection}/refresh`, { method: "POST" });
        expect([refused.status, refused.body["code"]]).toEqual([502, "client_rejected"]);
        const token = await service.token({ min_ttl: 0 });
        expect(token.warnings.map(({ code }) => code)).toContain("refresh_failing");
        expect(await service.call(token)).toMatchObject({ status: 200 });
        return { service, token };
      }),
    );
    await stage.pass(retailerLife + 1);
    for (const { service, token } of valid) {
      await service.meetEnd(token);
      const { status, body } = await service.read();
      expect([status, body.code]).toEqual([502, "client_rejected"]);
      expect(body.detail).toMatch(/client id or secret.*Bad client credentials/);
      expect((await stage.api.connection(service.connection)).status).toBe("connected");
    }
    for (const client of ["bol", "bol-form"]) await stage.api.changeClient(client, { client_secret });
    for (const { service, token } of valid) {
      const mended = await service.token({ min_ttl: 0 });
      expect([mended.version, mended.warnings]).toEqual([token.version + 1, []]);
      expect(await service.call(mended)).toMatchObject({ status: 200 });
    }
  });

  it("a secret is replaced without a gap when the broker hears of it first", async () => {
    const service = await stage.create(named(byBasic), api);
    await stage.api.changeClient("bol", { client_secret: "the-next-secret" });
    await stage.api.refresh(service.connection);
    expect((await service.token()).version).toBe(2);
    stage.server.client.secret = "the-next-secret";
    await stage.api.refresh(service.connection);
    expect(await service.call(await service.token())).toMatchObject({ status: 200 });
    expect(stage.server.ledger.requestsTo("token").map(({ status }) => status)).toEqual([200, 401, 200, 200]);
  });

  it("a wrong secret is refused when a connection is made, and nothing is stored", async () => {
    stage.server.changeSecret();
    for (const body of [named(byBasic), named(byForm)]) {
      const refused = await stage.api.api("/connections", { method: "POST", body });
      expect([refused.status, refused.body["code"]]).toEqual([422, "provider_rejected"]);
      expect(refused.body["detail"]).toMatch(/Bad client credentials/);
      expect((await stage.api.api(`/connections/${body.name}`)).status).toBe(404);
    }
    expect((await stage.api.api("/connections")).body).toEqual({ items: [], next_cursor: null });
  });

  it("a connection that is made while bol.com is away waits, and connects once it is back", async () => {
    stage.server.failNext({ status: 503, body: "away", times: 1000 });
    const waitingOne = named(byBasic);
    expect(await stage.api.createConnection(waitingOne)).toMatchObject({ status: "pending", version: 0 });
    const service = new Service({ api: stage.api, connection: waitingOne.name, path: api });
    const waiting = await service.read();
    expect([waiting.status, waiting.body.code]).toEqual([503, "provider_unavailable"]);
    expect(Number(waiting.headers["retry-after"])).toBeGreaterThanOrEqual(1);
    stage.server.behave();
    const token = await service.untilToken();
    expect(token.version).toBe(1);
    expect(await service.call(token)).toMatchObject({ status: 200 });
    expect((await stage.api.connection(service.connection)).status).toBe("connected");
  });

  it("an intermediary's authorization that has ended says so, and a reconnect under its name mends it", async () => {
    const service = await stage.connect(named(byConsent), api);
    const before = await service.token({ min_ttl: 0 });
    stage.server.killRefreshTokens();
    stage.server.killAccessTokens();
    await stage.pass(codeFlowLife + 1);
    await service.meetEnd(before);
    const refused = await service.report(before);
    expect([refused.status, refused.body.code]).toEqual([409, "needs_reauthorization"]);
    expect(refused.body.detail).toMatch(/consent link.*revoked/);
    await stage.consent(service.connection);
    const token = await service.token({ min_ttl: 0 });
    expect(token.version).toBeGreaterThan(before.version);
    expect(await service.call(token)).toMatchObject({ status: 200 });
  });

  it("while bol.com blocks the address nothing dies, and few requests are made", async () => {
    const services = [await stage.connect(named(byConsent), api), await stage.create(named(byForm), api)];
    const last = await Promise.all(services.map(async (service) => await service.token({ min_ttl: 0 })));
    stage.server.blocked = true;
    stage.server.killAccessTokens();
    await stage.pass(brandNewSeconds + 1);
    const { ledger } = stage.server;
    const requestsBefore = ledger.requestsTo("token").length;
    const reads = 10;
    for (const [index, service] of services.entries()) {
      const before = last[index] as ServiceToken;
      await service.meetEnd(before);
      await service.report(before);
      for (let count = 0; count < reads; count++) {
        const { status, body, headers } = await service.read({ rejected_version: before.version });
        expect([status, body.code]).toEqual([503, "provider_unavailable"]);
        expect(Number(headers["retry-after"])).toBeGreaterThanOrEqual(1);
      }
      const { status, last_error } = await stage.api.connection(service.connection);
      // The second request is not sent: what blocks one connection blocks all connections of the host.
      const code = index === 0 ? expect.stringMatching(/^(blocked|limit_reached)$/) : "limit_reached";
      expect([status, last_error]).toEqual(["connected", expect.objectContaining({ code })]);
    }
    const refused = ledger.requestsTo("token").slice(requestsBefore);
    expect(new Set(refused.map(({ status }) => status))).toEqual(new Set([404]));
    expect(refused.length).toBe(1);
    stage.server.blocked = false;
    await stage.endBackOffs();
    for (const service of services) {
      const token = await service.untilToken({ rejected_version: 1 });
      expect(token.version).toBe(2);
      expect(await service.call(token)).toMatchObject({ status: 200 });
    }
    expect(ledger.reuses).toEqual([]);
  });
});
