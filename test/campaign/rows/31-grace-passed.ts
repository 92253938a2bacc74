import { simulate } from "../../support/simulation/simulate.ts";
import type { Row } from "../row.ts";

const connections = { full: 200, short: 20 } as const;

export const row: Row = {
  number: 31,
  title: "grace of 10 min, broker away for 15 min after sending",
  promised: "no prompt replay",
  async run({ seed, scale }) {
    const given = { seed, connections: connections[scale] };
    const past = await simulate("playAbsence", { ...given, awayMs: 15 * 60_000 });
    const within = await simulate("playAbsence", { ...given, awayMs: 5 * 60_000 });
    const violations = [...past.violations, ...within.violations];
    const isSent = past.out > 0 && within.out > 0;
    const heldBack = past.promptly === 0 && past.later === past.out;
    const replayed = within.promptly === within.out && within.usable === given.connections;
    return {
      ok: isSent && heldBack && replayed && violations.length === 0,
      figure: `${past.promptly} of ${past.out} replayed before their access token ended, ${past.later} afterwards; away for 5 min instead: ${within.promptly} of ${within.out} replayed within ${within.lastPromptSeconds} s, ${within.usable} of ${given.connections} connections usable`,
      notes: violations.slice(0, 20),
    };
  },
};
