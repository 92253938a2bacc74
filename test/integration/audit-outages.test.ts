import { afterAll, beforeAll, expect, it } from "vitest";
import { Client } from "pg";
import { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices } from "../support/services/index.ts";

const accessLifeSeconds = 3600;
/** Longer than counts wait to be written (docs/internals/audit.md, rule A2). */
const readMs = 10_000;
const connections = ["one", "two", "three", "four"];

let stage: ConnectedStage;
let owner: Client;

/** Everything that callers and people do: reads, refreshes, a new account, and a change. */
async function work(named: string): Promise<void> {
  const { api } = stage.first;
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

async function untilWritten(named: string): Promise<void> {
  await until(`what was done with ${named}`, async () => {
    const actions = await actionsOf(named);
    return ["connections.create", "links.create", "consents.complete", "connections.update"].every((action) =>
      actions.includes(action),
    );
  });
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
    await owner.query("ROLLBACK");
    await untilWritten("locked");
  });

  it("since the partitions for today are gone, the same", async () => {
    const parts = await query<{ part: string }>(
      stage.databaseUrl,
      "SELECT inhrelid::regclass::text AS part FROM pg_inherits WHERE inhparent = 'audit.entries'::regclass",
    );
    expect(parts.length).toBeGreaterThan(1);
    for (const { part } of parts) await owner.query(`ALTER TABLE audit.entries DETACH PARTITION ${part}`);
    await work("parted");
    await owner.query("ALTER TABLE audit.entries ATTACH PARTITION audit.entries_default DEFAULT");
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

  it("and the provider has got each refresh token once", () => {
    const { ledger } = stage.provider;
    expect(ledger.reuses).toEqual([]);
  });
});

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
    const startedMs = performance.now();
    await until("reads for so long", () => performance.now() - startedMs > readMs);
    const made = await api.createKey({ name: "made last", abilities: ["tokens"], connections: ["*"] });
    await stage.first.kill();
    reading.isOn = false;
    await Promise.all(readers);
    const [kept] = await query<{ count: string }>(
      stage.databaseUrl,
      `SELECT ((SELECT COALESCE(sum(count), 0) FROM audit.open_reads WHERE result = 'ok')
        + (SELECT COALESCE(sum((detail->>'count')::int), 0) FROM audit.entries WHERE action = 'tokens.read'))::text AS count`,
    );
    // How late a busy machine writes them, nobody can say; unit/audit holds the 4 s with a clock of its own.
    expect(Number(kept?.count)).toBeGreaterThan(0);
    expect(Number(kept?.count)).toBeLessThanOrEqual(reading.answered + readers.length);
    await stage.first.start();
    await until("the entry of the last change", async () => {
      const { body } = await stage.first.api.api<{ items: { target: { name: string } }[] }>("/audit?type=keys.create");
      return body.items.some(({ target }) => made.includes(target.name));
    });
  });
});
