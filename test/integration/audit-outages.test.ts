import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Client } from "pg";
import { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices } from "../support/services/index.ts";

const accessLifeSeconds = 3600;
const connections = ["one", "two", "three", "four"];

let stage: ConnectedStage;
let owner: Client;

/** How often all that was done. */
let works = 0;

/** Everything that callers and people do: reads, refreshes, a new account, and a change. */
async function work(named: string): Promise<void> {
  const { api } = stage.first;
  works += 1;
  for (const name of connections) {
    expect((await api.token(name)).status).toBe(200);
    expect((await api.api(`/connections/${name}/refresh`, { method: "POST" })).status).toBe(200);
  }
  await stage.connect(named);
  expect((await api.token(named)).status).toBe(200);
  expect((await api.api(`/connections/${named}`, { method: "PATCH", body: { labels: { a: "b" } } })).status).toBe(200);
}

/** The actions that the audit has of a connection, newest first. */
async function actionsOf(connection: string): Promise<string[]> {
  const { body } = await stage.first.api.api<{ items: { action: string; result: string }[] }>(
    `/audit?connection=${connection}&limit=100`,
  );
  return (body.items ?? []).filter(({ result }) => result === "ok").map(({ action }) => action);
}

/** Whether a statement waits for a lock on the entries. */
async function isWaiting(): Promise<boolean> {
  const { rows } = await owner.query(
    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'audit.entries'::regclass",
  );
  return rows.length > 0;
}

/** Every entry is there: of this connection, and of each refresh that was ordered until now. */
async function untilWritten(named: string): Promise<void> {
  const ofIts = ["connections.create", "links.create", "consents.complete", "connections.update"];
  await until(`what was done with ${named}`, async () => {
    const actions = await actionsOf(named);
    return ofIts.every((action) => actions.includes(action));
  });
  for (const name of connections) {
    await until(`the refreshes of ${name}`, async () => {
      const ordered = (await actionsOf(name)).filter((action) => action === "connections.refresh");
      return ordered.length === works;
    });
  }
}

