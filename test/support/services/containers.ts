import { text } from "node:stream/consumers";
import { GenericContainer, type StartedTestContainer, getContainerRuntimeClient } from "testcontainers";
import { freePort } from "../free-port.ts";
import { pingPostgres, serverSettings } from "./postgres-program.ts";
import type { PostgresOptions, PrivatePostgres } from "./postgres.ts";
import { type PrivateServer, untilAnswering } from "./private-server.ts";
import { redisSettings, withRedis } from "./redis.ts";

/** Postgres in a container, which testcontainers' own reaper removes when this process ends. */
export async function startPostgresContainer(options: PostgresOptions): Promise<PrivatePostgres> {
  const port = await freePort();
  const container = await new GenericContainer("postgres:17-alpine")
    .withEnvironment({ POSTGRES_HOST_AUTH_METHOD: "trust" })
    .withExposedPorts({ container: 5432, host: port })
    .withCommand(["postgres", ...serverSettings({ ...options, listen: "*" })])
    .start();
  const url = `postgresql://postgres@${container.getHost()}:${port}/postgres`;
  const server = await containerServer(container, url, () => pingPostgres(url));
  return { ...server, log: async () => await text(await container.logs({ tail: -1 })) };
}

/** Redis in a container. */
export async function startRedisContainer(): Promise<PrivateServer> {
  const port = await freePort();
  const container = await new GenericContainer("redis:7-alpine")
    .withExposedPorts({ container: 6379, host: port })
    .withCommand(["redis-server", ...redisSettings])
    .start();
  const url = `redis://${container.getHost()}:${port}`;
  return await containerServer(container, url, () => withRedis(url, async (redis) => void (await redis.ping())));
}

async function containerServer(
  started: StartedTestContainer,
  url: string,
  ping: () => Promise<void>,
): Promise<PrivateServer> {
  const runtime = await getContainerRuntimeClient();
  const container = runtime.container.getById(started.getId());
  const running = async () => (await container.inspect()).State.Running;
  const stop = async () => void ((await running()) && (await container.stop()));
  await untilAnswering(ping);
  return {
    url,
    stop,
    kill: async () => void (await container.kill()),
    pause: async () => void (await container.pause()),
    resume: async () => void (await container.unpause()),
    restart: async () => {
      await stop();
      await container.start();
      await untilAnswering(ping);
    },
    [Symbol.asyncDispose]: async () => void (await started.stop()),
  };
}
