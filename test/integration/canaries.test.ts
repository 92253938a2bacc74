import { Client } from "pg";
import { expect, it } from "vitest";
import { findCanaries } from "../support/canaries.ts";
import { sendWrongRequests } from "../support/canary-requests.ts";
import * as run from "../support/canary-run.ts";
import { answer, type CanaryStage, setCanaryStage } from "../support/canary-stage.ts";
import { withRedis } from "../support/services/redis.ts";
import { describeWithServices } from "../support/services/index.ts";

/** Every kind of secret that must have occurred in the run. */
const kinds = [
  "API key",
  "PKCE verifier",
  "access token",
  "admin key",
  "authorization code",
  "browser cookie",
  "client secret",
  "completion ticket",
  "consent link",
  "consent state",
  "database password",
  "encryption key",
  "metrics key",
  "password",
  "refresh token",
];

/** One secret in each kind of place, each in another spelling. */
async function plant({ postgres, redis, provider, adminKey, encryptionKey, brokers, api }: CanaryStage): Promise<void> {
  const [refreshToken = ""] = provider.ledger.currentRefreshTokens();
  const client = new Client({ connectionString: postgres.url });
  await client.connect();
  await client.query("UPDATE clients SET inputs = jsonb_build_object('planted', $1::text)", [refreshToken]);
  await client.query("UPDATE clients SET secret_sealed = $1", [Buffer.from(`x${provider.client.secret}`)]);
  await client.end();
  await withRedis(redis.url, async (connection) => {
    await connection.hset("planted", "key", encryptionKey.toString("base64url"));
    await connection.publish("planted", Buffer.from(`ab${adminKey}`).toString("base64"));
  });
  const [first] = brokers;
  if (first) first.stderr += JSON.stringify(Buffer.from(adminKey));
  await api.changeConnection("acme", { labels: { planted: refreshToken } });
}

describeWithServices(["postgres", "redis"], "a run through everything that meets secrets", () => {
  it("leaves none of them in Postgres, Redis, logs, data folders or answers; planted ones are found there", async () => {
    await using stage = await setCanaryStage();
    await run.register(stage);
    expect(await run.consent(stage)).toEqual([200, 502, 502, 200]);
    expect(await run.completeByApp(stage)).toEqual([403, 422, 200, 200, 422]);
    expect(await run.handOver(stage)).toEqual([200, 200, 200, 409, 422]);
    expect(new Set(await run.readEverything(stage))).toEqual(new Set([200]));
    expect(await run.failRefreshes(stage)).toEqual([409, 502, 503]);
    expect(await run.failCredentials(stage)).toEqual([422, 422, 201, 409]);
    expect(await run.changeSecret(stage)).toEqual([502, 200]);
    expect(await sendWrongRequests(stage)).toEqual([]);
    await run.remove(stage);
    expect(await run.outage(stage)).toEqual([200, 503, 503, 503, 503, 503, 503]);

    expect([...new Set(stage.canaries().map(({ what }) => what))].sort()).toEqual(kinds);
    const places = await stage.places();
    expect(findCanaries(stage.canaries(), places)).toEqual([]);
    // A name in the path goes into a query of Postgres and into the text of a 404, and nowhere else.
    const kept = places.filter(({ where }) => !/^(statements|the answer 404)/.test(where));
    expect(findCanaries([{ what: "key in a path", value: stage.pastedKey }], kept)).toEqual([]);

    await plant(stage);
    expect(findCanaries(stage.canaries(), await stage.places())).toEqual([
      "admin key (base64) in Redis commands",
      "admin key (bytes) in stderr 1",
      "client secret (hex) in Postgres",
      "client secret (hex) in statements",
      "encryption key (base64) in Redis",
      "encryption key (base64) in Redis commands",
      "refresh token (plain) in Postgres",
      "refresh token (plain) in statements",
      "refresh token (plain) in the answer 200 to PATCH /connections/acme",
    ]);
    const answers = stage.proxy.exchanges.map((exchange) => answer(exchange));
    const handedOut = findCanaries(stage.canaries(), answers).filter((finding) => !finding.startsWith("refresh token"));
    expect(handedOut).toEqual([
      "API key (plain) in the answer 201 to POST /keys",
      ...["acme", "admin", "integration", "soup", "twin"].map(
        (name) => `access token (plain) in the answer 200 to GET /tokens/${name}`,
      ),
      "browser cookie (plain) in the answer 200 to GET /connect/:link",
      "completion ticket (plain) in the answer 303 to GET /callback/strict",
      "consent link (plain) in the answer 201 to POST /connections/acme/consent-links",
      "consent link (plain) in the answer 201 to POST /connections/of-app/consent-links",
      "consent state (plain) in the answer 303 to POST /connect/:link",
    ]);
  });
});
