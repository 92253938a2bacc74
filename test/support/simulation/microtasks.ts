/** The event loop's own: the read cache gathers its batch in one. */
const turn = globalThis.setImmediate;
let pending = 0;

/** Counts the turns that are waited for, by whomever, so that a simulation waits for none in vain. */
globalThis.setImmediate = Object.assign(
  (callback: (...given: unknown[]) => void, ...given: unknown[]) => {
    pending += 1;
    return turn(() => {
      pending -= 1;
      callback(...given);
    });
  },
  { __promisify__: turn.__promisify__ },
) as typeof setImmediate;

/** Resolves when everything that could go on without an event has done so. */
export async function settleMicrotasks(): Promise<void> {
  // The queue of ticks comes after that of promises is empty.
  await new Promise<void>((resolve) => process.nextTick(resolve));
  while (pending > 0) {
    await new Promise<void>((resolve) => void turn(resolve));
    await new Promise<void>((resolve) => process.nextTick(resolve));
  }
}
