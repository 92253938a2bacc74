/** A turn of the real event loop: the read cache gathers its batch in one turn. */
const turn = globalThis.setImmediate;
const turns = { waitedFor: 0 };

function countedTurn(callback: (...given: unknown[]) => void, ...given: unknown[]): NodeJS.Immediate {
  turns.waitedFor += 1;
  return turn(() => {
    turns.waitedFor -= 1;
    callback(...given);
  });
}

/** Counts the turns that anybody waits for, so that a simulation waits no longer than it must. */
globalThis.setImmediate = Object.assign(countedTurn, turn);

/** Resolves when everything that could go on without an event has done so. */
export async function settleMicrotasks(): Promise<void> {
  await endOfTicks();
  while (turns.waitedFor > 0) {
    await new Promise<void>((resolve) => void turn(resolve));
    await endOfTicks();
  }
}

/** The queue of ticks comes after that of promises is empty. */
async function endOfTicks(): Promise<void> {
  await new Promise<void>((resolve) => {
    process.nextTick(resolve);
  });
}
