import type { Logger } from "pino";
import { type RedisClient, redisVersion } from "../coordination/redis.ts";
import { whyUnreachable } from "../errors.ts";
import { createOutage } from "../telemetry/outage.ts";
import { processTimes } from "../time.ts";

type Watching = { redisUrl: string; log: Pick<Logger, "warn" | "info">; monotonicMs: () => number };

/** Logs when Redis goes away or refuses writes, and when it is back. `stop`: from now on this process closes the connections itself. */
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
    // A server that is no Redis closes the connection: it depends on who is faster whether that is read as an end or as a reset.
    const isCut = !isTold && ["ECONNRESET", "EPIPE"].includes((error as NodeJS.ErrnoException).code ?? "");
    const why = isCut ? closedAtOnce({ isTls }) : redisTrouble(error, { isTls });
    if (why === null || isStopped) return;
    isTold = true;
    outage.trouble(why, error.message.startsWith("Command timed out") ? processTimes.slowMomentMs : 0);
  };
  redis.on("error", onError);
  redis.on("ready", () => (isTold = true));
  redis.on("close", () => {
    // If Redis had served before, the next attempt to connect says why it is away.
    if (!isTold && !isStopped) outage.trouble(closedAtOnce({ isTls }));
    isTold = false;
  });
  return { onError, onTaken: () => outage.well(), stop: () => void (isStopped = true) };
}

const noSuchDatabase =
  "REDIS_URL ends with the number of a database that this Redis does not have, so database 0 is used: correct the number, or leave it away";

/** @returns which server it is, and where; a version that is too old is logged */
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

/** Errors of Redis and of ioredis, and what to do about them. */
const troubles: readonly [said: RegExp, why: string][] = [
  [/^WRONGPASS/, "it refuses the user or the password (WRONGPASS); correct them, percent-encoded"],
  [/^NOAUTH/, "it wants a password (NOAUTH); write it into the URL, as redis://:password@host"],
  [/^NOPERM/, "its user may not do what Freshet needs (NOPERM); allow it ~* &* +@all there, or use another user"],
  [/^READONLY/, "it is a replica and takes no writes (READONLY); name the primary, or Sentinel with redis+sentinel://"],
  [/^OOM/, "its memory is full (OOM); give it more maxmemory"],
  [/^MISCONF/, "it takes no writes, since it cannot save them (MISCONF); see to its disk"],
  [/^NOREPLICAS/, "it takes no writes without its replicas (NOREPLICAS); start them"],
  [/^LOADING|^MASTERDOWN|^CLUSTERDOWN/, "it is not ready yet; wait, or see to its log"],
  [/^MOVED/, "it is a node of a cluster (MOVED); write redis+cluster:// in place of redis://"],
  [/cluster support disabled/, "it is no cluster; write redis:// in place of redis+cluster://"],
  [/unknown command 'sentinel'/i, "it is no Sentinel; write redis:// in place of redis+sentinel://"],
  [/sentinels are unreachable/, "none of its Sentinels can be reached; start them, or correct hosts and ports"],
  [/slots cache/, "none of its nodes can be reached; start them, or correct hosts and ports"],
  [/^Unknown RESP type|^Protocol error/, "what answers at its host and port is no Redis; correct the port"],
  [/^Command timed out/, "it does not answer in time; see to it, or correct host and port"],
];

/** An error that says only that the connection is closed. Another error has said why. */
const isAftermath =
  /^Stream isn't writeable|^Cluster isn't ready|^Connection is closed|^Reached the max retries|aborted/;

/** @returns what is wrong and what to do, without any part of the URL; null: another error of the connection has said it */
function redisTrouble(error: Error & { lastNodeError?: Error }, { isTls }: { isTls: boolean }): string | null {
  const { message, lastNodeError } = error;
  const unreachable = whyUnreachable(error);
  if (unreachable !== null) return (error as NodeJS.ErrnoException).code === "ETIMEDOUT" && isTls ? plain : unreachable;
  if (lastNodeError !== undefined && !isAftermath.test(lastNodeError.message)) {
    return redisTrouble(lastNodeError, { isTls });
  }
  if (isAftermath.test(message)) return null;
  const known = troubles.find(([said]) => said.test(message));
  // The first word of an answer is a code. The rest may hold anything, also secrets.
  return known?.[1] ?? `it answers with an error (${/^[A-Z]{3,}\b/.exec(message)?.[0] ?? error.name}); see to its log`;
}

const plain = "it does not answer in time (ETIMEDOUT); if it speaks no TLS, write redis:// in place of rediss://";

/** @returns what is wrong where a connection is closed before Redis has said anything */
function closedAtOnce({ isTls }: { isTls: boolean }): string {
  const tls = isTls ? "" : ", and if it expects TLS, write rediss:// in place of redis://";
  return `it closes the connection at once; correct the port, where a Postgres may listen${tls}`;
}

const oldest = { major: 6, minor: 2 };

/** @returns a warning about the version in Redis's INFO; null: it is new enough, or not known */
function tooOldRedis(version: string | null): string | null {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(version ?? "") ?? [];
  if (major === undefined || minor === undefined) return null;
  const isOld = Number(major) < oldest.major || (Number(major) === oldest.major && Number(minor) < oldest.minor);
  return isOld ? `REDIS_URL leads to Redis ${version}; ${oldest.major}.${oldest.minor} or later is needed` : null;
}
