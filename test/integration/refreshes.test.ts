import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices } from "../support/services/index.ts";

const lifeSeconds = 3600;
const away = { status: 503, body: { error: "temporarily_unavailable" } };
let stage: ConnectedStage;

const token = async (name: string, wish: Record<string, number> = {}) => await stage.first.api.token(name, wish);
const refresh = async (name: string, body: Record<string, boolean>) =>
  await stage.first.api.api(`/connections/${name}/refresh`, { method: "POST", body });
/** The newest lines of a connection's history. */
const typesOf = async (name: string, count: number): Promise<unknown[]> => {
  const { body } = await stage.first.api.api<{ items: { type: string }[] }>(
    `/connections/${name}/events?limit=${count}`,
  );
  return body.items.map(({ type }) => type);
};
const tokenRequests = () => stage.provider.ledger.requestsTo("token");

describeWithServices(["postgres", "redis"], "refreshes", () => {
  beforeAll(async () => {
    stage = await ConnectedStage.start({
      more: (own) => [
        { ...own, id: "lets-live", refresh: { ...(own["refresh"] as object), old_access_token_dies: false } },
        { ...own, id: "fixed", refresh: { rotation: "never", reuse: "safe" } },
      ],
    });
  });
  beforeEach(() => stage.provider.startOver());
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("importing the very token that is being sent is refused, and the answer is kept", async () => {
    const { family, refreshToken } = await stage.connectExpired("imported");
    const { untilSent, release } = stage.holdTokens();
    const reading = token("imported");
    await untilSent();
    const body = { refresh_token: refreshToken };
    const again = await stage.first.api.api("/connections/imported/import", { method: "POST", body });
    expect([again.status, again.body["code"]]).toEqual([409, "conflict"]);
    release();
    expect((await reading).body).toMatchObject({ version: 2 });
    expect(stage.provider.ledger.peakConcurrency(refreshToken)).toBe(1);
    expect(stage.provider.ledger.reuses).toEqual([]);
    await stage.first.api.refresh("imported");
    expect(stage.provider.ledger.refreshes(family)).toBe(2);
  });

  it("a connection that is deleted during one stays deleted, and its name goes on from the version it had", async () => {
    await stage.connectExpired("deleted");
    const { untilSent, release } = stage.holdTokens();
    const reading = token("deleted");
    await untilSent();
    await stage.first.api.deleteConnection("deleted");
    release();
    expect((await reading).status).toBe(404);
    expect((await token("deleted")).status).toBe(404);
    await stage.connect("deleted");
    // A caller may have got version 2 from the refresh that was under way. A person's grant comes two versions after it.
    expect((await token("deleted")).body.version).toBe(4);
  });

  it("a connection that is disabled during one hands nothing out, and after it is enabled the answer that came meanwhile is there", async () => {
    const { family } = await stage.connectExpired("disabled");
    const { untilSent, release } = stage.holdTokens();
    const reading = token("disabled");
    await untilSent();
    await stage.first.api.changeConnection("disabled", { disabled: true });
    release();
    expect((await reading).body.code).toBe("connection_disabled");
    await stage.first.api.changeConnection("disabled", { disabled: false });
    expect((await token("disabled")).body).toMatchObject({ version: 2 });
    expect(stage.provider.ledger.refreshes(family)).toBe(1);
  });

  it("a token that runs out while its refresh is refused is withheld, with the reason that the provider gave", async () => {
    await stage.connect("ending");
    stage.provider.killRefreshTokens();
    await stage.pass(lifeSeconds - 8, "ending"); // on a slow machine it may be over too soon, and this proves less
    const { untilSent, release } = stage.holdTokens();
    const reading = token("ending", { wait: 30 });
    await untilSent();
    const over = "SELECT 1 FROM connections WHERE name = 'ending' AND expires_at < clock_timestamp()";
    await until("the token's end", async () => (await query(stage.databaseUrl, over)).length > 0);
    release();
    const reply = await reading;
    expect([reply.status, reply.body.code]).toEqual([409, "needs_reauthorization"]);
    expect(tokenRequests().map(({ status }) => status)).toEqual([200, 400]);
  });

  it.each([
    { oldAccessTokenDies: true, provider: "strict", waits: true, version: 2 },
    { oldAccessTokenDies: false, provider: "lets-live", waits: false, version: 1 },
  ])("old_access_token_dies $oldAccessTokenDies: a read that meets a refresh waits for it: $waits", async (row) => {
    const { provider, waits, version } = row;
    await stage.connect(`met-by-${provider}`, provider);
    const { untilSent, release } = stage.holdTokens();
    const refreshing = stage.first.api.refresh(`met-by-${provider}`);
    await untilSent();
    const reading = token(`met-by-${provider}`, { wait: 30 });
    if (waits) expect(await Promise.race([reading, sleep(1000, "waits")])).toBe("waits");
    else await reading;
    release();
    expect((await reading).body).toMatchObject({ version, warnings: [] });
    await refreshing;
  });

  it.each([
    { rotation: "never", provider: "fixed", status: 200 },
    { rotation: "always", provider: "strict", status: 409 },
  ])("rotation $rotation: handing a second connection the same refresh token is answered $status", async (row) => {
    const { provider, status } = row;
    const { refreshToken } = await stage.connectExpired(`${provider}-one`, provider);
    await stage.create(`${provider}-two`, provider);
    const body = { refresh_token: refreshToken };
    const answer = await stage.first.api.api(`/connections/${provider}-two/import`, { method: "POST", body });
    expect(answer.status).toBe(status);
  });

  it("a valid token is served through an outage of the provider, an expired one is not, and only invalid_grant needs a person", async () => {
    await stage.connect("away");
    stage.provider.failNext({ ...away, times: 1000 });
    const valid = await token("away", { min_ttl: 60 });
    expect([valid.status, valid.body.warnings]).toEqual([200, []]);
    await stage.pass(0.6 * lifeSeconds, "away"); // a longer one is asked for, and cannot be had
    const failing = await token("away", { min_ttl: lifeSeconds });
    expect([failing.status, failing.body.warnings.map(({ code }) => code)]).toEqual([200, ["refresh_failing"]]);

    await stage.pass(lifeSeconds, "away");
    for (let count = 0; count < 10; count++) {
      const gone = await token("away");
      expect([gone.status, gone.body.code]).toEqual([503, "provider_unavailable"]);
      expect(Number(gone.headers["retry-after"])).toBeGreaterThanOrEqual(1);
      expect(Number(gone.headers["retry-after"])).toBeLessThanOrEqual(60);
      expect(gone.body.retry_after).toBe(Number(gone.headers["retry-after"]));
    }
    expect(await stage.first.api.connection("away")).toMatchObject({ status: "connected" });

    stage.provider.behave();
    stage.provider.killRefreshTokens();
    const dead = await until("the end of the back-off", async () => {
      const reply = await token("away");
      return reply.status !== 503 && reply;
    });
    expect([dead.status, dead.body]).toMatchObject([409, { code: "needs_reauthorization", connection: "away" }]);
    expect(await stage.first.api.connection("away")).toMatchObject({ last_error: { code: "invalid_grant" } });

    await stage.reconnect("away");
    const back = await token("away");
    expect([back.status, back.body.version]).toEqual([200, 3]);
  });

  it("a refusal that nobody understands is told to be a dead grant after an hour of it, ends nothing by itself, and is ended by one call", async () => {
    await stage.connectExpired("gibberish");
    stage.provider.failNext({ status: 400, body: "", times: 6 });
    const refused = async () => {
      await query(stage.databaseUrl, "UPDATE connections SET backoff_until = NULL WHERE name = 'gibberish'");
      expect(await token("gibberish")).toMatchObject({ status: 503, body: { code: "provider_unavailable" } });
    };
    for (let count = 1; count <= 4; count++) await refused();
    expect(await stage.first.api.connection("gibberish")).toMatchObject({ status: "connected", attention: null });
    const early = await refresh("gibberish", { end: true });
    expect([early.status, early.body["code"]]).toEqual([409, "conflict"]);
    await query(
      stage.databaseUrl,
      "UPDATE connections SET refused_since = refused_since - interval '1 hour' WHERE name = 'gibberish'",
    );
    await refused();
    const attention = { code: "probably_dead", since: expect.any(String), detail: expect.any(String) };
    expect(await stage.first.api.connection("gibberish")).toMatchObject({ status: "connected", attention });
    await refused();

    const ended = await refresh("gibberish", { end: true });
    expect([ended.status, ended.body]).toMatchObject([200, { status: "needs_reauthorization", attention: null }]);
    expect((await token("gibberish")).body.code).toBe("needs_reauthorization");
    expect(await typesOf("gibberish", 2)).toEqual(["needs_reauthorization", "refresh_failed"]);
    expect(await typesOf("gibberish", 4)).toContain("probably_dead");
    const metrics = await (await fetch(`${stage.first.url}/metrics`)).text();
    expect(metrics).toContain('freshet_probably_dead_total{provider="strict"} 1');
  });

  it("a grant that was ended by mistake is tried once more by one call, and lives on", async () => {
    const { refreshToken } = await stage.connectExpired("mistaken");
    const mistake = { status: 400, body: { error: "invalid_grant" } };
    stage.provider.failNext(mistake);
    expect((await token("mistaken")).body.code).toBe("needs_reauthorization");

    const guarded = await refresh("mistaken", { retry_ended: true });
    expect([guarded.status, guarded.body["code"], guarded.body["detail"]]).toEqual([
      409,
      "conflict",
      expect.stringContaining("force"),
    ]);
    stage.provider.failNext(mistake);
    const again = await refresh("mistaken", { retry_ended: true, force: true });
    expect([again.status, again.body["code"]]).toEqual([409, "needs_reauthorization"]);
    const soon = await refresh("mistaken", { retry_ended: true, force: true });
    expect([soon.status, soon.body["code"], Number(soon.headers["retry-after"]) > 0]).toEqual([
      429,
      "rate_limited",
      true,
    ]);
    expect(await stage.first.api.connection("mistaken")).toMatchObject({ last_error: { code: "invalid_grant" } });

    await query(
      stage.databaseUrl,
      "UPDATE connections SET retried_at = retried_at - interval '1 minute' WHERE name = 'mistaken'",
    );
    const back = await refresh("mistaken", { retry_ended: true, force: true });
    expect([back.status, back.body]).toMatchObject([200, { status: "connected", last_error: null, version: 2 }]);
    expect((await token("mistaken")).body).toMatchObject({ version: 2, warnings: [] });
    expect(stage.provider.ledger.peakConcurrency(refreshToken)).toBe(1);
    expect(await typesOf("mistaken", 4)).toEqual(["refreshed", "retried", "retry_failed", "retried"]);

    const connected = await refresh("mistaken", { retry_ended: true });
    expect([connected.status, connected.body["code"]]).toEqual([409, "conflict"]);
    const both = await refresh("mistaken", { retry_ended: true, end: true });
    expect([both.status, both.body["detail"]]).toEqual([400, expect.stringContaining("end:")]);
  });

  it.each([
    { oldAccessTokenDies: true, provider: "strict", status: 409 },
    { oldAccessTokenDies: false, provider: "lets-live", status: 200 },
  ])(
    "old_access_token_dies $oldAccessTokenDies: after a lost answer a token that would live still is answered $status",
    async (row) => {
      const name = `lost-${row.provider}`;
      await stage.connect(name, row.provider);
      await query(
        stage.databaseUrl,
        `UPDATE connections SET status = 'needs_reauthorization', enabled_status = 'needs_reauthorization',
         last_error_code = 'refresh_outcome_lost', last_error_at = clock_timestamp(), last_error_detail = 'lost'
       WHERE name = '${name}'`,
      );
      expect((await token(name, { rejected_version: 9 })).status).toBe(row.status);
      expect((await token(name)).status).toBe(row.status);
    },
  );

  it("a mistyped new secret that the old one covers is told, and the next one does not push the old one out", async () => {
    const { api } = stage.first;
    const good = stage.provider.client.secret;
    await stage.connect("covered", "fixed");
    expect(await api.changeClient("fixed", { client_secret: "mistyped" })).toMatchObject({
      secret_rotating: true,
      secret_rotating_since: expect.any(String),
      old_secret_in_use_since: null,
    });
    await api.refresh("covered");
    expect(await api.connection("covered")).toMatchObject({
      status: "connected",
      attention: { code: "old_secret_in_use" },
    });
    await api.changeClient("fixed", { client_secret: "mistyped again" });
    await api.refresh("covered");
    expect(await api.connection("covered")).toMatchObject({ attention: { code: "old_secret_in_use" } });
    expect(await typesOf("covered", 4)).toEqual(["old_secret_used", "refreshed", "old_secret_used", "refreshed"]);
    await api.changeClient("fixed", { client_secret: good });
    await api.refresh("covered");
    expect(await api.connection("covered")).toMatchObject({ attention: null });
    const client = await api.api("/clients/fixed");
    expect(client.body).toMatchObject({ secret_rotating_since: null, old_secret_in_use_since: null });
  });

  it("ten refusals in a row kill nothing: the next refresh that the provider takes serves the connection again", async () => {
    await stage.connectExpired("refused");
    stage.provider.failNext({ ...away, times: 10 });
    for (let count = 1; count <= 10; count++) {
      expect((await token("refused")).status).toBe(503);
      expect(tokenRequests()).toHaveLength(count);
      // As if the back-off, which has grown to minutes by the tenth time, were over.
      await query(stage.databaseUrl, "UPDATE connections SET backoff_until = clock_timestamp() WHERE name = 'refused'");
    }
    const tenTimes = { status: "connected", consecutive_failures: 10 };
    expect(await stage.first.api.connection("refused")).toMatchObject(tenTimes);
    expect((await token("refused")).body).toMatchObject({ version: 2, warnings: [] });
    const none = { status: "connected", consecutive_failures: 0 };
    expect(await stage.first.api.connection("refused")).toMatchObject(none);
  });
});
