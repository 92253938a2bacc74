import { expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { describeWithServices, startPrivatePostgres } from "../support/services/index.ts";

const sleep = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

async function untilSent(stage: ConnectedStage): Promise<void> {
  while (stage.provider.ledger.requestsTo("token").length === 0) await sleep(10);
}

describeWithServices(["postgres", "redis"], "while a refresh is under way", () => {
  it("importing the very token that is being sent is refused, and the answer is kept", async () => {
    await using stage = await ConnectedStage.start();
    const { family, refreshToken } = await stage.connectExpired("acme");
    const release = stage.provider.holdTokens();
    const reading = stage.first.api.token("acme");
    await untilSent(stage);
    const body = { refresh_token: refreshToken };
    const again = await stage.first.api.api("/connections/acme/import", { method: "POST", body });
    expect([again.status, again.body["code"]]).toEqual([409, "conflict"]);
    release();
    expect((await reading).body).toMatchObject({ version: 2 });
    expect(stage.provider.ledger.peakConcurrency(refreshToken)).toBe(1);
    expect(stage.provider.ledger.reuses).toEqual([]);
    await stage.first.api.refresh("acme");
    expect(stage.provider.ledger.refreshes(family)).toBe(2);
  });

  it("a deleted connection stays deleted, and its name goes on from the version it had", async () => {
    await using stage = await ConnectedStage.start();
    await stage.connectExpired("acme");
    const release = stage.provider.holdTokens();
    const reading = stage.first.api.token("acme");
    await untilSent(stage);
    await stage.first.api.deleteConnection("acme");
    release();
    expect((await reading).status).toBe(404);
    expect((await stage.first.api.token("acme")).status).toBe(404);
    await stage.connect("acme");
    // Version 2 may have been handed out by the refresh that was under way; a person's grant comes two after that.
    expect((await stage.first.api.token("acme")).body.version).toBe(4);
  });

  it("a disabled connection hands nothing out, and after it is enabled the answer that came meanwhile is there", async () => {
    await using stage = await ConnectedStage.start();
    const { family } = await stage.connectExpired("acme");
    const release = stage.provider.holdTokens();
    const reading = stage.first.api.token("acme");
    await untilSent(stage);
    await stage.first.api.changeConnection("acme", { disabled: true });
    release();
    expect((await reading).body.code).toBe("connection_disabled");
    await stage.first.api.changeConnection("acme", { disabled: false });
    expect((await stage.first.api.token("acme")).body).toMatchObject({ version: 2 });
    expect(stage.provider.ledger.refreshes(family)).toBe(1);
  });
});

describeWithServices(["postgres", "redis"], "while Postgres hangs", () => {
  it("a token that is cached is handed out", async () => {
    await using postgres = await startPrivatePostgres();
    await using stage = await ConnectedStage.start({ databaseUrl: postgres.url });
    await stage.connect("acme");
    expect((await stage.first.api.token("acme")).status).toBe(200);
    await postgres.pause();
    await sleep(4200); // longer than a row is trusted
    for (let count = 0; count < 20; count++) expect((await stage.first.api.token("acme")).status).toBe(200);
    expect((await stage.first.api.api("/readyz")).body).toMatchObject({ status: "degraded" });
    await postgres.resume();
  });
});
