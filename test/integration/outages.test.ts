import { Client } from "pg";
import { expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";

const sleep = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));
const away = { status: 503, body: { error: "temporarily_unavailable" } };

/** Asks until the answer has another status; the caller's own deadline is the test's. */
async function untilStatus(stage: ConnectedStage, status: number) {
  for (;;) {
    const answer = await stage.first.api.token("acme", { wait: 5 });
    if (answer.status === status) return answer;
    await sleep(250);
  }
}

describeWithServices(["postgres", "redis"], "an outage of the provider", () => {
  it("a valid token is served through it, an expired one is not, and only invalid_grant needs a person", async () => {
    await using stage = await ConnectedStage.start({ provider: { switches: { accessLifeSeconds: 6 } } });
    await stage.connect("acme");
    stage.provider.failNext({ ...away, times: 1000 });
    const valid = await stage.first.api.token("acme", { min_ttl: 60 });
    expect(valid.status).toBe(200);
    await sleep(3200); // more than half of its life is over: a longer one is asked for, and cannot be had
    const failing = await stage.first.api.token("acme", { min_ttl: 60 });
    expect([failing.status, failing.body.warnings.map(({ code }) => code)]).toEqual([200, ["refresh_failing"]]);

    await sleep(3000);
    for (let count = 0; count < 10; count++) {
      const gone = await stage.first.api.token("acme");
      expect([gone.status, gone.body.code]).toEqual([503, "provider_unavailable"]);
      expect(Number(gone.headers["retry-after"])).toBeGreaterThanOrEqual(1);
      expect(Number(gone.headers["retry-after"])).toBeLessThanOrEqual(60);
      expect(gone.body.retry_after).toBe(Number(gone.headers["retry-after"]));
    }
    expect(await stage.first.api.connection("acme")).toMatchObject({ status: "connected" });

    stage.provider.behave();
    stage.provider.killRefreshTokens();
    const dead = await untilStatus(stage, 409);
    expect(dead.body).toMatchObject({ code: "needs_reauthorization", connection: "acme" });
    expect(await stage.first.api.connection("acme")).toMatchObject({ last_error: { code: "invalid_grant" } });

    await stage.reconnect("acme");
    const back = await stage.first.api.token("acme");
    expect(back.status).toBe(200);
    expect(back.body.version).toBe(3);
  });

  it("ten refusals in a row kill nothing: the next refresh that the provider takes serves the connection again", async () => {
    const databaseUrl = await useDatabase();
    await using stage = await ConnectedStage.start({ databaseUrl });
    await stage.connectExpired("acme");
    stage.provider.failNext({ ...away, times: 10 });
    const database = new Client({ connectionString: databaseUrl });
    await database.connect();
    for (let count = 1; count <= 10; count++) {
      expect((await stage.first.api.token("acme")).status).toBe(503);
      expect(stage.provider.ledger.requestsTo("token")).toHaveLength(count);
      // As if the back-off, which has grown to minutes by the tenth time, were over.
      await database.query("UPDATE connections SET backoff_until = clock_timestamp()");
    }
    await database.end();
    expect(await stage.first.api.connection("acme")).toMatchObject({ status: "connected", consecutive_failures: 10 });
    expect((await stage.first.api.token("acme")).body).toMatchObject({ version: 2, warnings: [] });
    expect(await stage.first.api.connection("acme")).toMatchObject({ status: "connected", consecutive_failures: 0 });
  });
});

describeWithServices(["postgres", "redis"], "a broker that is killed in mid-refresh", () => {
  it("leaves a connection that serves again within 45 s of the permit, by the takeover rules", async () => {
    await using stage = await ConnectedStage.start({ replicas: 2 });
    const { refreshToken } = await stage.connectExpired("acme");
    stage.provider.hangNext();
    const victim = stage.brokers[1];
    const asked = victim?.api.token("acme").catch(() => null);
    while (stage.provider.ledger.requestsTo("token").length === 0) await sleep(20);
    const permittedAt = Date.now();
    await victim?.kill();
    await asked;
    const answer = await untilStatus(stage, 200);
    const seconds = (Date.now() - permittedAt) / 1000;
    // Version 2 is the killed attempt's own: it may have been handed out.
    expect(answer.body.version).toBe(3);
    // Not before lease and quiet period are over, however slow the machine is; the upper bound is what is promised.
    expect(seconds).toBeGreaterThan(38);
    expect(seconds).toBeLessThan(45);
    const sent = stage.provider.ledger.requestsTo("token").map(({ fields }) => fields["refresh_token"]);
    expect(sent).toEqual([refreshToken, refreshToken]);
    expect(stage.provider.ledger.reuses).toEqual([]);
  });
});
