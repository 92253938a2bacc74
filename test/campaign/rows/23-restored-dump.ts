import { RestoreScene } from "../restore-scene.ts";
import { type Restoring, waysOfRestoring } from "../restored-database.ts";
import type { Row } from "../row.ts";
import { inBatches } from "../tools.ts";

const sizes = { full: { each: 20, asksForSeconds: 30 }, short: { each: 4, asksForSeconds: 3 } } as const;

export const row: Row = {
  number: 23,
  title: "hour-old dump restored",
  promised: "0 refreshes of rows gone back, until confirmed",
  async run({ scale, log }) {
    const size = sizes[scale];
    const ways = waysOfRestoring.filter(({ isShort }) => scale === "full" || isShort);
    const scenes = await inBatches(ways.length, 2, async (index) => {
      const way = ways[index] as Restoring;
      return await new RestoreScene(way, { size, log }).play();
    });
    const notes = scenes.flat();
    const held = 3 * size.each * scenes.length;
    return {
      ok: notes.length === 0,
      figure:
        notes[0] ??
        `0 refreshes of ${held} rows gone back, in ${scenes.length} ways of restoring; all refreshed once confirmed`,
      notes,
    };
  },
};
