import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { brandNewSeconds } from "../support/rotations.ts";
import { describeWithServices } from "../support/services/index.ts";

/** The longest that the API lets a caller wait. */
const wait = 30;

/** All callers are let go in one turn of the event loop, spread over the replicas. */
async function release(
  stage: ConnectedStage,
  { name, callers, wish = {} }: { name: string; callers: number; wish?: Record<string, number> },
) {
  const calls = Array.from({ length: callers }, async (_, index) => {
    const broker = stage.brokers[index % stage.brokers.length];
    if (broker === undefined) throw new Error("no broker");
    return await broker.api.token(name, { wait, ...wish });
  });
  return await Promise.all(calls);
}

async function expectOneRefresh(stage: ConnectedStage): Promise<void> {
  const { family, refreshToken } = await stage.connectExpired("expired");
  stage.provider.switches.delayMs = 300;
  const answers = await release(stage, { name: "expired", callers: 500 });
  expect(answers.filter(({ status }) => status !== 200)).toEqual([]);
  expect(stage.provider.ledger.requestsTo("token")).toHaveLength(1);
  expect(stage.provider.ledger.refreshes(family)).toBe(1);
  expect(stage.provider.ledger.peakConcurrency(refreshToken)).toBe(1);
  expect(new Set(answers.map(({ body }) => body.access_token)).size).toBe(1);
}

describeWithServices(["postgres", "redis"], "a crowd of callers", () => {
  describe("with Redis", () => {
    let stage: ConnectedStage;

    beforeAll(async () => {
      stage = await ConnectedStage.start({ replicas: 4 });
    });
    beforeEach(() => stage.provider.startOver());
    afterAll(async () => await stage[Symbol.asyncDispose]());

    it("four replicas and five hundred callers of an expired connection cause one refresh", async () => {
      await expectOneRefresh(stage);
    });

    it("a thousand callers that were refused the same version cause one refresh, and all get the next version", async () => {
      await stage.connect("refused");
      const { body: before } = await stage.first.api.token("refused");
      expect(before.version).toBe(1);
      await stage.pass(brandNewSeconds + 1, "refused");
      stage.provider.switches.delayMs = 300;
      const answers = await release(stage, { name: "refused", callers: 1000, wish: { rejected_version: 1 } });
      expect(answers.map(({ status, body }) => [status, body.version])).toEqual(answers.map(() => [200, 2]));
      expect(stage.provider.ledger.granted("refresh_token")).toBe(1);
    });

    it("a replica that is killed in mid-refresh leaves a connection that serves again, by the takeover rules", async () => {
      const { refreshToken } = await stage.connectExpired("left");
      stage.provider.hangNext();
      const victim = stage.brokers[3];
      const asked = victim?.api.token("left").catch(() => null);
      const sent = () => stage.provider.ledger.requestsTo("token").map(({ fields }) => fields["refresh_token"]);
      await until("the refresh is sent", () => sent().length > 0);
      await victim?.kill();
      await asked;
      const row = async (time: string) => {
        const text = `SELECT extract(epoch FROM ${time})::float8 AS seconds FROM connections WHERE name = 'left'`;
        return (await query<{ seconds: number }>(stage.databaseUrl, text))[0]?.seconds ?? NaN;
      };
      const leaseEnd = await row("lease_until");
      const answer = await until("a token", async () => {
        const reply = await stage.first.api.token("left", { wait: 5 });
        return reply.status === 200 && reply;
      });
      // Version 2 belongs to the killed attempt: a caller may have got it.
      expect(answer.body.version).toBe(3);
      // Not before lease and quiet period are over. How soon after that is row 14 of the campaign.
      expect((await row("last_refreshed_at")) - leaseEnd).toBeGreaterThanOrEqual(10);
      expect(sent()).toEqual([refreshToken, refreshToken]);
      expect(stage.provider.ledger.reuses).toEqual([]);
    });
  });

  it("two replicas without Redis and five hundred callers of an expired connection cause one refresh", async () => {
    await using stage = await ConnectedStage.start({ replicas: 2, redisUrl: null });
    await expectOneRefresh(stage);
  });
});
