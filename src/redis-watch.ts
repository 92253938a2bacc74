import type { Logger } from "pino";
import { type RedisClient, redisVersion } from "./redis.ts";
import { closedAtOnce, redisTrouble, tooOldRedis } from "./redis-trouble.ts";
import { createOutage } from "./telemetry/outage.ts";

type Watching = { redisUrl: string; log: Pick<Logger, "warn" | "info">; monotonicMs: () => number };

/** Tells when Redis goes, or takes nothing, and when it is back. `stop`: what is closed from now on is closed by us. */
export function watchRedis(redis: RedisClient, { redisUrl, log, monotonicMs }: Watching) {
  const isTls = redisUrl.startsWith("rediss");
  const meanwhile = "Freshet serves without it, and goes on trying";
  const outage = createOutage({ log, monotonicMs, name: "Redis", meanwhile });
  let [isTold, isStopped, hasNoDatabase] = [false, false, false];
  const onError = (error: Error) => {
    if (/DB index is out of range/.test(error.message)) {
      if (!hasNoDatabase) log.warn(noSuchDatabase);
      hasNoDatabase = true;
      return;
    }
    const why = redisTrouble(error, { isTls });
    if (why === null || isStopped) return;
    isTold = true;
    outage.trouble(why, error.message.startsWith("Command timed out") ? slowMomentMs : 0);
  };
  redis.on("error", onError);
  redis.on("ready", () => (isTold = true));
  redis.on("close", () => {
    // One that had served says why with the next attempt.
    if (!isTold && !isStopped) outage.trouble(closedAtOnce({ isTls }));
    isTold = false;
  });
  return { onError, onTaken: () => outage.well(), stop: () => void (isStopped = true) };
}

/** While this process is busy with something else it sees no answer either. */
const slowMomentMs = 1000;

const noSuchDatabase =
  "REDIS_URL ends with the number of a database that this Redis does not have, so database 0 is used: correct the number, or leave it away";

/** @returns what serves, and where; a version that is too old is told */
export async function describeRedis(
  redis: RedisClient,
  { redisUrl, isThere, log }: { redisUrl: string; isThere: boolean; log: Pick<Logger, "warn"> },
): Promise<string> {
  if (!isThere) return "away";
  const server = await redisVersion(redis);
  const tooOld = tooOldRedis(server?.name === "Redis" ? server.version : null);
  if (tooOld !== null) log.warn(tooOld);
  const [, hosts = ""] = /^[a-z+]+:\/\/(?:[^/?#]*@)?([^/?#]*)/.exec(redisUrl) ?? [];
  return `${server === null ? "Redis" : `${server.name} ${server.version}`} at ${hosts}`;
}
