import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { ApiOptions } from "../support/broker-api.ts";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { ConnectedStage } from "../support/connected-stage.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useRedis } from "../support/services/index.ts";

const flipped = (column: string) =>
  `${column} = set_byte(${column}, length(${column}) - 1, get_byte(${column}, length(${column}) - 1) # 1)`;

/** Ways in which somebody, or a disk, has damaged a row of `connections`. */
const damages: Record<string, string> = {
  "access-token": flipped("access_token_sealed"),
  "both-tokens": `${flipped("access_token_sealed")}, ${flipped("refresh_token_sealed")}`,
  "refresh-token": flipped("refresh_token_sealed"),
  "access-garbage": "access_token_sealed = 'garbage'",
  "access-empty": "access_token_sealed = ''",
  "labels-list": "labels = '[1]'",
  "labels-null": "labels = 'null'",
  "labels-text": `labels = '"text"'`,
  "labels-nested": `labels = '{"a": {"b": 1}}'`,
  "inputs-list": "inputs = '[1]'",
  "inputs-null": "inputs = 'null'",
  "inputs-number": `inputs = '{"a": 5}'`,
  "captured-null": "captured = 'null'",
  "captured-number": `captured = '{"a": 5}'`,
  "account-captured-null": "account_captured = 'null'",
  "expires-never": "expires_at = 'infinity'",
  "expires-far": "expires_at = '294000-01-01'",
  "expires-before": "expires_at = '-infinity'",
  "expires-bc": "expires_at = '0044-03-15 BC'",
  "issued-never": "issued_at = 'infinity'",
  "created-never": "created_at = '-infinity'",
  "updated-never": "updated_at = 'infinity'",
  "due-before": "next_refresh_at = '-infinity'",
  "backoff-for-ever": "backoff_until = 'infinity'",
  "scopes-null": "scopes = '{NULL}', granted_scopes = '{NULL}'",
  "scopes-nested": "scopes = '{{a,b},{c,d}}'",
  "error-unknown": "last_error_code = 'made_up', last_error_at = now()",
  "error-never": "last_error_code = 'invalid_grant', last_error_at = 'infinity'",
  "status-unknown": "status = 'made_up'",
  "grant-unknown": "grant_type = 'made_up'",
  "refresh-end-never": "refresh_token_expires_at = 'infinity', authorized_at = '-infinity'",
  "version-highest": "version = 2147483647",
  "generation-highest": "generation = 2147483647",
  "provider-unknown": "provider = 'made-up'",
};
/** The same of `clients`. */
const clientDamages: Record<string, string> = {
  "damaged-inputs-null": "inputs = 'null'",
  "damaged-scopes-nested": "scopes = '{{a,b},{c,d}}'",
  "damaged-patterns": "connections = '{NULL}'",
  "damaged-provider": "provider = 'made-up'",
  "damaged-secret": flipped("secret_sealed"),
  "damaged-proof-none": "mac = NULL",
};
/** One of each kind, for what is asked of all routes. */
const kinds = [
  "both-tokens",
  "labels-null",
  "inputs-list",
  "captured-null",
  "scopes-nested",
  "expires-never",
  "backoff-for-ever",
  "status-unknown",
  "grant-unknown",
  "generation-highest",
  "provider-unknown",
];
/** The body of the request, where `{}` would ask for nothing. */
const bodies: Record<string, object[]> = {
  "PATCH /connections/{connection}": [
    { labels: { a: "b" } },
    { scopes: ["read"] },
    { inputs: {} },
    { credentials: { username: "a", password: "b" } },
    { disabled: true },
    { disabled: false },
  ],
  "POST /connections/{connection}/code": [{ code: "a-code" }],
  "POST /connections/{connection}/import": [{ refresh_token: "a-token" }, { access_token: "b", verify: true }],
  "PATCH /clients/{client}": [
    { client_id: "another" },
    { client_secret: "another" },
    { scopes: ["read"] },
    { connections: ["*"] },
    { inputs: {} },
    { own_redirect_uri: true },
    { own_redirect_uri: false },
  ],
};
const bad = Object.keys(damages);
const good = ["good-1", "good-2", "good-3", "good-4", "good-5", "good-6"];

