import { writeFile } from "node:fs/promises";
import { Agent, get } from "node:http";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { BrokerProcess } from "../support/broker-process.ts";
import { ConnectedStage } from "../support/connected-stage.ts";
import { TokenIssuer } from "../support/issuer.ts";
import { until } from "../support/patience.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { temporaryFolder } from "../support/services/guardian.ts";

type Answer = { status: number; headers: string[]; body: string };

const agent = new Agent({ keepAlive: true });

/** All that comes back, apart from what Node adds to each answer by its own clock. */
async function ask({ url }: BrokerProcess, path: string, authorization: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  get(url + path, { agent, headers: { authorization } }, (answer) => {
    const chunks: Buffer[] = [];
    answer.on("data", (chunk: Buffer) => chunks.push(chunk));
    answer.on("end", () => {
      const headers = answer.rawHeaders.filter((_each, index, all) => !/^date$/i.test(all[index - (index % 2)] ?? ""));
      resolve({ status: answer.statusCode ?? 0, headers, body: Buffer.concat(chunks).toString("utf8") });
    });
  }).on("error", reject);
  return await promise;
}

/** The same apart from the seconds that are left, which must be those of some moment between both questions. */
function withoutSeconds({ body, headers, status }: Answer) {
  const [, seconds = null] = /"expires_in":(\d+),/.exec(body) ?? [];
  const places = seconds?.length ?? 0;
  const length = headers[headers.findIndex((each) => each.toLowerCase() === "content-length") + 1];
  const rest = body.replace(/"expires_in":\d+,/, '"expires_in":N,');
  return {
    seconds: seconds === null ? null : Number(seconds),
    rest: { status, body: rest, headers: headers.filter((each) => each !== length), length: Number(length) - places },
  };
}

/** Sets that a provider may give, and what may have become of the connection since. None changes while the test runs, however long that takes. */
const sets: Record<string, unknown>[] = [
  { expires_in: 3600, refresh_token: "r1" },
  { expires_in: 7200 },
  { refresh_token: "r5" },
  { expires_in: 86_400, scope: "read write" },
  { expires_in: 86_400, scope: 'quote" back\\slash é ☃ 😀 \u2028' },
  { expires_in: 315_360_000, refresh_token: "r8" },
];
const changes = [
  null,
  "last_error_code = 'provider_unavailable', last_error_detail = 'away', last_error_at = now()",
  "lifetime_unreadable = true",
  "token_type = 'MAC \"x\" é'",
  "expires_at = NULL",
  "version = 2147483646",
  "granted_scopes = '{}'",
  "expires_at = now() - interval '1 s', issued_at = now() - interval '1 h', refresh_token_sealed = NULL",
  "expires_at = now() + interval '1 h', issued_at = now() - interval '9 h', refresh_token_sealed = NULL",
];

const levelOf = (replica: number) => ({ failpoints: {}, env: replica === 0 ? {} : { LOG_LEVEL: "debug" } });

/** A workload of a file, and the bearer that is taken for it. */
async function makeWorkload(): Promise<{ file: string; bearer: string }> {
  const issuer = await TokenIssuer.create();
  const file = join((await temporaryFolder("workloads")).path, "workloads.json");
  const rules = { audience: "freshet", match: { sub: "shop:sync" }, abilities: ["tokens"], connections: ["acme-*"] };
  await writeFile(
    file,
    JSON.stringify({ workloads: [{ name: "sync", issuer: issuer.url, jwks: issuer.jwks(), ...rules }] }),
  );
  const exp = Math.floor(Date.now() / 1000) + 80_000;
  return { file, bearer: `Bearer ${await issuer.sign({ claims: { exp } })}` };
}

const revoked = new Set<string>();
const isRight = (bearer: string) => bearer.length > 40 && !revoked.has(bearer);

