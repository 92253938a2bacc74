import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { describeWithServices } from "../support/services/index.ts";

/** What a definition says of refreshing, as callers feel it. */
describeWithServices(["postgres", "redis"], "old_access_token_dies", () => {
  it.each([
    { oldAccessTokenDies: true, waits: true, version: 2 },
    { oldAccessTokenDies: false, waits: false, version: 1 },
  ])("$oldAccessTokenDies: a read that meets a refresh waits for it: $waits", async (row) => {
    const { oldAccessTokenDies, waits, version } = row;
    await using stage = await ConnectedStage.start({ provider: { switches: { oldAccessTokenDies } } });
    await stage.connect("acme");
    const sentBefore = stage.provider.ledger.requestsTo("token").length;
    const release = stage.provider.holdTokens();
    const refreshing = stage.first.api.refresh("acme");
    while (stage.provider.ledger.requestsTo("token").length === sentBefore) await sleep(10);
    let answered = false;
    const reading = stage.first.api.token("acme").finally(() => void (answered = true));
    await Promise.race([reading, sleep(1000)]);
    expect(answered).toBe(!waits);
    release();
    expect((await reading).body).toMatchObject({ version });
    await refreshing;
  });
});

describeWithServices(["postgres", "redis"], "rotation", () => {
  it.each([
    { rotation: "fixed", status: 200 },
    { rotation: "rotating", status: 409 },
  ] as const)("$rotation: handing a second connection the same refresh token is answered $status", async (row) => {
    const { rotation, status } = row;
    await using stage = await ConnectedStage.start({ provider: { switches: { rotation } } });
    const { refreshToken } = await stage.connectExpired("one");
    await stage.first.api.createConnection({ name: "two", provider: stage.provider.id, client: "app" });
    const body = { refresh_token: refreshToken };
    const answer = await stage.first.api.api("/connections/two/import", { method: "POST", body });
    expect(answer.status).toBe(status);
  });
});
