import { isSame } from "../crash-tools.ts";
import { killAtRandom } from "../random-kills.ts";
import type { Row } from "../row.ts";

export const row: Row = {
  number: 11,
  title: "kill -9 at 200 random points, strict provider",
  promised: "0 losses outside W1–W3, each such case counted in the metric",
  plays: { how: "in turn" },
  async run(given) {
    const { points, permits, exposed, lost, counted, reuses, overlaps } = await killAtRandom(given, row);
    const outside = lost.filter((name) => !exposed.includes(name));
    const isCounted = counted.every((count) => count === lost.length);
    const isEnough = points >= (given.scale === "full" ? 200 : 10);
    return {
      ok: isEnough && isSame(lost, exposed) && isCounted && reuses === exposed.length && overlaps === 0,
      figure: `${points} points, ${permits} permits left behind, ${outside.length} losses outside W1–W3; ${exposed.length} in W1 or W2, ${counted[0]} counted`,
      notes: [
        `lost: ${lost.join()}`,
        `exposed: ${exposed.join()}`,
        `counted ${counted.join(" and ")}, ${reuses} reuses`,
      ],
    };
  },
};
