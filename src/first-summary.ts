import type { Logger } from "pino";
import manifest from "../package.json" with { type: "json" };
import type { Broker } from "./broker.ts";
import { systemClock, withDeadline } from "./clock.ts";
import type { Config, Environment } from "./config.ts";

type Started = { config: Config; given: Environment; log: Pick<Logger, "info" | "warn"> };

/** Nobody waits longer to be told: the broker serves already. */
const patienceMs = 2000;

/** The last line of a start: what serves, and with what. Before it, whether nobody can call. Never rejects. */
export async function tellStart(broker: Broker, { config, given, log }: Started): Promise<void> {
  const { hasAdmin, describeDatabase, describeRedis, catalog } = broker;
  const [mayCall, database, redis] = await Promise.all([
    answered(hasAdmin(), true),
    answered(describeDatabase(), "away"),
    answered(describeRedis(), "away"),
  ]);
  if (!mayCall) log.warn({ variable: "ADMIN_KEY" }, nobodyMayCall);
  const { port, publicUrl } = config;
  const { all, own } = catalog.count;
  const envFile = given.file?.path ?? null;
  const settings = envFile ?? "environment";
  const parts = [
    database === "away" ? "Postgres is away" : database,
    redis === "none" ? "no Redis" : redis === "away" ? "Redis is away" : redis,
    `${all} providers${own > 0 ? `, ${own} of them from PROVIDERS_DIR` : ""}`,
    `API and docs: ${publicUrl}/docs`,
    ...(envFile === null ? [] : [`settings: the environment, and ${envFile}`]),
  ];
  log.info(
    { version: manifest.version, database, redis, providers: all, settings, port, publicUrl },
    `ready: Freshet ${manifest.version} at ${publicUrl}; ${parts.join("; ")}`,
  );
}

const nobodyMayCall =
  "nobody can administer this broker: ADMIN_KEY is not set, and no key with the ability admin that works is in the database. " +
  "Set ADMIN_KEY to at least 32 characters, such as the output of openssl rand -hex 32, and start again";

/** What cannot be asked has been told as an outage already. */
async function answered<Answer>(asked: Promise<Answer>, otherwise: Answer): Promise<Answer> {
  const answer = await withDeadline(
    asked.catch(() => null),
    patienceMs,
    systemClock,
  );
  return answer ?? otherwise;
}
