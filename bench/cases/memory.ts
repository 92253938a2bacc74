import { readFileSync } from "node:fs";
import { fillConnections } from "../../test/support/filled-connections.ts";
import { useDatabase } from "../../test/support/services/index.ts";
import { type BenchCase, generate, pinServer } from "../harness.ts";
import { needServices } from "../services.ts";
import { startSandboxBroker } from "../sandbox-broker.ts";

const connections = 100_000;
const tokenBytes = 1024;
const key = { id: "bench", key: Buffer.alloc(32, "memory") };
const megabyte = 1024 * 1024;
const allowedBytes = 150 * megabyte + 2 * connections * tokenBytes;

const each = (index: number) => ({
  name: `kept-${index}`,
  accessToken: `${index} `.padEnd(tokenBytes, "x"),
  expiresInSeconds: 86_400,
});

/** As `npm start` and the image. */
const nodeOptions = ["--max-semi-space-size=16"];

/** Bytes of a process that are in memory. */
function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kilobytes) * 1024;
}

export const memory: BenchCase = {
  name: "memory",
  number: 8,
  title: `resident memory of one process with ${connections} tokens of ${tokenBytes} B cached, after ten minutes of reads`,
  yardstick: "150 MB and twice the tokens",
  aim: { atMost: 1 },
  unit: "MB",
  async run({ seconds, log }) {
    await needServices();
    const databaseUrl = await useDatabase();
    const encryptionKeys = `${key.id}:${key.key.toString("base64")}`;
    await using broker = await startSandboxBroker({ databaseUrl, encryptionKeys, nodeOptions });
    const atStart = residentBytes(broker.pid);
    await broker.api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
    await fillConnections({ databaseUrl, key, count: connections, each });
    const caller = await broker.api.createKey({ name: "bench", abilities: ["tokens"], connections: ["kept-*"] });
    await pinServer(broker.pid);
    const paths = Array.from({ length: connections }, (_, index) => `/tokens/kept-${index}`);
    // Ten minutes with the four seconds that the other cases take for a round.
    const load = { url: broker.url, paths, headers: { authorization: `Bearer ${caller}` }, seconds: seconds * 15 };
    let most = 0;
    for (let part = 1; part <= 10; part++) {
      const { perSecond } = await generate(load);
      most = Math.max(most, residentBytes(broker.pid));
      log(
        `after ${part * load.seconds} s: ${Math.round(residentBytes(broker.pid) / megabyte)} MB, ${Math.round(perSecond)} reads/s`,
      );
    }
    return {
      ours: [residentBytes(broker.pid) / megabyte],
      yardstick: [allowedBytes / megabyte],
      notes: [`at the start ${Math.round(atStart / megabyte)} MB, at most ${Math.round(most / megabyte)} MB`],
    };
  },
};