describeWithServices(["postgres"], "while the audit takes nothing", () => {
  beforeAll(async () => {
    stage = await ConnectedStage.start({ redisUrl: null, provider: { switches: { accessLifeSeconds } } });
    owner = new Client({ connectionString: stage.databaseUrl });
    await owner.connect();
    for (const name of connections) await stage.connect(name);
  });

  afterAll(async () => {
    await owner.end();
    await stage[Symbol.asyncDispose]();
  });

  it("since its table is locked, nothing is refused, no token set is lost, and every entry comes afterwards", async () => {
    await owner.query("BEGIN; LOCK TABLE audit.entries IN ACCESS EXCLUSIVE MODE; LOCK TABLE audit.open_reads");
    await work("locked");
    await until("the audit waits for the lock", isWaiting);
    await until("it has given up, and will try again", async () => !(await isWaiting()));
    await work("locked-longer");
    await owner.query("ROLLBACK");
    await untilWritten("locked");
    await untilWritten("locked-longer");
  });

  it("since the partitions for today are gone, the same", async () => {
    const { rows: parts } = await owner.query<{ part: string; bounds: string }>(
      `SELECT c.oid::regclass::text AS part, pg_get_expr(c.relpartbound, c.oid) AS bounds
       FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit.entries'::regclass`,
    );
    expect(parts.length).toBeGreaterThan(1);
    for (const { part } of parts) await owner.query(`ALTER TABLE audit.entries DETACH PARTITION ${part}`);
    await work("parted");
    for (const { part, bounds } of parts) {
      await owner.query(`ALTER TABLE audit.entries ATTACH PARTITION ${part} ${bounds}`);
    }
    await untilWritten("parted");
  });

  it("since its disk is full, the same", async () => {
    await owner.query(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$`);
    for (const table of ["entries", "open_reads"]) {
      await owner.query(
        `CREATE TRIGGER full_disk BEFORE INSERT ON audit.${table} FOR EACH ROW EXECUTE FUNCTION full_disk()`,
      );
    }
    await work("full");
    for (const table of ["entries", "open_reads"]) await owner.query(`DROP TRIGGER full_disk ON audit.${table}`);
    await untilWritten("full");
  });

  it("what waits in DATA_DIR at a stop is told as held, counts of the last seconds included; the next start tells it, too, and writes it", async () => {
    const { first } = stage;
    const sql = async (text: string) => await query<{ held: string[] }>(stage.databaseUrl, text);
    await owner.query("BEGIN; LOCK TABLE audit.entries IN ACCESS EXCLUSIVE MODE; LOCK TABLE audit.open_reads");
    expect((await first.api.token("full")).status).toBe(200);
    expect(await first.stop("SIGINT")).toBe(0);
    expect(await sql("SELECT held_key_ids AS held FROM replicas")).toEqual([{ held: ["k1"] }]);
    // Each time that the row of the replica is written.
    await sql(`CREATE TABLE told (held text[]);
      CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO public.told VALUES (NEW.held_key_ids); RETURN NULL; END $$;
      CREATE TRIGGER tell AFTER INSERT OR UPDATE ON replicas FOR EACH ROW EXECUTE FUNCTION tell()`);
    first.change({ ENCRYPTION_KEYS: `k2:${randomBytes(32).toString("base64")},${first.encryptionKeys}` });
    await first.start();
    expect(await sql("SELECT DISTINCT held FROM told")).toEqual([{ held: ["k1"] }]);
    const { body } = await first.api.api<{ keys: { id: string; reasons: string[] }[] }>("/encryption");
    expect(body.keys.find(({ id }) => id === "k1")?.reasons.join()).toContain(
      "holds something under it that is not stored yet",
    );
    await sql("DROP TRIGGER tell ON replicas");
    await owner.query("ROLLBACK");
    await until("the count of before the stop", async () => (await actionsOf("full")).includes("tokens.read"));
  });

  it("an orderly stop leaves nothing there: the reads of its last minute are entries, and the last one is its own", async () => {
    expect((await stage.first.api.token("parted")).status).toBe(200);
    expect(await stage.first.stop("SIGINT")).toBe(0);
    const { rows } = await owner.query<{ action: string; target: string | null; held: string[] }>(
      `SELECT action, target_name AS target, held_key_ids AS held FROM audit.entries, replicas
       WHERE process = (SELECT process FROM audit.entries WHERE action = 'system.start' ORDER BY at DESC LIMIT 1)
       ORDER BY seq DESC`,
    );
    expect(rows[0]).toMatchObject({ action: "system.stop", held: [] });
    expect(rows).toContainEqual(expect.objectContaining({ action: "tokens.read", target: "parted" }));
  });

  it("and the provider has got each refresh token once", () => {
    const { ledger } = stage.provider;
    expect(ledger.reuses).toEqual([]);
  });
});

/** How many reads of tokens the database knows of. */
async function countOf(): Promise<number> {
  const [row] = await query<{ count: string }>(
    stage.databaseUrl,
    `SELECT ((SELECT COALESCE(sum(count), 0) FROM audit.open_reads WHERE result = 'ok')
      + (SELECT COALESCE(sum((detail->>'count')::int), 0) FROM audit.entries WHERE action = 'tokens.read'))::text AS count`,
  );
  return Number(row?.count);
}

describeWithServices(["postgres"], "a broker that is killed while tokens are read as fast as they can", () => {
  it("has the counts of what was read before, and every other entry", async () => {
    await using killed = await ConnectedStage.start({ redisUrl: null });
    stage = killed;
    await stage.connect("read");
    const { api } = stage.first;
    const reading = { isOn: true, answered: 0 };
    const read = async () => {
      while (reading.isOn) {
        const answer = await api.token("read").catch(() => null);
        if (answer?.status === 200) reading.answered++;
      }
    };
    const readers = [read(), read(), read(), read()];
    await until("counts in the database", async () => (await countOf()) > 0);
    const made = await api.createKey({ name: "made last", abilities: ["tokens"], connections: ["*"] });
    await stage.first.kill();
    reading.isOn = false;
    await Promise.all(readers);
    const kept = await countOf();
    // How late a busy machine writes them, nobody can say; unit/audit holds the 4 s with a clock of its own.
    expect(kept).toBeGreaterThan(0);
    expect(kept).toBeLessThanOrEqual(reading.answered + readers.length);
    await stage.first.start();
    await until("the entry of the last change", async () => {
      const { body } = await stage.first.api.api<{ items: { target: { name: string } }[] }>("/audit?type=keys.create");
      return body.items.some(({ target }) => made.includes(target.name));
    });
  });
});
