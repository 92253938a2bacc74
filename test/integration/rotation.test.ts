import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runFreshet } from "../../src/cli/program.ts";
import type { BrokerProcess } from "../support/broker-process.ts";
import { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useRedis } from "../support/services/index.ts";
import { withRedis } from "../support/services/redis.ts";

const k1 = `k1:${randomBytes(32).toString("base64")}`;
const k2 = `k2:${randomBytes(32).toString("base64")}`;

let stage: ConnectedStage;
let redisUrl: string;
let serviceKey: string;
let link: string;
let deletedId: string;
const names = Array.from({ length: 6 }, (_none, index) => `rotated-${index}`);
const failures: string[] = [];
const reading = { on: true, done: Promise.resolve() };

/** Reads on and on, each time at a broker that runs; every second read wants a token that lives long enough to be refreshed. */
async function readOn(): Promise<void> {
  for (let turn = 0; reading.on; turn++) {
    const name = names[turn % names.length] ?? "";
    const order = turn % 2 === 0 ? stage.brokers : stage.brokers.toReversed();
    const options = { key: serviceKey, min_ttl: 60 };
    const answers = [];
    for (const { api } of order) {
      const answer = await api.token(name, options).catch(() => null);
      // It is down, or has just begun to stop.
      const isDown = answer === null || (answer.status === 503 && answer.body.code === undefined);
      answers.push(isDown ? null : answer);
      if (!isDown) break;
    }
    const last = answers.at(-1);
    // Both may be starting, at most for a moment. The one that is killed may have begun a refresh, whose permit stands until its time is over.
    const mustComeAgain = last?.status === 503 && last.body.code === "refresh_in_progress";
    if (last !== null && last?.status !== 200 && !mustComeAgain) {
      failures.push(`${last?.status} ${JSON.stringify(last?.body)}`);
    }
    await sleep(5); // leaves the machine to what is tested
  }
}

async function restart(broker: BrokerProcess, keys: string): Promise<void> {
  await broker.stop("SIGINT");
  broker.change({ ENCRYPTION_KEYS: keys });
  await broker.start();
}

/** A start that is refused: its exit code, and what it says. */
async function refused(broker: BrokerProcess, keys: string): Promise<{ code: number | null; stderr: string }> {
  await broker.stop("SIGINT");
  broker.change({ ENCRYPTION_KEYS: keys });
  broker.stderr = "";
  broker.launch();
  return { code: await broker.ended(), stderr: broker.stderr };
}

async function freshet(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: "", err: "" };
  const terminal = {
    out: (text: string) => void (said.out += text),
    outAll: async (text: string) => void (said.out += text),
    err: (text: string) => void (said.err += text),
    interactive: false,
    readStdin: async () => "",
    readLine: async () => "",
    ask: async () => "",
    askHidden: async () => "",
  };
  const env = { FRESHET_URL: stage.first.url, FRESHET_KEY: stage.first.adminKey };
  const code = await runFreshet(args, { terminal, env, nowMs: Date.now, sleep: async () => await sleep(50) });
  return { code, ...said };
}

type KeyUse = { id: string; current: boolean; free: boolean; named: boolean; reasons: string[]; marks: number };
type Status = { keys: KeyUse[]; replicas: { name: string; keys: string[]; present: boolean }[] };

const keyOf = async (id: string): Promise<KeyUse | undefined> =>
  (await stage.first.api.api<Status>("/encryption")).body.keys.find((key) => key.id === id);

