import { cp, mkdir, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PGlite } from "@electric-sql/pglite";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { definitionAt, linkAt, readDump } from "../contract/upgrade/dump.ts";
import { prepareBroker, type BrokerProcess } from "../support/broker-process.ts";
import { until } from "../support/patience.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, useDatabase, useRedis } from "../support/services/index.ts";
import { withRedis } from "../support/services/redis.ts";

const builtDatabase = fileURLToPath(new URL("../../build/database", import.meta.url));

type Run = (sql: string) => Promise<Record<string, unknown>[]>;
type Subject = {
  env: { databaseUrl?: string; redisUrl?: string; dataDir: string };
  /** Puts an answer of that version where its broker left it to wait. */
  leave: (spool: { name: string; base64: string }) => Promise<void>;
  /** One session, while no broker holds an embedded database. */
  on: (work: (run: Run) => Promise<void>) => Promise<void>;
};

/** Moves the dump's times to now: its tokens have run out; its links, codes and unconfirmed grants have not. */
const asOfNow = `UPDATE connections SET issued_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'
    WHERE access_token_sealed IS NOT NULL;
  UPDATE consent_links SET expires_at = now() + interval '1 hour';
  UPDATE held_grants SET created_at = now();
  UPDATE device_authorizations SET created_at = now(), expires_at = now() + interval '1 hour', next_poll_at = now()`;

/** Rows that hold a value that no broker writes. Each has another one. */
const odd = `INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, inputs, labels)
    SELECT gen_random_uuid(), 'odd-' || o.n, c.provider, c.client_ref, c.grant_type, c.scopes, c.granted_scopes, o.inputs, o.labels
    FROM connections c, (VALUES (1, 'null'::jsonb, '{}'::jsonb), (2, '[1]', '{}'), (3, '5', '{}'), (4, '"text"', '{}'),
      (5, '{"a": 1}', '{}'), (6, '{}', 'null'), (7, '{}', '["a"]')) o(n, inputs, labels) WHERE c.name = 'd-pending';
  INSERT INTO clients (id, name, provider, client_id, inputs) VALUES (gen_random_uuid(), 'odd', 'made-up', 'x', 'null')`;

