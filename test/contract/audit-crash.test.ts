import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Client } from "pg";
import { expect, it } from "vitest";
import { deafHealth, openPostgres } from "../../src/store/database.ts";
import { until } from "../support/patience.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, useDatabase, useRole } from "../support/services/index.ts";
import { AuditStage, caller } from "./audit/stage.ts";

const program = fileURLToPath(new URL("audit/crash-process.ts", import.meta.url));

/** What it has said until it was killed. */
type Said = { begun: Set<string>; ended: Set<string>; flushed: number; counted: number; troubles: string[] };

/** Runs it until it has written counts, and kills it in the middle of all it does. */
async function killOne(args: readonly string[]): Promise<Said> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "close");
  const said: Said = { begun: new Set(), ended: new Set(), flushed: 0, counted: 0, troubles: [] };
  let flushes = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    const [word = "", ...rest] = line.split(" ");
    if (word === "begun" || word === "ended") said[word].add(rest.join(" "));
    else if (word === "counted") said.counted = Number(rest[0]);
    else if (word === "flushed") said.flushed += Number(rest[0]);
    else said.troubles.push(line);
    if (word === "flushed") flushes += 1;
    // In the middle of the second 4 s, with entries begun and not ended.
    if (flushes >= 2 && said.begun.size > said.ended.size + 2) child.kill("SIGKILL");
  }
  await ended;
  expect(child.signalCode).toBe("SIGKILL");
  return said;
}

describeWithServices(["postgres"], "kill -9 in the middle of reads and changes at full speed", () => {
  it("loses no entry that was begun, repeats none, and keeps all counts that were written", async () => {
    const migrationUrl = await useDatabase();
    const databaseUrl = await useRole(migrationUrl);
    const database = await openPostgres(databaseUrl, deafHealth, { migrationUrl });
    const owner = new Client({ connectionString: migrationUrl });
    await owner.connect();
    const sql = async (text: string, ...values: unknown[]) => (await owner.query(text, values)).rowCount ?? 0;
    const audit = new AuditStage(database, { sql, hasRoles: true });
    const folder = (await temporaryFolder("crash")).path;
    const said: Said[] = [];
    for (const round of ["first", "second"]) {
      said.push(await killOne([databaseUrl, migrationUrl, folder, audit.key.key.toString("base64"), round]));
    }
    expect(said.flatMap(({ troubles }) => troubles)).toEqual([]);

    // Three minutes later, so that it adds up what the others have counted.
    const last = await audit.start({ folder, wallMs: Date.now() + 180_000 });
    await until(
      "all counts are added up",
      async () => (await audit.query("SELECT 1 AS one FROM audit.open_reads")).length === 0,
    );
    await audit.stop(last);
    const results = new Map<string, string[]>();
    let counted = 0;
    for await (const { action, detail, result } of last.audit.export({})) {
      if (action === "tokens.read") counted += Number(detail["count"]);
      if (action !== "keys.create") continue;
      const mark = String(detail["mark"]);
      results.set(mark, [...(results.get(mark) ?? []), result]);
    }
    const begun = said.flatMap((each) => [...each.begun]);
    const ended = new Set(said.flatMap((each) => [...each.ended]));
    expect(begun.length).toBeGreaterThan(0);
    const notOnce = begun.filter((mark) => results.get(mark)?.length !== 1);
    expect(notOnce.map((mark) => [mark, results.get(mark)])).toEqual([]);
    expect([...ended].filter((mark) => results.get(mark)?.[0] !== "ok")).toEqual([]);
    expect([...results].filter(([mark, [result]]) => result !== "ok" && ended.has(mark))).toEqual([]);
    // Of a write that was under way when its process was killed, either all or nothing is there.
    expect(counted).toBeGreaterThanOrEqual(said.reduce((sum, { flushed }) => sum + flushed, 0));
    expect(counted).toBeLessThanOrEqual(said.reduce((sum, each) => sum + each.counted, 0) + 2 * 200);
    expect(await last.audit.verify(last.heads)).toMatchObject({ ok: true, chains: 3 });
    await owner.end();
    await database.close();
  });

  it("writes nothing twice where Postgres commits for the killed process after the next one has begun", async () => {
    const database = await openPostgres(await useDatabase(), deafHealth);
    const sql = async (text: string) => await database.prisma.$executeRawUnsafe(text);
    const audit = new AuditStage(database, { sql, hasRoles: false });
    const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const state = { isKilled: false };
    const killed = await audit.start({
      over: (store) => ({
        ...store,
        write: async (id, work) =>
          await store.write(id, async (transaction) => {
            const result = await work(transaction);
            if (state.isKilled) reached.resolve();
            if (state.isKilled) await released.promise;
            return result;
          }),
      }),
    });
    state.isKilled = true;
    const entry = { actor: caller, action: "keys.create", target: null, address: null } as const;
    await killed.audit.end(await killed.audit.begin(entry), { result: "ok" });
    await reached.promise;
    const next = await audit.start({ folder: killed.folder });
    const created = async () => await audit.query("SELECT 1 AS one FROM audit.entries WHERE action = 'keys.create'");
    await until("it waits for what the killed one has begun, or writes", async () => {
      const waiting = await audit.query("SELECT 1 AS one FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
      return waiting.length > 0 || (await created()).length > 0;
    });
    released.resolve();
    await audit.stop(next);
    await until("the killed one's row is there", async () => (await created()).length > 0);
    expect(await created()).toHaveLength(1);
    await audit.stop(killed);
    await database.close();
  });
});
