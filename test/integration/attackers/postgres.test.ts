import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeApiKey } from "../../../src/callers/keys.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { patience, until } from "../../support/patience.ts";
import { proveByHand, vaultOf } from "../../support/prove-by-hand.ts";
import { query } from "../../support/query.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { startAccountStage } from "../abilities/support/account-stage.ts";
import { nothing, TwoTeams } from "./support/two-teams.ts";

// The attacker can write to every table of Postgres and has an API key of team A, but no key of ENCRYPTION_KEYS.
describeWithServices(["postgres", "redis"], "an attacker with write access to Postgres", () => {
  let stage: TwoTeams;
  /** Of team A: reads and makes connections of its own. */
  let key: string;

  const sql = async (text: string, values: unknown[] = []) => await query(stage.databaseUrl, text, values);
  const read = async (name: string, by = key) => await stage.attack(by, `/tokens/${name}?min_ttl=3000`);
  /** A victim of its own for each case: connected like those of team B, and changed by hand afterwards. */
  const victim = async (name: string, client = "tenant-b") => {
    const provider = client.startsWith("tenant") ? "tenant" : "strict";
    await stage.api.createConnection({ name, provider, client, scopes: ["read"] });
    await stage.connect(name);
  };
  /** The broker forgets the rows that it has in memory: these tests are about what it reads anew. */
  const forget = async () => await restart(stage);

  beforeAll(async () => {
    stage = await TwoTeams.start();
    key = await stage.api.createKey({
      name: "team-a",
      abilities: ["tokens", "connections"],
      connections: ["team-a-*"],
    });
  });
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("makes no key of its own, and widens, lengthens or revives none", async () => {
    const own = makeApiKey(randomBytes);
    const hash = createHash("sha256").update(own.key).digest();
    await sql(
      "INSERT INTO api_keys (id, name, secret_hash, abilities, connections) VALUES ($1, 'own', $2, '{tokens,connections,admin}', '{*}')",
      [own.id, hash],
    );
    const copied = makeApiKey(randomBytes);
    await sql(
      `INSERT INTO api_keys (id, name, secret_hash, abilities, connections, created_at, mac)
       SELECT $1, name, $2, abilities, connections, created_at, mac FROM api_keys WHERE name = 'team-a'`,
      [copied.id, createHash("sha256").update(copied.key).digest()],
    );
    const make = async (name: string, more = {}) =>
      await stage.api.createKey({ name, abilities: ["tokens"], connections: ["team-a-*"], ...more });
    const [wide, able, revoked, ended] = [
      await make("wide"),
      await make("able"),
      await make("revoked", { connections: ["*"] }),
      await make("ended", { connections: ["*"], expires_at: new Date(Date.now() + 86_400_000).toISOString() }),
    ];
    await stage.api.api(`/keys/${revoked.split("_")[1]}`, { method: "DELETE" });
    await sql("UPDATE api_keys SET connections = '{*}' WHERE name = 'wide'");
    await sql("UPDATE api_keys SET abilities = '{tokens,connections,admin}' WHERE name = 'able'");
    await sql("UPDATE api_keys SET revoked_at = NULL WHERE name = 'revoked'");
    await sql("UPDATE api_keys SET expires_at = NULL WHERE name = 'ended'");
    await forget();
    for (const bearer of [own.key, copied.key, wide, able, revoked, ended]) {
      expect((await read("team-b-account", bearer)).status).toBe(401);
    }
  });

  describe("who changes connections by hand", () => {
    const changes: [string, string][] = [
      ["the name of another team's connection", "name = 'team-a-renamed'"],
      ["its provider", "provider = 'strict'"],
      ["its client", "client_ref = (SELECT id FROM clients WHERE name = 'accounts-b')"],
      ["no client", "client_ref = NULL"],
      ["its parent", "parent_id = (SELECT id FROM connections WHERE name = 'team-b-account'), chain = 'user'"],
      ["its grant", "grant_type = 'client_credentials'"],
      ["its host", "inputs = jsonb_build_object('host_url', '$FOREIGN')"],
      ["what is captured", "captured = jsonb_build_object('host_url', '$FOREIGN')"],
      ["what was looked up", "account_captured = jsonb_build_object('host_url', '$FOREIGN')"],
      ["no proof", "mac = NULL"],
      ["another's proof", "mac = (SELECT mac FROM connections WHERE name = 'team-b-account')"],
      [
        "another's tokens",
        `access_token_sealed = (SELECT access_token_sealed FROM connections WHERE name = 'team-b-account'),
         refresh_token_sealed = (SELECT refresh_token_sealed FROM connections WHERE name = 'team-b-account')`,
      ],
    ];

    // All changes at once, so that one restart of the broker is enough to forget all rows.
    beforeAll(async () => {
      for (const [what] of changes) await victim(victimOf(what));
      for (const [what, change] of changes) {
        const { origin } = stage.foreign;
        await sql(`UPDATE connections SET ${change.replaceAll("$FOREIGN", origin)} WHERE name = '${victimOf(what)}'`);
      }
      await forget();
    });

    it.each(changes)("gets nothing by giving a connection %s", async (what) => {
      const name = victimOf(what);
      // A read of team B may cause a refresh. What is sent then goes to the host that it was meant for.
      await stage.broker.api.token(name, { min_ttl: 3000 });
      expect((await read("team-a-renamed")).status).not.toBe(200);
      expect(stage.loot()).toEqual(nothing);
      await sql("DELETE FROM connections WHERE name = $1", [name]);
    });

    afterAll(async () => void (await sql("DELETE FROM connections WHERE name = 'team-a-renamed'")));
  });

  it("makes no connection of its own on another team's client", async () => {
    await sql(
      `INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, inputs, labels)
       SELECT gen_random_uuid(), 'team-a-own', provider, id, 'client_credentials', '{read}', '{}',
         jsonb_build_object('host_url', $1::text), '{}' FROM clients WHERE name = 'shop-b'`,
      [stage.foreign.origin],
    );
    expect((await read("team-a-own")).body["code"]).toBe("unreadable_secret");
    for (const path of ["/refresh", "/consent-links"]) {
      const { status } = await stage.attack(key, `/connections/team-a-own${path}`, { method: "POST", body: {} });
      expect(status).not.toBe(200);
    }
    expect(stage.loot()).toEqual(nothing);
  });

  it("has no client's secret sent elsewhere, nor opened for another client", async () => {
    await victim("team-b-of-client", "tenant-b");
    const changes: [string, string][] = [
      ["inputs", `jsonb_build_object('host_url', '${stage.foreign.origin}')`],
      ["connections", "'{*}'"],
      ["client_id", "'other'"],
      ["provider", "'strict'"],
      ["secret_sealed", "(SELECT secret_sealed FROM clients WHERE name = 'shop-b')"],
    ];
    for (const [column, value] of changes) {
      await sql(`CREATE TABLE kept AS SELECT ${column} AS kept FROM clients WHERE name = 'shop-idle'`);
      await sql(`UPDATE clients SET ${column} = ${value} WHERE name = 'shop-idle'`);
      const made = await stage.attack(key, "/connections", {
        method: "POST",
        body: {
          name: `team-a-${column.replace("_", "-")}`,
          provider: "shopware",
          client: "shop-idle",
          grant: "client_credentials",
        },
      });
      expect([column, made.status >= 400]).toEqual([column, true]);
      await sql(`UPDATE clients SET ${column} = (SELECT kept FROM kept) WHERE name = 'shop-idle'`);
      await sql("DROP TABLE kept");
    }
    expect(stage.loot()).toEqual(nothing);
  });

  it("points no link at another connection, and lengthens none", async () => {
    await stage.api.createConnection({
      name: "team-a-mine",
      provider: "strict",
      client: "accounts-b",
      scopes: ["read"],
    });
    for (const change of [
      "connection_id = (SELECT id FROM connections WHERE name = 'team-b-account')",
      "expires_at = expires_at + interval '1 year'",
      "return_to = 'https://evil.example/'",
      "end_user = 'somebody else'",
      "mac = NULL",
    ]) {
      const { url, id } = await stage.api.consentLink("team-a-mine");
      expect((await fetch(url)).status).toBe(200);
      await sql(`UPDATE consent_links SET ${change} WHERE id = $1`, [id]);
      expect([change, (await fetch(url)).status]).toEqual([change, 404]);
    }
  });

  it("has no row signed by way of one that it may change", async () => {
    const { id: client_id, secret: client_secret } = stage.accounts.client;
    const client = { name: "accounts-a", provider: "strict", client_id, client_secret, scopes: ["read"] };
    await stage.api.createClient({ ...client, connections: ["team-a-*"] });
    const parent = { name: "team-a-parent", provider: "strict", client: "accounts-a", scopes: ["read"] };
    expect((await stage.attack(key, "/connections", { method: "POST", body: parent })).status).toBe(201);
    // As if it were a further token of the attacker's connection: further tokens are disabled and enabled with their connection.
    await sql(
      `INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, inputs, labels, parent_id, mac)
       SELECT gen_random_uuid(), 'team-a-signed', k.provider, k.id, 'client_credentials', '{}', '{}', '{}', '{}', c.id, 'k1.x'
       FROM clients k, connections c WHERE k.name = 'shop-b' AND c.name = 'team-a-parent'`,
    );
    for (const disabled of [true, false]) {
      const { status } = await stage.attack(key, "/connections/team-a-parent", { method: "PATCH", body: { disabled } });
      expect(status).toBe(200); // a row that no broker wrote does not hold up the attacker's own connection
    }
    await forget();
    expect((await read("team-a-signed")).body["code"]).toBe("unreadable_secret");
    expect(stage.loot()).toEqual(nothing);
    await sql("DELETE FROM connections WHERE name = 'team-a-signed'");
  });

  it("sends no caller elsewhere with a token that is remembered", async () => {
    await stage.addTenantClient("tenant-fresh", { connections: ["team-b-*"] });
    await victim("team-b-remembered", "tenant-fresh");
    expect((await stage.api.token("team-b-remembered")).status).toBe(200);
    const { origin } = stage.foreign;
    await sql("UPDATE clients SET inputs = jsonb_build_object('host_url', $1::text) WHERE name = 'tenant-fresh'", [
      origin,
    ]);
    const { status, body } = await stage.api.api("/tokens/team-b-remembered?include=request");
    expect(JSON.stringify(body)).not.toContain(origin);
    expect([status, body["code"]]).toEqual([500, "unreadable_secret"]);
  });

  it("changes no entry of the audit unseen, and each change concerns its own row; nothing else that it fills with anything fails", async () => {
    const [newest] = await sql("SELECT process::text FROM audit.entries ORDER BY at DESC LIMIT 1");
    const chain = `process = '${String(newest?.["process"])}'`;
    for (let made = 0; made < 9; made++) {
      await stage.api.createKey({ name: `entry-${made}`, abilities: ["tokens"], connections: ["team-a-*"] });
    }
    const seqs = await until("nine entries", async () => {
      const rows = await sql(
        `SELECT seq::int FROM audit.entries WHERE action = 'keys.create' AND ${chain} ORDER BY seq`,
      );
      return rows.length >= 9 && rows.slice(-9).map(({ seq }) => Number(seq));
    });
    const of = (index: number) => `seq = ${seqs[index]} AND ${chain}`;
    const strange = createKeyring([{ id: "k1", key: randomBytes(32) }]).sign("audit", "anything");
    const other = createKeyring([{ id: "k9", key: randomBytes(32) }]).sign("audit", "anything");
    // Without its MAC an entry is proven by those behind it.
    await sql(`UPDATE audit.entries SET mac = '' WHERE ${of(0)}`);
    await sql(`UPDATE audit.entries SET mac = (SELECT mac FROM audit.entries WHERE ${of(1)}) WHERE ${of(2)}`);
    await sql(`UPDATE audit.entries SET mac = '${strange}' WHERE ${of(4)}`);
    await sql(`UPDATE audit.entries SET target_name = 'none', detail = NULL WHERE ${of(6)}`);
    await sql(`INSERT INTO audit.anchors SELECT e.*, e.hash FROM audit.entries e WHERE ${of(1)}`);
    await sql(`UPDATE audit.anchors SET process = gen_random_uuid(), mac = '${other}', at = '-infinity'`);
    await sql("UPDATE audit.open_reads SET minute = 'infinity', first = '-infinity', action = 'keys.create'");
    await sql(
      "INSERT INTO key_uses SELECT id, 'infinity' FROM api_keys ON CONFLICT (key_id) DO UPDATE SET last_used_at = 'infinity'",
    );
    await sql("INSERT INTO rotations (id, target_key, begun_by, unopened) VALUES (gen_random_uuid(), 'k1', 'x', '{}')");
    const answer = await stage.api.api<string>("/audit/verify");
    const { report } = JSON.parse(answer.body.trim().split("\n").at(-1) ?? "") as {
      report: { faults: { kind: string; process: string; from: number }[] };
    };
    const own = report.faults.filter(({ process }) => process === newest?.["process"]);
    expect(own.map(({ kind, from }) => [kind, from])).toEqual([2, 4, 6].map((index) => ["changed", seqs[index]]));
    for (const path of ["/keys?limit=200", "/encryption", "/encryption/rotation", "/audit?limit=200"]) {
      expect([path, (await stage.api.api(path)).status]).toEqual([path, 200]);
    }
    expect((await read("team-a-mine")).status).toBe(409);
  });

  it("ends with nothing", () => expect(stage.loot()).toEqual(nothing));
});

