import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { describeWithServices } from "../support/services/index.ts";

describeWithServices(["postgres", "redis"], "a token that runs out while its refresh is refused", () => {
  it("is withheld with the reason that the provider gave", async () => {
    await using stage = await ConnectedStage.start({ provider: { switches: { accessLifeSeconds: 2 } } });
    await stage.connect("acme");
    stage.provider.killRefreshTokens();
    // Asked for in the second half of the token's life, answered after its end.
    stage.provider.switches.delayMs = 2000;
    let reply = await stage.first.api.token("acme");
    while (reply.status === 200) {
      await sleep(50);
      reply = await stage.first.api.token("acme");
    }
    expect([reply.status, reply.body.code]).toEqual([409, "needs_reauthorization"]);
    expect(stage.provider.ledger.requestsTo("token").map(({ status }) => status)).toEqual([200, 400]);
  });
});
