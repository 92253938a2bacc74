import { setTimeout as sleep } from "node:timers/promises";

/**
 * How long a test waits for something that must come. Only a hang takes longer, on any machine. A test may use a shorter limit only for a
 * promise of the product, and must take the machine's speed out of it. test/deadlines.md lists them all.
 */
export const hangMs = 600_000;

/** For `expect.poll`. */
export const patience = { timeout: hangMs, interval: 50 };

/**
 * Asks until the answer is neither empty nor false, and returns it. Every question is work for a broker or a database, so what takes long is
 * asked for less often, unless `everyMs` says how often.
 * @throws when only a hang can explain the wait, with `what` in the text
 */
export async function until<Answer>(
  what: string,
  ask: () => Answer | Promise<Answer>,
  { everyMs }: { everyMs?: number } = {},
): Promise<NonNullable<Exclude<Answer, false>>> {
  const endMs = performance.now() + hangMs;
  for (let pauseMs = 25; ; pauseMs = Math.min(1.2 * pauseMs, 100)) {
    const answer = await ask();
    if (answer) return answer as NonNullable<Exclude<Answer, false>>;
    if (performance.now() > endMs) throw new Error(`waited ${hangMs / 1000} s in vain: ${what}`);
    await sleep(everyMs ?? pauseMs);
  }
}