describeWithServices(
  ["postgres", "redis"],
  "two brokers whose encryption key is replaced while tokens are read",
  () => {
    beforeAll(async () => {
      redisUrl = await useRedis();
      // A broker that is killed may have sent a refresh token whose answer is lost with it. It is sent once more, which a grace allows.
      const provider = { switches: { accessLifeSeconds: 3, reuse: "grace", graceSeconds: 600 } } as const;
      stage = await ConnectedStage.start({
        replicas: 2,
        redisUrl,
        provider,
        env: { ENCRYPTION_KEYS: k1 },
        each: (replica) => (replica === 0 ? { failpoints: {} } : {}),
      });
      const { api } = stage.first;
      for (const name of [...names, "deleted", "waiting"]) await stage.connect(name);
      serviceKey = await api.createKey({ name: "service", abilities: ["tokens"], connections: ["rotated-*"] });
      link = (await api.consentLink("waiting")).url;
      const [row] = await query<{ id: string }>(
        stage.databaseUrl,
        "SELECT id::text FROM connections WHERE name = 'deleted'",
      );
      deletedId = row?.id ?? "";
      await api.api("/connections/deleted?revoke=false", { method: "DELETE" });
      reading.done = readOn();
    });

    afterAll(async () => {
      reading.on = false;
      await reading.done;
      await stage[Symbol.asyncDispose]();
    });

    it("do not use a key that one of them lacks, whose old list is still good for a start", async () => {
      await restart(stage.first, `${k2},${k1}`);
      expect(await keyOf("k2")).toMatchObject({ named: false, free: true, current: false });
      expect(await keyOf("k1")).toMatchObject({ named: true, free: false, current: true });
      await restart(stage.brokers[1] as BrokerProcess, k1);
      const { status, body } = await stage.first.api.api("/encryption/rotate", { method: "POST", body: {} });
      expect(status).toBe(409);
      expect(body["detail"]).toContain("these replicas lack it");
      const { code, err } = await freshet("encryption", "rotate");
      expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(/lack it.*\(conflict\)/) });
    });

    it("use it when all have it; then none starts without", async () => {
      await restart(stage.brokers[1] as BrokerProcess, `${k2},${k1}`);
      await until("the first broker uses it", async () => (await keyOf("k2"))?.current === true);
      const lacking = await refused(stage.brokers[1] as BrokerProcess, k1);
      expect(lacking.code).toBe(2);
      expect(lacking.stderr).toContain('ENCRYPTION_KEYS lacks the key "k2"');
      await restart(stage.brokers[1] as BrokerProcess, `${k2},${k1}`);
    });

    it("move everything to it, even if the one that does so is killed in the middle", async () => {
      stage.first.setFailpoints({ "rows moved": { action: "kill" } });
      // It may be killed before it has answered.
      const begun = await stage.first.api.api("/encryption/rotate", { method: "POST", body: {} }).catch(() => null);
      expect(begun?.status ?? 202).toBe(202);
      expect(await stage.first.ended()).toBeNull();
      // As if its lease were over.
      await query(stage.databaseUrl, "UPDATE rotations SET lease_until = now() - interval '1 second'");
      stage.first.setFailpoints({});
      await stage.first.start();
      // A rotation for the same key goes on; the command waits for it, and shows what is left.
      await query(
        stage.databaseUrl,
        `INSERT INTO replicas (id, name, heard_at, seen_at, key_ids, current_key, held_key_ids)
         VALUES (gen_random_uuid(), 'burnt:8080', now(), now() - interval '2 days', '{k1}', 'k1', '{k1}')`,
      );
      const kept = await freshet("encryption", "rotate");
      expect([kept.code, kept.err]).toEqual([0, expect.stringContaining("Everything that opens is under the key k2")]);
      expect(kept.out).toMatch(/^k1 +in use +0 +0 +0 +burnt:8080 has not been seen since .*\(abandon_spool\)$/m);
      const { code, out, err } = await freshet("encryption", "rotate", "--abandon-spool", "burnt:8080");
      expect(code).toBe(0);
      expect(err).toContain("Everything that opens is under the key k2");
      expect(err).toContain("Nothing is under k1");
      expect(out).toMatch(/^k1 +free +0 +0 +0 +-$/m);
      expect(out).toMatch(/^k2 +current +\d+ +\d+ +\d+/m);
      expect(await keyOf("k1")).toMatchObject({ free: true, named: false, reasons: [], marks: 0 });
      const rotation = await stage.first.api.api("/encryption/rotation");
      expect(rotation.body).toMatchObject({ state: "finished", unopened: [], waits_for: null });
      const { out: json } = await freshet("encryption", "status", "--json");
      expect(JSON.parse(json)).toMatchObject({ current_key: "k2", rotation: { state: "finished" } });
    });

    it("work without the old key from then on: tokens, keys, links, and marks of what was deleted", async () => {
      for (const broker of stage.brokers) await restart(broker, k2);
      const { api } = stage.first;
      for (const name of names) expect((await api.token(name, { key: serviceKey, min_ttl: 60 })).status).toBe(200);
      expect((await fetch(link)).status).toBe(200);
      const mark = await withRedis(redisUrl, async (redis) => await redis.hget("freshet:generations", deletedId));
      expect(mark).toMatch(/^2000000000:\d+:k2\./);
      const old = await refused(stage.first, k1);
      expect(old).toEqual({ code: 2, stderr: expect.stringContaining('ENCRYPTION_KEYS lacks the key "k2"') });
      await restart(stage.first, k2);
    });

    it("failed no read meanwhile, and sent no refresh token again but what the killed one had sent", async () => {
      reading.on = false;
      await reading.done;
      const { ledger } = stage.provider;
      expect(failures).toEqual([]);
      expect(ledger.refreshes()).toBeGreaterThan(names.length);
      const sentAgain = ledger.tokens.filter(({ kind, seen }) => kind === "refresh" && seen > 1);
      expect(ledger.reuses).toEqual([]);
      expect(sentAgain.filter(({ seen }) => seen > 2)).toEqual([]);
      expect(sentAgain.length).toBeLessThanOrEqual(names.length);
    });
  },
);
