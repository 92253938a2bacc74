import { afterAll, beforeAll, describe } from "vitest";
import { createDatabaseHealth } from "../../../src/store/database-health.ts";
import { openPostgres, type Database } from "../../../src/store/database.ts";
import { useEmbedded } from "../../support/services/embedded.ts";
import { describeWithServices, useDatabase } from "../../support/services/index.ts";
import { StoreStage } from "./stage.ts";

/** Runs the same suites against Postgres and against the embedded database. */
export function describeOnBothDatabases(suites: ((stage: () => StoreStage) => void)[]): void {
  describe("embedded", () => {
    onDatabase(useEmbedded, suites);
  });
  describeWithServices(["postgres"], "on Postgres", () => {
    const health = createDatabaseHealth(() => performance.now());
    onDatabase(async () => await openPostgres(await useDatabase(), health), suites);
  });
}

function onDatabase(open: () => Promise<Database>, suites: ((stage: () => StoreStage) => void)[]): void {
  let stage: StoreStage;
  beforeAll(async () => {
    stage = new StoreStage(await open());
  });
  afterAll(async () => await stage.database.close());
  for (const suite of suites) suite(() => stage);
}
