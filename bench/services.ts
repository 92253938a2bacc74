import { provideServices } from "../test/support/services/index.ts";
import { startSuite, type Suite } from "../test/support/services/suite.ts";

let starting: Promise<Suite> | undefined;

/** Call it before `useDatabase` and `useRedis`: finds or starts the Postgres and the Redis that all cases of a run share. */
export async function needServices(): Promise<void> {
  starting ??= startSuite();
  provideServices((await starting).services);
}

/** At the end of the run. */
export async function stopServices(): Promise<void> {
  await (await starting)?.stop();
}