/** A provider that takes each refresh token once, and ended ones never. */
class Provider {
  readonly asked: URLSearchParams[] = [];
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => {
      let body = "";
      request.on("data", (part: Buffer) => void (body += part.toString()));
      request.on("end", () => {
        const fields = new URLSearchParams(body);
        const isSpent = this.refreshTokens().includes(fields.get("refresh_token") ?? "-");
        this.asked.push(fields);
        const isDead = isSpent || fields.get("refresh_token") === "rt-candidate";
        const subject = fields.get("refresh_token") ?? fields.get("device_code") ?? fields.get("username") ?? "machine";
        const granted = {
          access_token: `new-${subject}`,
          token_type: "Bearer",
          expires_in: 3600,
          ...(subject !== "machine" && { refresh_token: `next-${subject}` }),
        };
        response.writeHead(isDead ? 400 : 200, { "content-type": "application/json" });
        response.end(JSON.stringify(isDead ? { error: "invalid_grant" } : granted));
      });
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => void this.#server.listen(0, "127.0.0.1", resolve));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  refreshTokens(): string[] {
    return this.asked.flatMap((fields) => fields.get("refresh_token") ?? []);
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

/** What somebody does to the mark of the sealed format. */
const marks: [how: string, sql: string][] = [
  [
    "replaced by the old one",
    "UPDATE encryption_keys k SET check_sealed = o.check_sealed FROM old.encryption_keys o WHERE o.id = k.id",
  ],
  ["taken away", "DELETE FROM encryption_keys"],
];

function upgrading(kind: string, prepare: () => Promise<Subject>): void {
  describe(kind, () => {
    const provider = new Provider();
    let dump: Awaited<ReturnType<typeof readDump>>;
    let subject: Subject;
    let broker: BrokerProcess;

    beforeAll(async () => {
      dump = await readDump();
      await provider.start();
      subject = await prepare();
      await subject.on(async (run) => {
        await run("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS audit CASCADE");
        await run("CREATE SCHEMA public");
        await run(dump.sql);
        await run("SET search_path = public");
        for (const statement of `${asOfNow};${odd}`.split(";")) await run(statement);
      });
      await subject.leave(dump.spool);
      broker = await open({});
    });
    afterAll(async () => {
      await broker.kill();
      provider.stop();
    });

    const open = async (options: { failpoints?: { "rows sealed anew": { action: "kill" } } }) =>
      await prepareBroker({
        ...subject.env,
        encryptionKeys: dump.encryptionKey,
        env: { ENCRYPTION_KEYS: dump.encryptionKey },
        providersDir: await providersFolder({ definitions: () => [definitionAt(dump, provider.port) as never] }),
        ...options,
      });
    const token = async (name: string, query = {}) => await broker.api.token(name, { key: dump.keys.reader, ...query });

    it("a start that is killed in the middle leaves the database as it was", async () => {
      await using dying = await open({ failpoints: { "rows sealed anew": { action: "kill" } } });
      const child = dying.launch();
      await dying.ended();
      expect(child.signalCode, dying.stderr).toBe("SIGKILL");
      await subject.on(async (run) => {
        expect(
          await run("SELECT 1 FROM connections WHERE mac IS NOT NULL OR get_byte(access_token_sealed, 0) <> 1"),
        ).toEqual([]);
        expect(await run("SELECT get_byte(check_sealed, 0) AS format FROM encryption_keys")).toEqual([{ format: 1 }]);
      });
    });

    it("the next one seals everything anew: keys, clients and connections work as before", async () => {
      await broker.start();
      for (const [name, spent] of [
        ["d-connected", "rt-connected"],
        ["d-spooled", null],
        ["d-candidate", "rt-late"],
        ["d-password", null],
        ["d-cc", null],
      ] as const) {
        const { status, body } = await token(name);
        expect({ name, status, detail: body.detail }).toEqual({ name, status: 200, detail: undefined });
        if (spent !== null) expect(provider.refreshTokens()).toContain(spent);
      }
      await broker.api.refresh("d-spooled");
      expect(provider.refreshTokens()).toContain("rt-from-spool");
      const user = await token("d-chain", { token: "user" });
      expect([user.status, user.body.access_token]).toEqual([200, "new-rt-chain-user"]);
      expect(provider.refreshTokens()).not.toContain("rt-spooled");
      expect(provider.asked.every((fields) => fields.get("client_secret") === "client-secret-2")).toBe(true);
      const login = provider.asked.find((fields) => fields.get("grant_type") === "password");
      expect(login?.get("password")).toBe("the-password");
    });

    it("a row that holds what no broker writes is set aside, named, and can be deleted", async () => {
      for (const name of ["odd-1", "odd-2", "odd-3", "odd-4", "odd-5", "odd-6", "odd-7"]) {
        expect((await broker.api.token(name)).body.code).toBe("unreadable_secret");
        const told = (line: string) => line.includes("does not open") && line.includes(`"connection":"${name}"`);
        expect(broker.stdout.split("\n").some(told)).toBe(true);
        await broker.api.deleteConnection(name);
      }
      const patched = await broker.api.api("/clients/odd", { method: "PATCH", body: { scopes: [] } });
      expect(patched.status).not.toBe(200);
      expect((await broker.api.api("/clients/odd", { method: "DELETE" })).status).toBe(204);
    });

    it("what was refused is refused still", async () => {
      const codes = await Promise.all(["d-disabled", "d-ended", "d-pending", "d-deleted"].map((name) => token(name)));
      expect(codes.map(({ body }) => body.code)).toEqual([
        "connection_disabled",
        "needs_reauthorization",
        "authorization_pending",
        "connection_not_found",
      ]);
      expect((await broker.api.token("d-connected", { key: dump.keys.revoked })).status).toBe(401);
    });

    it("a link opens, a held grant is confirmed, a code that a person types in elsewhere is polled for", async () => {
      expect((await fetch(linkAt(dump, broker))).status).toBe(200);
      const { maker: key } = dump.keys;
      const confirmed = await broker.api.api("/connections/d-held/account", {
        method: "POST",
        body: { accept: true },
        key,
      });
      expect(confirmed).toMatchObject({ status: 200 });
      await until("the code is exchanged", async () => (await token("d-device")).status === 200);
      expect(provider.asked.find((fields) => fields.has("device_code"))?.get("device_code")).toBe("device-code-1");
      expect((await token("d-held")).status).toBe(200);
    });

    it("rows of the old form that are put back by hand are refused, and no other is held up", async () => {
      await broker.stop("SIGINT");
      await subject.on(async (run) => {
        await run("CREATE SCHEMA old");
        await run(dump.sql.replaceAll("public.", "old."));
        await run("SET search_path = public");
        await run(`UPDATE connections c SET access_token_sealed = o.access_token_sealed, 
          refresh_token_sealed = o.refresh_token_sealed FROM old.connections o WHERE o.id = c.id AND c.name = 'd-connected'`);
        await run(`UPDATE clients c SET secret_sealed = o.secret_sealed FROM old.clients o WHERE o.id = c.id`);
        await run("UPDATE connections SET mac = NULL WHERE name = 'd-password'");
        await run("UPDATE api_keys SET mac = NULL WHERE name = 'maker'");
      });
      await broker.start();
      const before = provider.asked.length;
      expect((await token("d-connected")).body.code).toBe("unreadable_secret");
      expect((await token("d-password")).body.code).toBe("unreadable_secret");
      expect((await broker.api.api("/connections", { key: dump.keys.maker })).status).toBe(401);
      expect((await token("d-spooled")).status).toBe(200);
      expect(provider.asked).toHaveLength(before);
    });

    // What looks at the mark is the same for both databases, and a start of the embedded one is the most work of this file.
    it.each(kind === "embedded" ? marks.slice(1) : marks)(
      "a mark that is %s does not bring the old reading back: the broker does not start",
      async (_how, sql) => {
        await broker.stop("SIGINT");
        await subject.on(async (run) => void (await run(sql)));
        broker.stderr = "";
        broker.launch();
        expect(await broker.ended()).toBe(2);
        expect(broker.stderr).toContain("has lost the mark of its sealed format");
      },
    );
  });
}

describe("a database of the version before", () => {
  upgrading("embedded", async () => {
    const { path } = await temporaryFolder("upgrade");
    // Only the schema of the folder is deleted: to make a new folder would be most of the work of this file.
    await cp(builtDatabase, join(path, "database"), { recursive: true });
    return {
      env: { dataDir: path },
      async leave({ name, base64 }) {
        await mkdir(join(path, "spool"), { recursive: true });
        await writeFile(join(path, "spool", name), Buffer.from(base64, "base64"));
      },
      async on(work) {
        // As the broker opens it: the default of 128 MB of buffers is written to at each start.
        const startParams = [...PGlite.defaultStartParams, "-c", "shared_buffers=8MB"];
        const database = await PGlite.create(join(path, "database"), { startParams });
        const run: Run = async (sql) => (await database.exec(sql)).at(-1)?.rows as Record<string, unknown>[];
        try {
          await work(run);
        } finally {
          await database.close();
        }
      },
    };
  });
});

describeWithServices(["postgres", "redis"], "a database of the version before, on Postgres", () => {
  upgrading("Postgres, with an answer that waits in Redis", async () => {
    const [{ path }, databaseUrl] = [await temporaryFolder("upgrade"), await useDatabase({ empty: true })];
    const redisUrl = await useRedis();
    return {
      env: { dataDir: path, databaseUrl, redisUrl },
      async leave({ name, base64 }) {
        const [id, generation, attempt = ""] = name.split(".");
        await withRedis(redisUrl, async (redis) => await redis.hset(`spool:${id}:${generation}`, attempt, base64));
      },
      async on(work) {
        const client = new Client({ connectionString: databaseUrl });
        await client.connect();
        const run: Run = async (sql) => (await client.query(sql)).rows as Record<string, unknown>[];
        try {
          await work(run);
        } finally {
          await client.end();
        }
      },
    };
  });
});
