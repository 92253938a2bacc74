import { Client } from "pg";
import { afterAll, beforeAll, describe } from "vitest";
import { createDatabaseHealth, openPostgres } from "../../src/store/database.ts";
import { useEmbedded } from "../support/services/embedded.ts";
import { describeWithServices, useDatabase, useRole } from "../support/services/index.ts";
import { auditEntries } from "./audit/entries.ts";
import { auditOutages } from "./audit/outages.ts";
import { auditPlans } from "./audit/plans.ts";
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
  let client: Client;
  const health = createDatabaseHealth(() => performance.now());
  const open = async () => {
    const migrationUrl = await useDatabase();
    const database = await openPostgres(await useRole(migrationUrl), health, { migrationUrl });
    client = new Client({ connectionString: migrationUrl });
    await client.connect();
    const sql = async (text: string, ...values: unknown[]) => (await client.query(text, values)).rowCount ?? 0;
    const close = async () => void (await Promise.all([client.end(), database.close()]));
    return new AuditStage({ ...database, close }, { sql, hasRoles: true });
  };
  const outages: Suite = (stage) => auditOutages(stage, { owner: () => client, losses: () => health.losses() });
  onDatabase(open, [outages, auditPlans]);
});

type Suite = (stage: () => AuditStage) => void;

function onDatabase(open: () => Promise<AuditStage>, more: readonly Suite[] = []): void {
  let stage: AuditStage;
  beforeAll(async () => void (stage = await open()));
  afterAll(async () => {
    await stage.empty();
    await stage.database.close();
  });
  const suites: readonly Suite[] = [auditEntries, auditProofs, auditRetention, ...more];
  for (const suite of suites) describe(suite.name, () => suite(() => stage));
}
