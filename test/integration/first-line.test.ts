import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { prepareBroker } from "../support/broker-process.ts";

async function takenPort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { port, [Symbol.dispose]: () => void server.close() };
}

test.each(["PORT", "METRICS_PORT"])(
  "the first line says what starts, and a %s that is taken is told before a database is made",
  async (variable) => {
    using taken = await takenPort();
    await using broker = await prepareBroker({ env: { [variable]: String(taken.port) } });
    broker.launch();
    expect(await broker.ended()).toBe(2);
    expect(broker.stdout).toMatch(
      /^Freshet \d+\.\d+\.\d+ starts with a new embedded database in \S+, which takes some seconds this first time …\n$/,
    );
    expect(broker.stderr).toBe(
      `freshet: ${variable} ${taken.port} on HOST 127.0.0.1 cannot be listened on (EADDRINUSE); another program listens there: stop it, or set ${variable} to another port\n`,
    );
    expect(existsSync(join(broker.dataDir, "database"))).toBe(false);
  },
);
