import type { Stage } from "./stage.ts";

type Reading = { lowMs: number; highMs: number; rejected?: boolean; told?: (isServed: boolean, name: string) => void };

/**
 * Callers read each connection at random replicas, at intervals of these milliseconds; with `rejected` each reports the newest token as
 * rejected. `told` is called with each result. Returns a function that ends it.
 */
export function keepReading(
  { world, people, subjects }: Stage,
  { lowMs, highMs, rejected = false, told }: Reading,
): () => void {
  const { scheduler } = world;
  const state = { isOver: false };
  const later = (name: string) => scheduler.after(scheduler.between(lowMs, highMs), null, () => read(name));
  const read = (name: string) => {
    if (state.isOver) return;
    void people.read(scheduler.pick(world.replicas), name, { rejected }).then((token) => told?.(token !== null, name));
    later(name);
  };
  for (const { name } of subjects) later(name);
  return () => void (state.isOver = true);
}

/** People connect again what has ended, and enable what was disabled. Returns a function that ends it. */
export function keepMending(stage: Stage, everyMs: number): () => void {
  const { scheduler } = stage.world;
  const state = { isOver: false };
  const mend = () => {
    if (state.isOver) return;
    for (const subject of stage.subjects) mendOne(stage, subject);
    scheduler.after(everyMs, null, mend);
  };
  scheduler.after(everyMs, null, mend);
  return () => void (state.isOver = true);
}

function mendOne({ world, people }: Stage, subject: Stage["subjects"][number]): void {
  const status = world.database.tables.byName(subject.name)?.status;
  const replica = world.scheduler.pick(world.replicas);
  if (status === "disabled") void people.setDisabled(replica, subject, false);
  if (status === "needs_reauthorization" || status === "pending") void people.reconnect(replica, subject);
}