describe("a fresh read that is answered before the framework", () => {
  let stage: ConnectedStage;
  /** The first takes the short way where it can. At the log level of the other, nothing does. */
  let short: BrokerProcess;
  let general: BrokerProcess;
  const names: string[] = [];
  const bearers: string[] = [];
  let ofWorkload: string;

  beforeAll(async () => {
    const workload = await makeWorkload();
    const env = { WORKLOADS_FILE: workload.file };
    const each = (replica: number) => ({ ...levelOf(replica), env: { ...env, ...levelOf(replica).env } });
    stage = await ConnectedStage.start({ replicas: 2, redisUrl: null, each });
    [short, general] = stage.brokers as [BrokerProcess, BrokerProcess];
    const { api } = stage.first;
    const provider = stage.provider.id;
    const client = new Client({ connectionString: stage.databaseUrl });
    await client.connect();
    for (const [index, set] of [
      ...sets,
      ...changes.map(() => ({ expires_in: 86_400, refresh_token: "r" })),
    ].entries()) {
      const name = `acme-${index}`;
      names.push(name);
      const labels = index % 3 === 0 ? { customer: "acme" } : {};
      await api.createConnection({ name, provider, client: stage.client, grant: "import", labels });
      const unique = "refresh_token" in set ? { refresh_token: `${String(set["refresh_token"])}-${index}` } : {};
      await api.importTokens(name, { access_token: `token-${index}`, ...set, ...unique });
      const change = changes[index - sets.length];
      if (change === null || change === undefined) continue;
      await client.query(`UPDATE connections SET ${change} WHERE name = $1`, [name]);
      // With the answer to this, the broker has the row as it is now.
      expect((await api.api(`/connections/${name}`, { method: "PATCH", body: { labels } })).status).toBe(200);
    }
    await client.end();
    await api.api(`/connections/${names[1]}`, { method: "PATCH", body: { disabled: true } });
    const abilities = ["tokens"];
    const keys = [
      { abilities, connections: ["*"] },
      { abilities, connections: ["acme-1*"] },
      { abilities, connections: ["*"], labels: { customer: "acme" } },
      { abilities: ["connections"], connections: ["*"] },
      {
        abilities: ["admin", "tokens"],
        connections: [...Array.from({ length: 99 }, (_, n) => `x-${n}-*-y`), "acme-*"],
      },
    ];
    for (const [index, body] of keys.entries()) {
      const made = await api.api("/keys", { method: "POST", body: { name: `k${index}`, ...body } });
      bearers.push(`Bearer ${String(made.body["key"])}`);
    }
    ofWorkload = workload.bearer;
    bearers.push(ofWorkload);
    const gone = await api.api("/keys", { method: "POST", body: { name: "gone", abilities, connections: ["*"] } });
    revoked.add(`Bearer ${String(gone.body["key"])}`);
    bearers.push(`Bearer ${String(gone.body["key"])}`, `bearer   ${bearers[0]?.slice(7)}`, "Bearer x", "Basic eDp5");
    await api.api(`/keys/${String(gone.body["id"])}`, { method: "DELETE" });
  }, 0);

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
    agent.destroy();
  });

  it("has the bytes of the general way, whoever asks for whatever", async () => {
    const random = seededRandom(7);
    const paths = [
      ...names.map((name) => `/tokens/${name}`),
      "/tokens/nobody",
      "/tokens/",
      "/tokens/acme-0?",
      "/tokens/acme-0?min_ttl=0",
      "/tokens/acme-%30",
      "/tokens/acme-0/",
      "/tokens/ACME-0",
    ];
    // Of the wrong ones only as many as an address may send in a minute.
    const wrong = bearers.filter((bearer) => !isRight(bearer));
    const ofRight = paths.flatMap((path) => bearers.filter(isRight).map((bearer) => ({ path, bearer })));
    const ofWrong = wrong.map((bearer, index) => ({ path: paths[index] ?? "", bearer }));
    const cases = [...ofRight, ...ofWrong].map(({ path, bearer }) => ({ path, bearer, order: random() }));
    for (const { path, bearer } of cases.toSorted((one, other) => one.order - other.order)) {
      if (isRight(bearer)) await ask(short, path, bearer); // it may be the first one of its kind
      const [first, other, last] = [
        await ask(short, path, bearer),
        await ask(general, path, bearer),
        await ask(short, path, bearer),
      ].map(withoutSeconds);
      expect([path, other?.rest]).toEqual([path, first?.rest]);
      expect([path, last?.rest]).toEqual([path, first?.rest]);
      if (first === undefined || first.seconds === null) expect(other?.seconds).toBeNull();
      else {
        expect(other?.seconds).toBeLessThanOrEqual(first.seconds);
        expect(other?.seconds).toBeGreaterThanOrEqual(last?.seconds ?? Infinity);
      }
    }
  });

  it("does not go through the general way, which everything else does", async () => {
    const [bearer = ""] = bearers;
    for (const broker of [short, general]) expect((await ask(broker, "/tokens/acme-0", bearer)).status).toBe(200);
    for (const broker of [short, general]) broker.setFailpoints({ "general read": { action: "throw" } });
    const statuses = async (broker: BrokerProcess, paths: string[]) =>
      await Promise.all(paths.map(async (path) => (await ask(broker, path, bearer)).status));
    expect(await statuses(general, ["/tokens/acme-0"])).toEqual([500]);
    // For as long as the row is trusted: on a slow machine that may be over.
    const isShort = async (by: string) => {
      for (let turn = 0; turn < 50; turn++) {
        short.setFailpoints({});
        await ask(short, "/tokens/acme-0", by);
        short.setFailpoints({ "general read": { action: "throw" } });
        if ((await ask(short, "/tokens/acme-0", by)).status === 200) return true;
      }
      return false;
    };
    expect([await isShort(bearer), await isShort(ofWorkload)]).toEqual([true, true]);
    expect(await statuses(short, ["/tokens/acme-0?min_ttl=1", "/tokens/acme-1", "/tokens/nobody"])).toEqual([
      500, 500, 500,
    ]);
    for (const broker of [short, general]) broker.setFailpoints({});
  });

  /** Plain reads of rows that the broker has not read since its start, by a caller that it knows. */
  const coldNames = ["acme-2", "acme-3", "acme-4", "acme-5"];
  const restart = async () => {
    await short.stop("SIGINT"); // without the seconds in which a load balancer may notice
    await short.start();
  };

  it("reads the row first where it is not in memory, and has the bytes of the general way then, too", async () => {
    for (const bearer of [bearers[0] ?? "", ofWorkload]) {
      await restart();
      const answered: string[] = [];
      for (const name of coldNames) {
        short.setFailpoints({});
        await ask(short, "/tokens/acme-0", bearer); // its caller is known for some seconds
        short.setFailpoints({ "general read": { action: "throw" } });
        const cold = withoutSeconds(await ask(short, `/tokens/${name}`, bearer));
        if (cold.rest.status !== 200) continue; // on a slow machine the caller was not known any more
        answered.push(name);
        expect(cold.rest).toEqual(withoutSeconds(await ask(general, `/tokens/${name}`, bearer)).rest);
      }
      expect(answered).not.toEqual([]);
    }
    short.setFailpoints({});
  });

  it("reads no row first for callers who may not know whether there is one", async () => {
    await restart();
    const bound = bearers[2] ?? "";
    await ask(short, "/tokens/acme-0", bound);
    short.setFailpoints({ "row read first": { action: "throw" }, "general read": { action: "throw" } });
    for (const name of coldNames) expect((await ask(short, `/tokens/${name}`, bound)).status).toBe(500);
    short.setFailpoints({});
    expect(short.stdout).not.toContain("a fresh read failed");
  });

  it("whoever waits for a row is answered though the process is told to stop, and whoever leaves disturbs nobody", async () => {
    await restart();
    const [bearer = ""] = bearers;
    await ask(short, "/tokens/acme-0", bearer);
    short.setFailpoints({ "row read first": { action: "hold" } });
    const leaving = get(`${short.url}/tokens/acme-2`, { headers: { authorization: bearer } });
    leaving.on("error", () => undefined);
    const waiting = ask(short, "/tokens/acme-3", bearer);
    // Whoever comes after them is answered: they have come.
    for (let turn = 0; turn < 3; turn++) expect((await ask(short, "/livez", "")).status).toBe(200);
    leaving.destroy();
    const stopping = short.stop();
    const isReady = async () => (await ask(short, "/readyz", "").catch(() => null))?.status === 200;
    await until("it takes no new callers", async () => !(await isReady()));
    short.setFailpoints({});
    expect((await waiting).status).toBe(200);
    expect(await stopping).toBe(0);
    await short.start();
  });
});
