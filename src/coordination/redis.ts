import { Cluster, Redis } from "ioredis";
import { replicaTimes } from "../time.ts";

export type RedisClient = Redis | Cluster;

/** No offline queue and no resending: a lease that is taken too late is worse than none. */
const options = {
  commandTimeout: replicaTimes.redisCommandMs,
  connectTimeout: replicaTimes.redisConnectMs,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  // Subscribers subscribe on every "ready". When ioredis does it itself, nobody learns that it failed.
  autoResubscribe: false,
  maxRetriesPerRequest: 0,
  retryStrategy: reconnectDelayMs,
};

/**
 * Opens a connection, in the background. Besides `redis://` and `rediss://`:
 * - `redis+sentinel://[user:password@]host:port,host:port/master-name[/db]`
 * - `redis+cluster://[user:password@]host:port,host:port`
 */
export function connectRedis(url: string): RedisClient {
  const [, scheme = "", authority = "", path = ""] =
    /^(rediss?(?:\+sentinel|\+cluster)?):\/\/([^/]*)(.*)$/.exec(url) ?? [];
  if (!scheme.includes("+")) return new Redis(url, options);
  const at = authority.lastIndexOf("@");
  const credentials = at < 0 ? {} : parseCredentials(authority.slice(0, at));
  const tls = scheme.startsWith("rediss") ? { tls: {} } : {};
  const nodes = authority
    .slice(at + 1)
    .split(",")
    .map(parseNode);
  if (scheme.endsWith("cluster")) {
    return new Cluster(nodes, {
      enableOfflineQueue: false,
      clusterRetryStrategy: reconnectDelayMs,
      redisOptions: { ...options, ...credentials, ...tls },
    });
  }
  const [master = "mymaster", database = "0"] = path.split("/").filter((part) => part !== "");
  return new Redis({ ...options, ...credentials, ...tls, sentinels: nodes, name: master, db: Number(database) });
}

/** `attempt` counts from 1. */
function reconnectDelayMs(attempt: number): number {
  return Math.min(replicaTimes.redisReconnectFirstMs * 2 ** (attempt - 1), replicaTimes.redisReconnectMaxMs);
}

/** What is sent until the end of this turn goes out in one piece: each piece is a system call here, and a look at the socket there. */
export function gather(redis: RedisClient): void {
  const stream = redis instanceof Cluster ? null : redis.stream;
  stream?.cork?.();
  process.nextTick(() => stream?.uncork?.());
}

function parseNode(text: string): { host: string; port: number } {
  const { hostname, port } = new URL(`redis://${text}`);
  return { host: hostname.replaceAll(/[[\]]/g, ""), port: Number(port || 6379) };
}

function parseCredentials(text: string): { username?: string; password: string } {
  const [first = "", ...rest] = text.split(":");
  if (rest.length === 0) return { password: decodeURIComponent(first) };
  const password = decodeURIComponent(rest.join(":"));
  return first === "" ? { password } : { username: decodeURIComponent(first), password };
}

/** @returns the server's version, such as `Redis 7.0.15`; null: its user may not ask, or it does not answer */
export async function redisVersion(redis: RedisClient): Promise<{ name: string; version: string } | null> {
  const info = await redis.info("server").catch(() => "");
  const [, valkey] = /^valkey_version:(\S+)/m.exec(info) ?? [];
  if (valkey !== undefined) return { name: "Valkey", version: valkey };
  const [, version] = /^redis_version:(\S+)/m.exec(info) ?? [];
  return version === undefined ? null : { name: "Redis", version };
}
