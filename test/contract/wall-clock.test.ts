import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { expect, it } from "vitest";
import { wallClock } from "../support/faults/wall-clock.ts";

/** Prints its wall clock and its monotonic clock, in milliseconds, whenever it is asked. */
const program = `process.stdin.on("data", () => {
  console.log(JSON.stringify([Date.now(), new Date().getTime(), Math.round(performance.now())]));
});`;

/** A clock that is set in whole seconds may be one second off. */
const slackMs = 1000;

async function startClockReader(options: { env: Record<string, string>; nodeOptions: string[] }) {
  const env = { PATH: process.env["PATH"], ...options.env };
  const child = spawn(process.execPath, [...options.nodeOptions, "-e", program], { env });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const askedMs = Date.now();
    child.stdin.write("?");
    const [now = 0, date = 0, monotonicMs = 0] = JSON.parse((await lines.next()).value ?? "[]") as number[];
    const toldMs = Date.now();
    /** Both ways to ask for the time give the time of this process plus so many seconds. */
    const isAheadBy = (seconds: number) =>
      [now, date].every((ms) => ms >= askedMs + 1000 * seconds - slackMs && ms <= toldMs + 1000 * seconds + slackMs);
    return { isAheadBy, monotonicMs };
  };
  return { read, [Symbol.dispose]: () => void child.kill() };
}

it.each([{ library: true }, { library: false }])(
  "a process has a wall clock of its own that jumps while it runs, and the machine's monotonic clock ($library)",
  async (how) => {
    await using clock = await wallClock(3600, how);
    using reader = await startClockReader(clock.options);
    const first = await reader.read();
    expect(first.isAheadBy(3600)).toBe(true);
    clock.set(-3600);
    const second = await reader.read();
    expect(second.isAheadBy(-3600)).toBe(true);
    expect(second.monotonicMs).toBeGreaterThanOrEqual(first.monotonicMs);
    expect(second.monotonicMs - first.monotonicMs).toBeLessThan(3_600_000);
    clock.set(0);
    expect((await reader.read()).isAheadBy(0)).toBe(true);
  },
);