describeWithServices(
  ["postgres", "redis"],
  "an attacker with write access to Postgres, and another account's grant",
  () => {
    it("says no person's yes: what somebody else has accepted is not stored, and what a person has is", async () => {
      const { stage, server, connectAda, reconnectAsBob } = await startAccountStage();
      await using _ = stage;
      server.account = "ada";
      const names = ["said", "forged", "copied"];
      for (const name of names) {
        await connectAda(name);
        expect((await reconnectAsBob(name)).text).toContain("another account");
      }
      const sql = async (text: string) => await query(stage.databaseUrl, text);
      const old = "accepted = true, created_at = created_at - interval '6 minutes'";
      await sql(`UPDATE held_grants SET ${old} WHERE ${unconfirmedOf("said")}`);
      await proveByHand((text, values) => query(stage.databaseUrl, text, values), vaultOf(stage.first.encryptionKeys));
      await sql(`UPDATE held_grants SET ${old} WHERE ${unconfirmedOf("forged")}`);
      await sql(`UPDATE held_grants SET ${old}, account = 'ada', mac = (SELECT mac FROM held_grants WHERE ${unconfirmedOf("said")})
      WHERE ${unconfirmedOf("copied")}`);
      await stage.first.kill();
      await stage.first.start(); // a start deletes at once what is too old
      await expect.poll(async () => (await stage.api.connection("said"))["account"], patience).toBe("bob");
      const accounts = await Promise.all(
        names.map(async (name) => {
          await stage.api.refresh(name);
          return server.accountOf((await stage.token(name)).access_token);
        }),
      );
      expect(accounts).toEqual(["bob", "ada", "ada"]);
      expect(stage.first.stdout).toContain("held_grants");

      // A row that somebody has made a further token by hand, and whose name is not that of one, holds up no connection.
      await connectAda("beside", "able-two");
      await sql(`INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, inputs, labels, parent_id, chain, mac)
      SELECT gen_random_uuid(), 'made-up', provider, client_ref, grant_type, '{}', '{}', '{}', '{}', id, 'user', 'k1.x'
      FROM connections WHERE name = 'beside'`);
      expect((await stage.consent("beside")).text).toContain("Connected");

      // Two grants wait to be confirmed. The record of one stands beside the account of the other.
      await connectAda("swapped");
      for (const account of ["bob", "carol"]) {
        server.account = account;
        expect((await stage.consent("swapped")).text).toContain("another account");
      }
      server.account = "ada";
      await sql(`UPDATE held_grants h SET record_sealed = o.record_sealed FROM held_grants o
      WHERE h.connection_id = o.connection_id AND h.attempt_id <> o.attempt_id AND h.${of("swapped")}`);
      const yes = { method: "POST", body: { accept: true } } as const;
      expect((await stage.api.api("/connections/swapped/account", yes)).body["code"]).toBe("unreadable_secret");
      expect(server.accountOf((await stage.token("swapped")).access_token)).toBe("ada");
    });
  },
);

/** The connection that a change is tried at. */
function victimOf(change: string): string {
  return `team-b-victim-${createHash("sha256").update(change).digest("hex").slice(0, 8)}`;
}

/** Of a table whose rows belong to connections. */
const of = (name: string) => `connection_id = (SELECT id FROM connections WHERE name = '${name}')`;

/** Which rows of `held_grants` are a connection's. */
function unconfirmedOf(name: string): string {
  return `connection_id = (SELECT id FROM connections WHERE name = '${name}')`;
}

/** The same broker, with an empty memory. */
async function restart(stage: TwoTeams): Promise<void> {
  await stage.broker.stop("SIGINT");
  await stage.broker.start();
}
