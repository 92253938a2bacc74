import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { endKey, endsChannel } from "../../src/coordination/end-messages.ts";
import type { BrokerProcess } from "../support/broker-process.ts";
import { ConnectedStage } from "../support/connected-stage.ts";
import { type FaultProxy, startFaultProxy } from "../support/faults/tcp-proxy.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useDatabase, useRedis } from "../support/services/index.ts";
import { withRedis } from "../support/services/redis.ts";

const unconfirmed = "freshet-unconfirmed";

/** Two replicas. The second one's way to Postgres, and to Redis where there is one, can be cut. */
class Pair implements AsyncDisposable {
  readonly stage: ConnectedStage;
  readonly toPostgres: FaultProxy;
  readonly toRedis: FaultProxy | null;
  readonly #name = { next: 0 };

  constructor(stage: ConnectedStage, toPostgres: FaultProxy, toRedis: FaultProxy | null) {
    this.stage = stage;
    this.toPostgres = toPostgres;
    this.toRedis = toRedis;
  }

  static async start(redisUrl: string | null): Promise<Pair> {
    const databaseUrl = await useDatabase();
    const toPostgres = await startFaultProxy(databaseUrl);
    const toRedis = redisUrl === null ? null : await startFaultProxy(redisUrl);
    const second = { databaseUrl: toPostgres.url, ...(toRedis && { redisUrl: toRedis.url }) };
    const each = (replica: number) => (replica === 1 ? second : {});
    const stage = await ConnectedStage.start({ replicas: 2, databaseUrl, redisUrl, each });
    return new Pair(stage, toPostgres, toRedis);
  }

  get first(): BrokerProcess {
    return this.stage.first;
  }

  get second(): BrokerProcess {
    return this.stage.brokers[1] as BrokerProcess;
  }

  newName(): string {
    return `peer-${this.#name.next++}`;
  }

  /** A connection with a token that lives for an hour, and that both replicas have in memory. */
  async connect(name: string): Promise<string> {
    const { accessToken, refreshToken = "" } = this.stage.provider.issueTokenSet();
    await this.stage.create(name);
    const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 3600 };
    await this.first.api.importTokens(name, set);
    for (const { api } of this.stage.brokers) expect((await api.token(name)).status).toBe(200);
    return accessToken;
  }

  /** A key of a service, which both replicas have verified by reading with it. */
  async key(name: string): Promise<{ key: string; id: string }> {
    const key = await this.first.api.createKey({ name: "service", abilities: ["tokens"], connections: [name] });
    for (const { api } of this.stage.brokers) expect((await api.token(name, { key })).status).toBe(200);
    return { key, id: key.split("_")[1] ?? "" };
  }

  /** From here on the second replica has no Postgres, and has noticed. */
  async cut(): Promise<void> {
    this.toPostgres.faults.newConnections = "reset";
    this.toPostgres.reset();
    await until("the second replica misses Postgres", async () => {
      const { body } = await this.second.api.api("/readyz");
      return body["status"] === "degraded";
    });
  }

  async heal(): Promise<void> {
    this.toPostgres.heal();
    this.toRedis?.heal();
    await until("the second replica has Postgres", async () => {
      const { body } = await this.second.api.api("/readyz");
      return body["status"] === "ok";
    });
  }

  async delete(path: string): Promise<string | undefined> {
    const { status, headers } = await this.first.api.api(path, { method: "DELETE" });
    expect(status).toBe(204);
    return headers[unconfirmed] as string | undefined;
  }

  /** Without a header the second replica has heard of it. On a slow machine it hears later, and is named. */
  async deleteHeard(path: string, hasHeard: () => Promise<boolean>): Promise<void> {
    if ((await this.delete(path)) !== undefined) await until("the second replica has heard of it", hasHeard);
  }

  /** What the second replica answers: the token, or the code of its refusal. */
  async read(name: string, key?: string): Promise<string> {
    const { body } = await this.second.api.token(name, key === undefined ? {} : { key });
    return body.code ?? body.access_token;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stage[Symbol.asyncDispose]();
    await this.toPostgres[Symbol.asyncDispose]();
    await this.toRedis?.[Symbol.asyncDispose]();
  }
}

/** Deletes a connection that both replicas have in memory and makes another one of its name, while the second replica is asked all the time. */
async function reuseWhileRead(pair: Pair): Promise<{ foreign: number; reads: number }> {
  const name = pair.newName();
  const old = await pair.connect(name);
  const state = { isMade: false, isOver: false };
  const counts = { foreign: 0, reads: 0 };
  const reader = async () => {
    while (!state.isOver) {
      const wasMade = state.isMade;
      const answer = await pair.read(name);
      counts.reads++;
      if (wasMade && answer === old) counts.foreign++;
    }
  };
  const readers = [reader(), reader()];
  await pair.delete(`/connections/${name}?revoke=false`);
  await pair.stage.create(name);
  state.isMade = true;
  await until(
    "the new connection at the second replica",
    async () => (await pair.read(name)) === "authorization_pending",
  );
  state.isOver = true;
  await Promise.all(readers);
  return counts;
}

