import { afterAll, beforeAll, describe } from "vitest";
import { createDatabaseHealth } from "../../../src/store/database.ts";
import { type Database, openPostgres } from "../../../src/store/database.ts";
import { useEmbedded } from "../../support/services/embedded.ts";
import { describeWithServices, useDatabase, useRole } from "../../support/services/index.ts";
import { StoreStage } from "./stage.ts";

type Suite = (stage: () => StoreStage) => void;

/** Runs the same suites against Postgres and against the embedded database: what SQL does. */
export function describeOnBothDatabases(suites: Suite[]): void {
  describe("embedded", () => {
    onDatabase(useEmbedded, suites, 0.2);
  });
  describeOnPostgres(suites);
}

/** Runs suites against Postgres alone, as the role that may do the least: what is made of statements that others have tried on both. */
export function describeOnPostgres(suites: Suite[]): void {
  describeWithServices(["postgres"], "on Postgres", () => {
    const health = createDatabaseHealth(() => performance.now());
    const open = async () => {
      const migrationUrl = await useDatabase();
      return await openPostgres(await useRole(migrationUrl), health, { migrationUrl });
    };
    onDatabase(open, suites, 1);
  });
}

function onDatabase(open: () => Promise<Database>, suites: Suite[], share: number): void {
  let stage: StoreStage;
  beforeAll(async () => {
    stage = new StoreStage(await open(), share);
  });
  afterAll(async () => await stage.database.close());
  for (const suite of suites) suite(() => stage);
}
