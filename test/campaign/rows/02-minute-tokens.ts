import { simulate } from "../../support/simulation/simulate.ts";
import { toldOf } from "../simulated.ts";
import type { Row } from "../row.ts";

const sizes = { full: { connections: 100, hours: 24 }, short: { connections: 5, hours: 1 } } as const;

export const row: Row = {
  number: 2,
  title: "60-s tokens, 24 h in the simulator, 100 connections, faults at random",
  promised: "0 reuse detections outside W1–W3",
  async run({ seed, scale }) {
    const result = await simulate("playHours", { seed, ...sizes[scale] });
    const { violations, refreshes, commands, detections, explained, served } = result;
    return {
      ok: violations.length === 0 && refreshes > 0,
      figure: `${violations.length} violations, ${refreshes} refreshes, ${served} reads, ${commands} faults and deeds; ${detections} reuse detections, ${toldOf(explained)}`,
      notes: violations.slice(0, 20),
    };
  },
};
