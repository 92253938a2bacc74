import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Page } from "playwright-core";
import { request } from "undici";
import { expect, test } from "vitest";
import type { TokenBody } from "../support/broker-api.ts";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { describeWithBrowser } from "../support/browser.ts";
import { freePort } from "../support/free-port.ts";
import { type OidcPeer, startOidcPeer } from "../support/oidc-peer.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { describeWithServices, useDatabase, useRedis } from "../support/services/index.ts";

const rotations = 50;
const callersPerReplica = 50;
/** Long enough for a busy machine to read a token while it lives. */
const shortLifeSeconds = 3;
const longLifeSeconds = 3600;
/** The tokens that are left to run out; the others are ended by an order of ops. */
const isShort = (version: number) => version % 10 === 1 && version > 1;

/** Four replicas on Postgres and Redis, with the peer as their provider and one connection that nobody has connected. */
async function setStage(): Promise<{ peer: OidcPeer; brokers: BrokerProcess[]; link: string }> {
  const port = await freePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  const peer = await startOidcPeer({
    redirectUris: [`${publicUrl}/callback/oidc-peer`],
    accessLifeSeconds: longLifeSeconds,
  });
  const shared = {
    publicUrl,
    databaseUrl: await useDatabase(),
    redisUrl: await useRedis(),
    providersDir: await providersFolder(peer),
    adminKey: randomBytes(32).toString("hex"),
    encryptionKeys: `k1:${randomBytes(32).toString("base64")}`,
  };
  const brokers = await Promise.all(
    [{ ...shared, port }, shared, shared, shared].map(async (each) => startBroker(each)),
  );
  const { api } = brokers[0] as BrokerProcess;
  await api.createClient({
    name: "app",
    provider: peer.id,
    client_id: peer.client.id,
    client_secret: peer.client.secret,
  });
  await api.createConnection({ name: "acme", provider: peer.id, client: "app" });
  return { peer, brokers, link: (await api.consentLink("acme")).url };
}

/** The peer's own pages: sign in, then agree. */
async function consent(page: Page, link: string): Promise<string | null> {
  await page.goto(link);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.fill('input[name="login"]', "ada");
  await page.fill('input[name="password"]', "any");
  await page.click("button");
  await page.click("text=Continue");
  await page.waitForURL("**/callback/oidc-peer?**");
  return await page.locator("h1").textContent();
}

async function read({ api }: BrokerProcess, query: { min_ttl?: number } = {}): Promise<TokenBody> {
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

async function runOut({ expires_at }: TokenBody): Promise<void> {
  await sleep(Math.max(0, Date.parse(expires_at ?? "") - Date.now() + 100));
}

describeWithServices(["postgres", "redis"], "oidc-provider with strict rotation", () => {
  describeWithBrowser("in Chromium", (openPage) => {
    test("gets each refresh token once, through consent, fifty rotations over four replicas and a crowd of callers", async () => {
      const { peer, brokers, link } = await setStage();
      await using stack = new AsyncDisposableStack();
      for (const each of [peer, ...brokers]) stack.use(each);
      expect(await consent(await openPage(), link)).toBe("Connected");

      let token = await read(brokers[0] as BrokerProcess);
      const seen = new Set([token.access_token]);
      for (let version = 2; version <= rotations + 1; version++) {
        const broker = brokers[version % brokers.length] as BrokerProcess;
        peer.accessLifeSeconds = isShort(version) ? shortLifeSeconds : longLifeSeconds;
        if (isShort(token.version)) await runOut(token);
        else await broker.api.refresh("acme");
        token = await read(broker, { min_ttl: 0 });
        expect([token.version, token.warnings, peer.refreshes]).toEqual([version, [], version - 1]);
        expect(seen).not.toContain(token.access_token);
        seen.add(token.access_token);
        expect(await userInfo(peer, token)).toBe(200);
      }

      peer.accessLifeSeconds = longLifeSeconds;
      await runOut(token);
      const crowd = brokers.flatMap((broker) => Array.from({ length: callersPerReplica }, () => broker));
      const answers = await Promise.all(crowd.map(async (broker) => read(broker)));
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
