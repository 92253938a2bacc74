import { expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { describeWithServices } from "../support/services/index.ts";

const replicas = 4;

/** All callers are let go in one turn of the event loop, spread over the replicas. */
async function release(stage: ConnectedStage, callers: number, query: Record<string, number> = {}) {
  const calls = Array.from({ length: callers }, async (_, index) => {
    const broker = stage.brokers[index % stage.brokers.length];
    if (broker === undefined) throw new Error("no broker");
    return await broker.api.token("acme", query);
  });
  return await Promise.all(calls);
}

describeWithServices(["postgres", "redis"], "a crowd of callers", () => {
  for (const redisUrl of [undefined, null]) {
    const how = redisUrl === null ? "without Redis" : "with Redis";

    it(`four replicas and two thousand callers of an expired connection cause one refresh, ${how}`, async () => {
      await using stage = await ConnectedStage.start({ replicas, ...(redisUrl === null ? { redisUrl } : {}) });
      const { family, refreshToken } = await stage.connectExpired("acme");
      stage.provider.switches.delayMs = 300;
      const answers = await release(stage, 2000);
      expect(answers.filter(({ status }) => status !== 200)).toEqual([]);
      expect(stage.provider.ledger.requestsTo("token")).toHaveLength(1);
      expect(stage.provider.ledger.refreshes(family)).toBe(1);
      expect(stage.provider.ledger.peakConcurrency(refreshToken)).toBe(1);
      expect(new Set(answers.map(({ body }) => body.access_token)).size).toBe(1);
    });
  }

  it("a thousand callers that were refused the same version cause one refresh, and all get the next version", async () => {
    await using stage = await ConnectedStage.start({ replicas, provider: { switches: { accessLifeSeconds: 8 } } });
    await stage.connect("acme");
    stage.provider.switches.accessLifeSeconds = 3600;
    stage.provider.switches.delayMs = 300;
    const { body: before } = await stage.first.api.token("acme", { min_ttl: 0 });
    expect(before.version).toBe(1);
    // Only from a quarter of its life on is a rejected token taken for a bad one.
    await new Promise((resolve) => void setTimeout(resolve, 2100));
    const answers = await release(stage, 1000, { rejected_version: 1 });
    expect(answers.map(({ status, body }) => [status, body.version])).toEqual(answers.map(() => [200, 2]));
    expect(stage.provider.ledger.granted("refresh_token")).toBe(1);
  });
});