let stage: ConnectedStage;
/** A broker whose memory is empty. */
let reader: BrokerProcess;

const sql = async (text: string) => await query(stage.databaseUrl, text);
const damage = async (table: string, changes: Record<string, string>) => {
  for (const [name, change] of Object.entries(changes)) {
    await sql(`UPDATE ${table} SET ${change} WHERE name = '${name}'`);
  }
};
const list = async (path: string) => {
  const { status, body } = await reader.api.api<{ items: { name: string }[] }>(path);
  return { status, names: body.items?.map(({ name }) => name) };
};
const sent = () => stage.provider.ledger.requestsTo("token").length;
const logged = (text: string) => reader.stdout.split("\n").filter((line) => line.includes(text));

async function importFresh(name: string): Promise<void> {
  const { accessToken, refreshToken = "" } = stage.provider.issueTokenSet();
  const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 3600 };
  await stage.first.api.importTokens(name, set);
}

describeWithServices(["postgres", "redis"], "one bad row", () => {
  beforeAll(async () => {
    const adminKey = randomBytes(32).toString("base64url");
    const shared = { adminKey, encryptionKeys: `k1:${randomBytes(32).toString("base64")}` };
    const redisUrl = await useRedis();
    stage = await ConnectedStage.start({ redisUrl, each: () => shared });
    for (const name of [...good, ...bad]) {
      await stage.create(name);
      await importFresh(name);
    }
    const constraints = await query<{ name: string }>(
      stage.databaseUrl,
      "SELECT conname AS name FROM pg_constraint WHERE conrelid = 'connections'::regclass AND contype = 'c'",
    );
    for (const { name } of constraints) await sql(`ALTER TABLE connections DROP CONSTRAINT "${name}"`);
    await damage("connections", damages);
    const providersDir = await providersFolder(stage.provider, { definitions: () => [] });
    const { databaseUrl, first } = stage;
    reader = await startBroker({ ...shared, databaseUrl, redisUrl, providersDir, publicUrl: first.publicUrl });
  });
  afterAll(async () => {
    await reader?.[Symbol.asyncDispose]();
    await stage[Symbol.asyncDispose]();
  });

  it("fails no other's token, whatever is wrong with it, when all are read at once", async () => {
    const names = [...good, ...bad];
    const answers = new Map<string, [number, string | undefined]>();
    const read = async (name: string) => {
      const { status, body } = await reader.api.token(name);
      answers.set(name, [status, body.code]);
    };
    await Promise.all(names.map(read));
    expect(good.map((name) => answers.get(name)?.[0])).toEqual(good.map(() => 200));
    const unexpected = [...answers].filter(([, [status, code]]) => status === 500 && code !== "unreadable_secret");
    expect(unexpected).toEqual([]);
    // What people set, and what was captured, is authenticated. Damage in other columns that a token does not need costs nobody a token.
    const proven = /^(labels|inputs|captured|account-captured|scopes|grant|provider)-/;
    const failing = [...answers].filter(([, [status]]) => status !== 200).map(([name]) => name);
    const expected = ["both-tokens", "generation-highest", ...bad.filter((name) => proven.test(name))].sort();
    expect(failing.sort()).toEqual(expected);
    await Promise.all(names.map(read));
    expect(good.map((name) => answers.get(name)?.[0])).toEqual(good.map(() => 200));
  });

  it("whose access token does not open gets another one by its refresh token; with both gone it says so, alone", async () => {
    const before = sent();
    for (const name of ["access-token", "access-garbage", "access-empty"]) {
      expect((await reader.api.token(name)).body).toMatchObject({ version: 2 });
    }
    const { status, body } = await reader.api.token("both-tokens");
    expect([status, body.code, body.connection]).toEqual([500, "unreadable_secret", "both-tokens"]);
    const { last_error } = await reader.api.connection("both-tokens");
    expect(last_error).toMatchObject({ code: "unreadable_secret" });
    expect(sent()).toBe(before);
    expect(stage.provider.ledger.reuses).toEqual([]);
  });

  it("is named in the log with its connection, column and key, and counted", async () => {
    const lines = logged("a stored secret does not open").map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines).toContainEqual(
      expect.objectContaining({ connection: "both-tokens", column: "access_token_sealed", keyId: "k1" }),
    );
    expect(lines).toContainEqual(
      expect.objectContaining({ connection: "access-garbage", code: "no_record", keyId: null }),
    );
    const { body } = await reader.api.api<string>("/metrics");
    expect(Number(/^freshet_unreadable_secrets_total (\d+)/m.exec(body)?.[1])).toBeGreaterThanOrEqual(4);
  });

  it("whose refresh token does not open serves its access token while that lives, sends nothing, and is mended by an import", async () => {
    const name = "refresh-token";
    const before = sent();
    expect((await reader.api.token(name, { min_ttl: 3000 })).status).toBe(200);
    await sql(
      `UPDATE connections SET issued_at = now() - interval '1 hour', expires_at = now() + interval '30 seconds' WHERE name = '${name}'`,
    );
    await reader.api.changeConnection(name, { labels: { a: "b" } });
    const { status, body } = await reader.api.token(name, { min_ttl: 300 });
    expect([status, body.warnings?.map(({ code }) => code)]).toEqual([
      200,
      expect.arrayContaining(["refresh_failing"]),
    ]);
    await sql(`UPDATE connections SET expires_at = now() WHERE name = '${name}'`);
    await reader.api.changeConnection(name, { labels: {} });
    const over = await reader.api.token(name);
    expect([over.status, over.body.code, sent()]).toEqual([500, "unreadable_secret", before]);
    await importFresh(name);
    await reader.api.changeConnection(name, { labels: {} });
    expect((await reader.api.token(name)).status).toBe(200);
  });

  it("fails no list and no view", async () => {
    const connections = await list("/connections?limit=200");
    expect([connections.status, connections.names?.length]).toEqual([200, good.length + bad.length]);
    for (const name of bad) {
      const { status, body } = await reader.api.api(`/connections/${name}`);
      expect({ name, status, body }).toMatchObject({ name, status: 200 });
    }
    await sql("UPDATE connections SET created_at = 'infinity' WHERE name = 'updated-never'");
    for (const limit of [1, 7]) {
      const paged: string[] = [];
      let cursor: string | null = "";
      while (cursor !== null) {
        const after: string = cursor === "" ? "" : `&cursor=${cursor}`;
        const { body } = await reader.api.api<{ items: { name: string }[]; next_cursor: string | null }>(
          `/connections?limit=${limit}${after}`,
        );
        paged.push(...body.items.map(({ name }) => name));
        cursor = body.next_cursor;
      }
      expect(paged.length).toBe(good.length + bad.length);
    }
    expect((await reader.api.connection("labels-list"))["labels"]).toEqual({});
    const events = await reader.api.api(`/connections/${bad[0]}/events`);
    expect(events.status).toBe(200);
  });

  it("of clients or keys fails no list", async () => {
    const { id: client_id, secret: client_secret } = stage.provider.client;
    const odd = {
      "client-inputs": "inputs = '[1]'",
      "client-null": "inputs = 'null'",
      "client-nested": "scopes = '{{a,b},{c,d}}', connections = '{NULL}'",
      "client-created": "created_at = '-infinity', updated_at = 'infinity'",
      "client-secret": flipped("secret_sealed"),
    };
    for (const name of Object.keys(odd)) {
      await stage.first.api.createClient({ name, provider: stage.provider.id, client_id, client_secret });
    }
    await damage("clients", odd);
    const clients = await list("/clients?limit=200");
    expect([clients.status, clients.names]).toEqual([200, expect.arrayContaining(["app", ...Object.keys(odd)])]);
    const keys: string[] = [];
    for (const name of ["key-created", "key-expires", "key-revoked", "key-nested", "key-null"]) {
      keys.push(await stage.first.api.createKey({ name, abilities: ["tokens"], connections: ["*"] }));
    }
    await damage("api_keys", {
      "key-created": "created_at = '-infinity'",
      "key-expires": "expires_at = 'infinity'",
      "key-revoked": "revoked_at = 'infinity'",
      "key-nested": "connections = '{{a,b},{c,d}}'",
      "key-null": "abilities = '{NULL}', connections = '{NULL}'",
    });
    expect((await list("/keys?limit=200")).status).toBe(200);
    const reads = await Promise.all(keys.map(async (key) => (await reader.api.token("good-1", { key })).status));
    // A column that its proof covers has changed: the key does not count any more.
    expect(reads).toEqual(keys.map(() => 401));
  });

  it("is answered by every route with a code that says what is wrong, and can be deleted by whoever may", async () => {
    const { id: client_id, secret: client_secret } = stage.provider.client;
    for (const name of Object.keys(clientDamages)) {
      const connection = `of-${name}`;
      await stage.first.api.createClient({ name, provider: stage.provider.id, client_id, client_secret });
      await stage.first.api.createConnection({ name: connection, provider: stage.provider.id, client: name });
      await importFresh(connection);
    }
    await damage("clients", clientDamages);
    const connections = [...kinds, ...Object.keys(clientDamages).map((name) => `of-${name}`)];
    const unexpected: string[] = [];
    const call = async (method: ApiOptions["method"], path: string, body?: unknown) => {
      const { status, body: said } = await reader.api.api(path, { ...(method && { method }), body });
      const isSaid = status < 500 || (status === 500 && said["code"] === "unreadable_secret") || status === 503;
      if (!isSaid) unexpected.push(`${method} ${path}: ${status} ${JSON.stringify(said)}`);
      return status;
    };
    const { body: document } = await reader.api.api<{ paths: Record<string, Record<string, unknown>> }>(
      "/openapi.json",
    );
    const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({
        method: method.toUpperCase() as NonNullable<ApiOptions["method"]>,
        path,
      })),
    );
    const about = (names: readonly string[], parameter: string) =>
      routes
        .filter(({ method, path }) => path.includes(parameter) && method !== "DELETE")
        .flatMap(({ method, path }) =>
          names.flatMap((name) =>
            (bodies[`${method} ${path}`] ?? [method === "GET" ? undefined : {}]).map(
              async (body) => await call(method, path.replace(parameter, name), body),
            ),
          ),
        );
    const tried = await Promise.all(about(connections, "{connection}"));
    // These come last: a client whose damaged secret was replaced has a secret that the provider refuses.
    tried.push(...(await Promise.all(about(Object.keys(clientDamages), "{client}"))));
    expect(tried.length).toBeGreaterThan(connections.length * 8);
    expect(unexpected).toEqual([]);
    // A client that is in use stays, whatever is wrong with it.
    for (const name of Object.keys(clientDamages)) expect(await call("DELETE", `/clients/${name}`)).toBe(409);
    const deleted = await Promise.all(connections.map((name) => call("DELETE", `/connections/${name}`)));
    expect(deleted).toEqual(connections.map(() => 204));
    const gone = await Promise.all(Object.keys(clientDamages).map((name) => call("DELETE", `/clients/${name}`)));
    expect([gone, unexpected]).toEqual([gone.map(() => 204), []]);
    expect(logged("could not be revoked").length).toBeGreaterThan(0);
  });

  it("that is due keeps the sweeper from no other: all that are due get their tokens", async () => {
    await sql(
      "UPDATE connections SET next_refresh_at = now(), in_use = true, expires_at = now() WHERE status IN ('connected', 'pending')",
    );
    const versions = async () => {
      const rows = await query<{ version: number }>(
        stage.databaseUrl,
        `SELECT version FROM connections WHERE name LIKE 'good-%'`,
      );
      return rows.map(({ version }) => version);
    };
    await until("the sweeper has refreshed the good ones", async () =>
      (await versions()).every((version) => version >= 2),
    );
    expect(stage.provider.ledger.reuses).toEqual([]);
  });
});
