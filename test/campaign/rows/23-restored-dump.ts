import { ConnectedStage } from "../../support/connected-stage.ts";
import { useDatabase } from "../../support/services/index.ts";
import { firstHasFailpoints } from "../crash-tools.ts";
import { openGround } from "../fleets.ts";
import { RestoreScene, type SceneOptions } from "../restore-scene.ts";
import { type Restoring, waysOfRestoring } from "../restored-database.ts";
import type { Row } from "../row.ts";
import { inBatches } from "../tools.ts";

const sizes = { full: { each: 20, rounds: 60 }, short: { each: 2, rounds: 3 } } as const;

export const row: Row = {
  number: 23,
  title: "hour-old dump restored",
  promised: "0 refreshes of rows gone back, until confirmed",
  plays: { how: "in turn" },
  async run(given) {
    const { scale, log } = given;
    const size = sizes[scale];
    const ways = waysOfRestoring.filter(({ isShort }) => scale === "full" || isShort);
    const scenes = await inBatches(ways.length, 2, async (index) => {
      const way = ways[index] as Restoring;
      if (!way.hasRedis) return await playWithoutRedis(way, { size, log });
      await using ground = await openGround(given, row);
      return await new RestoreScene(way, { size, log, ground }).play();
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

/** A single replica, which keeps its marks in DATA_DIR. */
async function playWithoutRedis(way: Restoring, options: Omit<SceneOptions, "ground">): Promise<string[]> {
  const databaseUrl = await useDatabase();
  await using stage = await ConnectedStage.start({ databaseUrl, redisUrl: null, each: firstHasFailpoints });
  return await new RestoreScene(way, { ...options, ground: { stage, databaseUrl } }).play();
}
