import { once } from "node:events";
import { createServer } from "node:net";
import type { Config } from "./config.ts";
import { cannotListen } from "./errors.ts";

/**
 * Whoever starts a second broker by mistake is told before a database is made for it; the ports themselves are taken later.
 * @throws StartupError for a port that cannot be listened on
 */
export async function requireFreePorts({
  host,
  port,
  metricsPort,
}: Pick<Config, "host" | "port" | "metricsPort">): Promise<void> {
  await requireFreePort("PORT", { host, port });
  if (metricsPort !== null) await requireFreePort("METRICS_PORT", { host, port: metricsPort });
}

async function requireFreePort(
  variable: "PORT" | "METRICS_PORT",
  address: { host: string; port: number },
): Promise<void> {
  const probe = createServer((socket) => void socket.destroy()); // a connection that is open would keep `close` waiting
  try {
    await once(probe.listen(address), "listening");
  } catch (error) {
    throw cannotListen(variable, address, error);
  }
  probe.close();
  await once(probe, "close");
}
