import { setTimeout as sleep } from "node:timers/promises";
import { Agent, request } from "undici";
import { percentile } from "../test/campaign/tools.ts";

/**
 * Reads at a fixed rate, each at its time, whether those before were answered or not: `node bench/steady-reads.ts`, with what it needs in its
 * environment. Says what 99 of 100 were answered within, counted from the time at which the read was to begin.
 */
const { URLS = "", KEY = "", PER_SECOND = "500", SECONDS = "4" } = process.env;
const urls = URLS.split(",");
const dispatcher = new Agent({ connections: 50 });
const headers = { authorization: `Bearer ${KEY}` };
const everyMs = 1000 / Number(PER_SECOND);
const count = Number(PER_SECOND) * Number(SECONDS);
const tookMs: number[] = [];

async function read(index: number, atMs: number): Promise<void> {
  const answer = await request(urls[index % urls.length] ?? "", { dispatcher, headers });
  await answer.body.dump();
  if (answer.statusCode !== 200) throw new Error(`a read was answered ${answer.statusCode}`);
  tookMs.push(performance.now() - atMs);
}

const reads: Promise<void>[] = [];
const startMs = performance.now();
while (reads.length < count) {
  for (; reads.length < count && startMs + reads.length * everyMs <= performance.now();) {
    reads.push(read(reads.length, startMs + reads.length * everyMs));
  }
  await sleep(1);
}
await Promise.all(reads);
process.stdout.write(JSON.stringify({ p50: percentile(tookMs, 0.5), p99: percentile(tookMs, 0.99) }));
