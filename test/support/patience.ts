import { setTimeout as sleep } from "node:timers/promises";

/**
 * Where a test waits for something that must come, it waits this long: only a hang takes longer, on any machine. No test uses a
 * shorter limit, save for one of the product's promises with the machine's speed taken out: test/deadlines.md lists all.
 */
export const hangMs = 600_000;

/** For `expect.poll`. */
export const patience = { timeout: hangMs, interval: 25 };

/**
 * Asks until it is so, and gives the answer.
 * @throws naming what was waited for, when only a hang can explain it
 */
export async function until<Answer>(
  what: string,
  ask: () => Answer | Promise<Answer>,
  { everyMs = 25 } = {},
): Promise<NonNullable<Exclude<Answer, false>>> {
  const endMs = performance.now() + hangMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer as NonNullable<Exclude<Answer, false>>;
    if (performance.now() > endMs) throw new Error(`waited ${hangMs / 1000} s in vain: ${what}`);
    await sleep(everyMs);
  }
}
