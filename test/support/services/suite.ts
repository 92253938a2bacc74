import { makeBundles } from "./bundles.ts";
import { choosePrivateSource, chooseSource, describeSource, type ServiceKind, type Source } from "./choice.ts";
import { dropDatabases } from "./databases.ts";
import { guard } from "./guardian.ts";
import { startPostgres } from "./postgres.ts";
import { startRedis } from "./redis.ts";
import { install, surroundingsOf } from "./surroundings.ts";

/** What every test file is told about the services of this run. */
export type Services = {
  /** Databases of this run carry names that start so. */
  databasePrefix: string;
  postgres: ServiceOffer;
  redis: ServiceOffer;
};

/** `url`: the run's shared server; absent where there is none. `private`: where instances of a test's own come from. */
type ServiceOffer = { url?: string; private: Source };

/** `line` says in words where the services come from. */
export type Suite = { services: Services; line: string; stop(): Promise<void> };

/** Finds or starts the Postgres and the Redis that a run's tests share. */
export async function startSuite(): Promise<Suite> {
  await makeBundles();
  const postgres = await offer("postgres", startPostgres);
  const redis = await offer("redis", startRedis);
  const databasePrefix = `freshet_test_${process.pid}_${Date.now().toString(36)}_`;
  // A server of this run's own goes with all that is in it.
  const serverUrl = postgres.isOwn ? undefined : postgres.url;
  const release = serverUrl ? guard({ kind: "databases", serverUrl, prefix: databasePrefix }) : undefined;
  return {
    services: { databasePrefix, postgres: toOffer(postgres), redis: toOffer(redis) },
    line: `${postgres.line}; ${redis.line}`,
    async stop() {
      if (serverUrl) await dropDatabases(serverUrl, databasePrefix);
      release?.();
      await Promise.all([postgres.stop(), redis.stop()]);
    },
  };
}

/** `isOwn`: it was started for this run, and ends with it. */
type Offered = ServiceOffer & { line: string; isOwn: boolean; stop(): Promise<void> };
type Start = (source: Source) => Promise<AsyncDisposable & { url: string }>;

async function offer(kind: ServiceKind, start: Start): Promise<Offered> {
  const around = await surroundingsOf(kind);
  const chosen = chooseSource(kind, around);
  const line = describeSource(kind, chosen);
  const ownSource = await install(kind, choosePrivateSource(kind, around));
  if (chosen.from === "url") return { line, isOwn: false, url: chosen.url, private: ownSource, stop: async () => {} };
  if (ownSource.from === "nowhere") {
    return { line: describeSource(kind, ownSource), isOwn: false, private: ownSource, stop: async () => {} };
  }
  const server = await start(ownSource);
  const stop = async () => await server[Symbol.asyncDispose]();
  return { line, isOwn: true, url: server.url, private: ownSource, stop };
}

function toOffer({ url, private: ownSource }: Offered): ServiceOffer {
  return url === undefined ? { private: ownSource } : { url, private: ownSource };
}
