import { GenericProvider } from "../../support/providers/generic.ts";
import { killAtRandom } from "../random-kills.ts";
import type { Row } from "../row.ts";

const switches = { reuse: "grace", graceSeconds: 600 } as const;

export const row: Row = {
  number: 12,
  title: "the same, provider with a 10-minute grace",
  promised: "0 losses",
  plays: { how: "in turn", provider: ({ id }) => new GenericProvider({ id, switches }) },
  onlyFull: "row 11 kills so; test/unit/tokens/row-rules-takeover and row 6 prove what a grace window adds",
  async run(given) {
    const { points, permits, exposed, lost, counted, reuses } = await killAtRandom(given, row);
    const isEnough = points >= (given.scale === "full" ? 200 : 10);
    return {
      ok: isEnough && lost.length === 0 && reuses === 0 && counted.every((count) => count === 0),
      figure: `${points} points, ${permits} permits left behind, ${lost.length} losses; ${exposed.length} answers were lost and got again`,
      notes: [`lost: ${lost.join()}`, `counted ${counted.join(" and ")}, ${reuses} reuses`],
    };
  },
};
