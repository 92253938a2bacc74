import { randomBytes } from "node:crypto";
import type { Page } from "playwright-core";
import { request } from "undici";
import { expect, test } from "vitest";
import type { TokenBody } from "../support/broker-api.ts";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { describeWithBrowser } from "../support/browser.ts";
import { freePort } from "../support/free-port.ts";
import { type OidcPeer, startOidcPeer } from "../support/oidc-peer.ts";
import { passTime } from "../support/pass-time.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { describeWithServices, useDatabase, useRedis } from "../support/services/index.ts";

const rotations = 50;
const callersPerReplica = 100;
const lifeSeconds = 3600;
/** The tokens whose life passes. An ordered refresh ends the others. */
const runsOut = (version: number) => version % 10 === 1 && version > 1;

type Stage = { peer: OidcPeer; brokers: BrokerProcess[]; databaseUrl: string; link: string };

/** Two replicas on Postgres and Redis, with the peer as their provider and one connection that nobody has connected. */
async function setStage(): Promise<Stage> {
  const port = await freePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  const peer = await startOidcPeer({
    redirectUris: [`${publicUrl}/callback/oidc-peer`],
    accessLifeSeconds: lifeSeconds,
  });
  const shared = {
    publicUrl,
    databaseUrl: await useDatabase(),
    redisUrl: await useRedis(),
    providersDir: await providersFolder(peer),
    adminKey: randomBytes(32).toString("hex"),
    encryptionKeys: `k1:${randomBytes(32).toString("base64")}`,
  };
  const brokers = await Promise.all([{ ...shared, port }, shared].map(async (each) => startBroker(each)));
  const { api } = brokers[0] as BrokerProcess;
  await api.createClient({
    name: "app",
    provider: peer.id,
    client_id: peer.client.id,
    client_secret: peer.client.secret,
  });
  await api.createConnection({ name: "acme", provider: peer.id, client: "app" });
  return { peer, brokers, databaseUrl: shared.databaseUrl, link: (await api.consentLink("acme")).url };
}

/** The peer's own pages: sign in, then agree. */
async function consent(page: Page, link: string): Promise<string | null> {
  await page.goto(link);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.fill('input[name="login"]', "ada");
  await page.fill('input[name="password"]', "any");
  await page.click("button");
  await page.click("text=Continue");
  await page.waitForURL("**/connected/**");
  return await page.locator("h1").textContent();
}

async function read({ api }: BrokerProcess, query: { min_ttl?: number; wait?: number } = {}): Promise<TokenBody> {
  const { status, body } = await api.token("acme", query);
  if (status === 200) return body;
  throw new Error(`${status}: ${JSON.stringify(body)}`);
}

/** The peer's verdict on an access token. */
async function userInfo({ origin }: OidcPeer, { access_token }: TokenBody): Promise<number> {
  const answer = await request(`${origin}/me`, { headers: { authorization: `Bearer ${access_token}` } });
  await answer.body.dump();
  return answer.statusCode;
}

/** As if the life of the token had passed; the provider does not mind that it is refreshed sooner. */
async function runOut({ brokers, databaseUrl }: Stage): Promise<void> {
  await passTime(lifeSeconds + 1, { databaseUrl, apis: brokers.map(({ api }) => api) });
}

describeWithServices(["postgres", "redis"], "oidc-provider with strict rotation", () => {
  describeWithBrowser("in Chromium", (openPage) => {
    test("gets each refresh token once, through consent, fifty rotations over two replicas and a crowd of callers", async () => {
      const stage = await setStage();
      const { peer, brokers, link } = stage;
      await using stack = new AsyncDisposableStack();
      for (const each of [peer, ...brokers]) stack.use(each);
      expect(await consent(await openPage(), link)).toBe("Connected");

      let token = await read(brokers[0] as BrokerProcess);
      const seen = new Set([token.access_token]);
      for (let version = 2; version <= rotations + 1; version++) {
        const broker = brokers[version % brokers.length] as BrokerProcess;
        if (runsOut(token.version)) await runOut(stage);
        else await broker.api.refresh("acme");
        token = await read(broker, { min_ttl: 0 });
        expect([token.version, token.warnings, peer.refreshes]).toEqual([version, [], version - 1]);
        expect(seen).not.toContain(token.access_token);
        seen.add(token.access_token);
        expect(await userInfo(peer, token)).toBe(200);
      }

      await runOut(stage);
      const crowd = brokers.flatMap((broker) => Array.from({ length: callersPerReplica }, () => broker));
      const answers = await Promise.all(crowd.map(async (broker) => read(broker, { wait: 30 })));
      expect(new Set(answers.map(({ version }) => version))).toEqual(new Set([rotations + 2]));
      expect(new Set(answers.map(({ access_token }) => access_token)).size).toBe(1);
      expect(await userInfo(peer, answers[0] as TokenBody)).toBe(200);

      expect(peer.granted).toEqual([
        "authorization_code",
        ...Array.from({ length: rotations + 1 }, () => "refresh_token"),
      ]);
      expect([peer.refused, peer.reuses, peer.revokedGrants]).toEqual([[], 0, []]);
    });
  });
});