describeWithServices(["postgres", "redis"], "replicas that share Redis", () => {
  let pair: Pair;
  let redisUrl: string;
  beforeAll(async () => {
    redisUrl = await useRedis();
    pair = await Pair.start(redisUrl);
  });
  afterAll(async () => await pair[Symbol.asyncDispose]());

  it("a key that was verified stays good at a replica without Postgres; revoked elsewhere it is refused there, and the answer knows", async () => {
    const name = pair.newName();
    const token = await pair.connect(name);
    const [kept, ended] = [await pair.key(name), await pair.key(name)];
    await pair.cut();
    expect([await pair.read(name, kept.key), await pair.read(name, ended.key)]).toEqual([token, token]);
    await pair.deleteHeard(`/keys/${ended.id}`, async () => (await pair.read(name, ended.key)) !== token);
    expect([await pair.read(name, kept.key), await pair.read(name, ended.key)]).toEqual([token, "unauthenticated"]);
    await pair.heal();
  });

  it("one that misses the message is named, and asks Redis by itself", async () => {
    const name = pair.newName();
    const token = await pair.connect(name);
    const { key, id } = await pair.key(name);
    await pair.cut();
    if (pair.toRedis !== null) pair.toRedis.faults.losesPushes = true;
    expect(await pair.delete(`/keys/${id}`)).toMatch(/^[\w.-]+:\d+$/);
    await until("it has asked", async () => (await pair.read(name, key)) === "unauthenticated");
    expect(await pair.read(name)).toBe(token); // nothing else has ended
    await pair.heal();
  });

  it("a deleted connection's token is served by nobody, without Postgres either, and never under the next one of its name", async () => {
    const name = pair.newName();
    const token = await pair.connect(name);
    const { key } = await pair.key(name);
    await pair.cut();
    await pair.deleteHeard(`/connections/${name}`, async () => (await pair.read(name, key)) !== token);
    expect(await pair.read(name, key)).toBe("storage_unavailable");
    await pair.stage.create(name);
    expect(await pair.read(name, key)).toBe("storage_unavailable");
    await pair.heal();
    await until("the new connection", async () => (await pair.read(name)) === "authorization_pending");
    expect(await reuseWhileRead(pair)).toMatchObject({ foreign: 0 });
  });

  it("one with other labels is not served to callers of the labels before, though the replica has no Postgres", async () => {
    const name = pair.newName();
    const token = await pair.connect(name);
    await pair.first.api.changeConnection(name, { labels: { customer: "acme" } });
    const bounds = { connections: ["*"], labels: { customer: "acme" } };
    const key = await pair.first.api.createKey({ name: "tenant", abilities: ["tokens"], ...bounds });
    await until("it is served", async () => (await pair.read(name, key)) === token);
    await pair.cut();
    expect(await pair.read(name, key)).toBe(token);
    await pair.first.api.changeConnection(name, { labels: { customer: "beta" } });
    await until("it is not served", async () => (await pair.read(name, key)) === "storage_unavailable");
    await pair.heal();
    await until("its end is known", async () => (await pair.read(name, key)) === "connection_not_found");
    await until("others are served", async () => (await pair.read(name)) === token);
  });

  it("a disabled one is served by nobody; forged and repeated messages hold up none, and bring none back", async () => {
    const [name, other] = [pair.newName(), pair.newName()];
    const token = await pair.connect(name);
    const otherToken = await pair.connect(other);
    const [{ id } = { id: "" }, { id: otherId } = { id: "" }] = await query<{ id: string }>(
      pair.stage.databaseUrl,
      "SELECT id::text AS id FROM connections WHERE name = ANY($1) ORDER BY name = $2 DESC",
      [[name, other], name],
    );
    const seen: string[] = [];
    await withRedis(redisUrl, async (redis) => {
      const [spy, channel] = [redis.duplicate(), endsChannel(redis)];
      await spy.subscribe(channel);
      spy.on("message", (_channel, text: string) => void seen.push(text));
      await pair.cut();
      await pair.first.api.changeConnection(name, { disabled: true });
      await until("it is not served", async () => (await pair.read(name)) === "storage_unavailable");
      const kept = await until("it is kept", () => redis.get(endKey({ kind: "connection", id })));
      await until("the message", () => seen.length > 0);

      // Somebody without an encryption key repeats what was said of one connection for another one, and for a key.
      const told = seen
        .map((text) => JSON.parse(text) as Record<string, unknown>)
        .find((one) => one["kind"] === "told");
      const end = told?.["end"] as Record<string, unknown>;
      const forged = [{ ...told, end: { ...end, id: otherId } }, { ...told, nonce: "again" }, { end: null }, "text"];
      for (const message of forged) await redis.publish(channel, JSON.stringify(message));
      await redis.set(endKey({ kind: "connection", id: otherId }), kept);
      for (const garbage of ["", "1:k1.x", kept.replace(/^\d+/, "9999999999999")]) {
        await redis.set(endKey({ kind: "connection", id: otherId }), garbage);
        expect(await pair.read(other)).toBe(otherToken);
      }
      await redis.del(endKey({ kind: "connection", id: otherId }));
      await redis.rpush(endKey({ kind: "connection", id: otherId }), "another type");
      // Whoever deletes the entries brings nothing back, either.
      await redis.del(endKey({ kind: "connection", id }));
      expect(await pair.read(name)).toBe("storage_unavailable");

      await pair.heal();
      expect(await pair.read(name)).toBe("connection_disabled");
      await pair.first.api.changeConnection(name, { disabled: false });
      await until("it is served again", async () => (await pair.read(name)) === token);
      await pair.cut();
      const sent = seen.slice(); // a copy, since each message that is sent again is added to `seen`
      for (const text of sent) await redis.publish(channel, text);
      await redis.set(endKey({ kind: "connection", id }), kept);
      const rejected = async () => {
        const { body } = await pair.second.api.api<string>("/metrics");
        return Number(/freshet_redis_rejected_total\{kind="end"\} (\d+)/.exec(body)?.[1] ?? 0);
      };
      const before = await rejected();
      expect(before).toBeGreaterThan(0);
      // When the counter has moved, the replica has asked Redis: it has met the entry of another type.
      await until("it has asked", async () => {
        expect([await pair.read(name), await pair.read(other)]).toEqual([token, otherToken]);
        return (await rejected()) > before;
      });
      expect([await pair.read(name), await pair.read(other)]).toEqual([token, otherToken]);
      await pair.heal();
      spy.disconnect();
    });
  });

  // The last one: its replica stays down.
  it("a read at a replica that shuts down waits for another one's refresh", async () => {
    const name = pair.newName();
    await pair.stage.connectExpired(name);
    const ended = pair.first.stop();
    await until("it drains", async () => (await pair.first.api.api("/readyz").catch(() => null))?.status !== 200);
    // On a slow machine the broker may not listen any more. Then this test proves less.
    const reply = await pair.first.api.token(name, { wait: 30 }).catch(() => null);
    expect([reply?.status, reply?.body.code]).toEqual(reply === null ? [undefined, undefined] : [200, undefined]);
    await ended;
  });
});

