import type { BrokerProcess } from "../support/broker-process.ts";
import type { ConnectedStage } from "../support/connected-stage.ts";
import { until } from "../support/patience.ts";
import type { Ledger } from "../support/providers/ledger.ts";

export type Connected = { name: string; family: string; refreshToken: string };

/** Connections whose access tokens have run out, and whose refresh tokens are good. */
export async function connectMany(
  stage: ConnectedStage,
  count: number,
  prefix = stage.provider.id,
): Promise<Connected[]> {
  const connect = async (name: string) => ({ name, ...(await stage.connectExpired(name)) });
  return await inBatches(count, 10, (index) => connect(`${prefix}-${index}`));
}

/** Does `work` for each index below `count`, `width` at a time; results are in order. */
export async function inBatches<Result>(
  count: number,
  width: number,
  work: (index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let from = 0; from < count; from += width) {
    const batch = Array.from({ length: Math.min(width, count - from) }, (_, offset) => work(from + offset));
    results.push(...(await Promise.all(batch)));
  }
  return results;
}

/** Reads each connection until it has a token. @returns how long that took, each in milliseconds */
export async function readUntilServed(
  { api }: BrokerProcess,
  names: readonly string[],
  { everyMs = 200 } = {},
): Promise<number[]> {
  const startedMs = performance.now();
  const untilServed = async (name: string) => {
    await until(`a token of ${name}`, async () => (await api.token(name)).status === 200, { everyMs });
    return performance.now() - startedMs;
  };
  return await Promise.all(names.map(untilServed));
}

/** Whether the provider has got a refresh token: on a slow machine a permit may pass with nothing sent, and the caller asks again. */
export function wasSent(ledger: Ledger, refreshToken: string): boolean {
  return ledger.requestsTo("token").some(({ fields }) => fields["refresh_token"] === refreshToken);
}

/** What the provider's ledger shows against the broker: all zero if nothing was sent twice. */
export function offences(ledger: Ledger): { reuses: number; overlaps: number; sentTwice: number } {
  const sentTwice = ledger.tokens.filter(({ kind, seen }) => kind === "refresh" && seen > 1).length;
  return { reuses: ledger.reuses.length, overlaps: Math.max(0, ledger.peakConcurrency() - 1), sentTwice };
}

/** For each refresh token that was sent more than once: how each request ended, and how long it came after the one before. */
export function sendsAgain({ requests, tokens }: Ledger): string[] {
  const again = tokens.filter(({ kind, seen }) => kind === "refresh" && seen > 1);
  return again.map(({ value }) => {
    const sends = requests.filter(({ fields }) => fields["refresh_token"] === value);
    const told = sends.map(({ inAt, outAt = Date.now(), status = "no answer" }, index) => {
      const before = sends[index - 1]?.inAt;
      const since = before === undefined ? "" : `${((inAt - before) / 1000).toFixed(1)} s later `;
      return `${since}${status} after ${((outAt - inAt) / 1000).toFixed(1)} s`;
    });
    return `a refresh token was sent ${sends.length} times: ${told.join(", ")}`;
  });
}

/** The value below which this share of all lies. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
