import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort } from "../free-port.ts";
import { hangMs } from "../patience.ts";
import type { Source } from "./choice.ts";
import { temporaryFolder } from "./guardian.ts";
import type { PrivateServer } from "./private-server.ts";
import { startProgramServer } from "./program-server.ts";

/** The settings of every test server: nothing on disk, a database for every file. */
export const redisSettings = ["--save", "", "--appendonly", "no", "--databases", "1024", "--protected-mode", "no"];

/** Starts a Redis from a container or from programs. @throws where the source offers neither. */
export async function startRedis(source: Source): Promise<PrivateServer> {
  if (source.from === "programs") return await startRedisProgram(source.folder);
  if (source.from !== "docker") throw new Error(`no private Redis from ${source.from}`);
  const { startRedisContainer } = await import("./containers.ts");
  return await startRedisContainer();
}

async function startRedisProgram(binFolder: string): Promise<PrivateServer> {
  const folder = await temporaryFolder("redis");
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  return await startProgramServer({
    url,
    command: join(binFolder, "redis-server"),
    args: ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder.path, ...redisSettings],
    folder,
    logFile: join(folder.path, "log"),
    owner: {},
    stopSignal: "SIGTERM",
    ping: () => withRedis(url, async (redis) => void (await redis.ping())),
  });
}

/** Runs `work` on a connection of its own, without retries. */
export async function withRedis<Result>(url: string, work: (redis: Redis) => Promise<Result>): Promise<Result> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, connectTimeout: hangMs });
  redis.on("error", () => {
    // The command that fails says so.
  });
  try {
    await redis.connect();
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}
