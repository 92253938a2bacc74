import { afterAll, beforeAll, describe } from "vitest";
import { createDatabaseHealth, type DatabaseHealth } from "../../../src/store/database-health.ts";
import { openPostgres, type Database } from "../../../src/store/database.ts";
import { openEmbedded } from "../../../src/store/embedded.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { describeWithServices, useDatabase } from "../../support/services/index.ts";
import { StoreStage } from "./stage.ts";

/** Runs the same suites against Postgres and against the embedded database, which takes seconds to make: once for all. */
export function describeOnBothDatabases(suites: ((stage: () => StoreStage) => void)[]): void {
  describe("embedded", () => {
    onDatabase(openFresh, suites);
  });
  describeWithServices(["postgres"], "on Postgres", () => {
    onDatabase(async (health) => await openPostgres(await useDatabase(), health), suites);
  });
}

async function openFresh(health: DatabaseHealth): Promise<Database> {
  const folder = await temporaryFolder("embedded");
  const database = await openEmbedded(folder.path, health);
  const close = async () => {
    await database.close();
    await folder.remove();
  };
  return { ...database, close };
}

type Open = (health: DatabaseHealth) => Promise<Database>;

function onDatabase(open: Open, suites: ((stage: () => StoreStage) => void)[]): void {
  let stage: StoreStage;
  beforeAll(async () => {
    stage = new StoreStage(await open(createDatabaseHealth(() => performance.now())));
  });
  afterAll(async () => await stage.database.close());
  for (const suite of suites) suite(() => stage);
}
