import { People, type Subject } from "./people.ts";
import type { SimLimits } from "./sim-catalog.ts";
import { World } from "./world.ts";

/** A world, who lives in it, and the names that they use. */
export type Stage = { world: World; people: People; subjects: readonly Subject[] };

type Given = {
  seed: number;
  replicas: number;
  subjects: readonly Subject[];
  traced?: boolean;
  limits?: SimLimits;
  /** How each comes by its first grant. */
  first?: "reconnect" | "import";
};

const longestConnectMs = 2000;

/** Every connection has its first grant before anything goes wrong. */
export async function openStage({ subjects, first = "reconnect", ...given }: Given): Promise<Stage> {
  const world = new World(given);
  const people = new People(world);
  for (const subject of subjects) people.found(subject);
  world.start();
  subjects.forEach((subject, index) => void people[first](world.replica(index), subject));
  await world.scheduler.pass(longestConnectMs);
  return { world, people, subjects };
}
