import { request } from "undici";
import type { BrokerProcess } from "../test/support/broker-process.ts";
import { format, type Measured, summarise, type BenchCase } from "./harness.ts";

/** A key with 100 patterns, of which the last is this one. */
export async function benchKey(broker: BrokerProcess, pattern: string): Promise<string> {
  const patterns = Array.from({ length: 99 }, (_, index) => `team-${index}-*-orders`);
  return await broker.api.createKey({ name: "bench", abilities: ["tokens"], connections: [...patterns, pattern] });
}

/** What the broker sends for a fresh read, for a yardstick that sends the same. */
export async function answerOf(url: string, key: string): Promise<string> {
  const answer = await request(url, { headers: { authorization: `Bearer ${key}` } });
  const body = await answer.body.text();
  if (answer.statusCode !== 200) throw new Error(`${url}: ${answer.statusCode} ${body}`);
  const byNode = new Set(["date", "connection", "keep-alive", "content-length"]);
  const headers = Object.entries(answer.headers).filter(([name]) => !byNode.has(name));
  return JSON.stringify({ body, headers: Object.fromEntries(headers) });
}

/** A line for what other work on the machine changes less. */
export function noteOfCpu({ aim }: Pick<BenchCase, "aim">, byCpu: Measured): string {
  const { ratio, ours, yardstick } = summarise({ aim }, byCpu);
  return `for each second of the server's CPU: ratio ${ratio.toFixed(2)}; ${format(ours)} / ${format(yardstick)} reads`;
}