describeWithServices(["postgres"], "replicas that share Postgres alone", () => {
  let pair: Pair;
  beforeAll(async () => void (pair = await Pair.start(null)));
  afterAll(async () => await pair[Symbol.asyncDispose]());

  describe("a name that is used again", () => {
    it("is never answered with the token of the connection that had it before", async () => {
      const counts = await Promise.all(Array.from({ length: 3 }, () => reuseWhileRead(pair)));
      expect(counts.map(({ foreign }) => foreign)).toEqual(counts.map(() => 0));
    });

    it("is not to be had while a replica cannot be told, which is named", async () => {
      const name = pair.newName();
      const token = await pair.connect(name);
      await pair.cut();
      const named = await pair.delete(`/connections/${name}`);
      expect(named).toMatch(/^[\w.-]+:\d+$/);
      const body = { name, provider: pair.stage.provider.id, client: pair.stage.client };
      const refused = await pair.first.api.api("/connections", { method: "POST", body });
      expect([refused.status, refused.body["code"]]).toEqual([409, "conflict"]);
      expect(refused.body["detail"]).toContain(`${named} may still serve its token`);
      expect(await pair.read(name)).toBe(token);
      await pair.heal();
      await until("it has heard", async () => (await pair.read(name)) === "connection_not_found");
      await pair.stage.create(name);
    });
  });

  it("a key that is revoked is refused by all that have Postgres, and those that have not are named", async () => {
    const name = pair.newName();
    const token = await pair.connect(name);
    const [one, other] = [await pair.key(name), await pair.key(name)];
    await pair.delete(`/keys/${one.id}`);
    await until("it is refused", async () => (await pair.read(name, one.key)) === "unauthenticated");
    await pair.cut();
    expect(await pair.delete(`/keys/${other.id}`)).toMatch(/^[\w.-]+:\d+$/);
    expect(await pair.read(name, other.key)).toBe(token);
    await pair.heal();
    await until("it is refused", async () => (await pair.read(name, other.key)) === "unauthenticated");
  });
});
