import { Client } from "pg";
import { afterAll, beforeAll, describe } from "vitest";
import { deafHealth, openPostgres } from "../../src/store/database.ts";
import { useEmbedded } from "../support/services/embedded.ts";
import { describeWithServices, useDatabase, useRole } from "../support/services/index.ts";
import { auditEntries } from "./audit/entries.ts";
import { auditProofs } from "./audit/proofs.ts";
import { auditRetention } from "./audit/retention.ts";
import { AuditStage } from "./audit/stage.ts";

describe("embedded", () => {
  onDatabase(async () => {
    const database = await useEmbedded();
    const sql = async (text: string, ...values: unknown[]) => await database.prisma.$executeRawUnsafe(text, ...values);
    return new AuditStage(database, { sql, hasRoles: false });
  });
});

// The broker's role may insert and select; whoever attacks owns the database.
describeWithServices(["postgres"], "on Postgres", () => {
  onDatabase(async () => {
    const migrationUrl = await useDatabase();
    const database = await openPostgres(await useRole(migrationUrl), deafHealth, { migrationUrl });
    const client = new Client({ connectionString: migrationUrl });
    await client.connect();
    const sql = async (text: string, ...values: unknown[]) => (await client.query(text, values)).rowCount ?? 0;
    const close = async () => void (await Promise.all([client.end(), database.close()]));
    return new AuditStage({ ...database, close }, { sql, hasRoles: true });
  });
});

function onDatabase(open: () => Promise<AuditStage>): void {
  let stage: AuditStage;
  beforeAll(async () => void (stage = await open()));
  afterAll(async () => {
    await stage.empty();
    await stage.database.close();
  });
  for (const suite of [auditEntries, auditProofs, auditRetention]) suite(() => stage);
}
