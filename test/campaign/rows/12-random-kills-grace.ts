import { killAtRandom } from "../random-kills.ts";
import type { Row } from "../row.ts";

export const row: Row = {
  number: 12,
  heavy: true,
  title: "the same, provider with a 10-minute grace",
  promised: "0 losses",
  waits: true,
  async run(given) {
    const { points, permits, exposed, lost, counted, reuses } = await killAtRandom(given, {
      reuse: "grace",
      graceSeconds: 600,
    });
    const isEnough = points >= (given.scale === "full" ? 200 : 10);
    return {
      ok: isEnough && lost.length === 0 && reuses === 0 && counted.every((count) => count === 0),
      figure: `${points} points, ${permits} permits left behind, ${lost.length} losses; ${exposed.length} answers were lost and got again`,
      notes: [`lost: ${lost.join()}`, `counted ${counted.join(" and ")}, ${reuses} reuses`],
    };
  },
};
