import { afterAll, beforeAll, describe } from "vitest";
import { createDatabaseHealth } from "../../../src/store/database.ts";
import { type Database, openPostgres } from "../../../src/store/database.ts";
import { useEmbedded } from "../../support/services/embedded.ts";
import { describeWithServices, useDatabase } from "../../support/services/index.ts";
import { StoreStage } from "./stage.ts";

type Suite = (stage: () => StoreStage) => void;

/** Runs the same suites against Postgres and against the embedded database: what SQL does. */
export function describeOnBothDatabases(suites: Suite[]): void {
  describe("embedded", () => {
    onDatabase(useEmbedded, suites, 0.2);
  });
  describeOnPostgres(suites);
}

/** Runs suites against Postgres alone: what is made of statements that others have tried on both. */
export function describeOnPostgres(suites: Suite[]): void {
  describeWithServices(["postgres"], "on Postgres", () => {
    const health = createDatabaseHealth(() => performance.now());
    onDatabase(async () => await openPostgres(await useDatabase(), health), suites, 1);
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
