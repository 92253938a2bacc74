import { simulate } from "../../support/simulation/simulate.ts";
import type { Row } from "../row.ts";

const sizes = {
  full: { connections: 500, outageMs: 600_000 },
  short: { connections: 25, outageMs: 600_000 },
} as const;

/** Full jitter: a wait may be anything up to the most, half of it on average. */
const meanShare = { least: 0.4, most: 0.6 };

export const row: Row = {
  number: 24,
  title: "provider 503 for 10 min, 500 connections",
  promised: "0 marked dead; attempts per connection within the back-off (1 s × 2ⁿ, at most 5 min, full jitter)",
  async run({ seed, scale }) {
    const { connections, outageMs } = sizes[scale];
    const result = await simulate("playOutage", { seed, connections, outageMs });
    const { dead, attempts, waits, early, recovered, mostPerSecond, violations } = result;
    const tooLong = waits.filter(({ ms, mostMs }) => ms < 0 || ms > mostMs).length;
    const share = waits.reduce((sum, { ms, mostMs }) => sum + ms / mostMs, 0) / waits.length;
    const isSpread = share > meanShare.least && share < meanShare.most;
    const isOver = recovered === connections && dead === 0;
    const mean = attempts.reduce((sum, count) => sum + count, 0) / connections;
    return {
      ok: isOver && isSpread && tooLong + early + violations.length === 0 && Math.min(...attempts) > 0,
      figure: `${dead} marked dead; ${mean.toFixed(1)} attempts per connection, at most ${Math.max(...attempts)}; ${early} before their wait was over, ${tooLong} of ${waits.length} waits outside of the back-off, ${(share * 100).toFixed(0)} % of the most on average; ${recovered} refreshed afterwards, at most ${mostPerSecond} a second`,
      notes: violations.slice(0, 20),
    };
  },
};
