import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { expect, it } from "vitest";
import { wallClock } from "../support/faults/wall-clock.ts";

/** Says its wall clock and its monotonic clock, in milliseconds, whenever it is asked. */
const program = `process.stdin.on("data", () => {
  console.log(JSON.stringify([Date.now(), new Date().getTime(), Math.round(performance.now())]));
});`;

async function startClockReader(options: { env: Record<string, string>; nodeOptions: string[] }) {
  const env = { PATH: process.env["PATH"], ...options.env };
  const child = spawn(process.execPath, [...options.nodeOptions, "-e", program], { env });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    child.stdin.write("?");
    const [now = 0, date = 0, monotonicMs = 0] = JSON.parse((await lines.next()).value ?? "[]") as number[];
    return {
      aheadSeconds: Math.round((now - Date.now()) / 60_000) * 60 + 0,
      isOneClock: Math.abs(date - now) < 1000,
      monotonicMs,
    };
  };
  return { read, [Symbol.dispose]: () => void child.kill() };
}

it.each([{ library: true }, { library: false }])(
  "a process has a wall clock of its own that jumps while it runs, and the machine's monotonic clock ($library)",
  async (how) => {
    await using clock = await wallClock(3600, how);
    using reader = await startClockReader(clock.options);
    const first = await reader.read();
    expect(first).toMatchObject({ aheadSeconds: 3600, isOneClock: true });
    clock.set(-3600);
    const second = await reader.read();
    expect(second).toMatchObject({ aheadSeconds: -3600, isOneClock: true });
    expect(second.monotonicMs).toBeGreaterThanOrEqual(first.monotonicMs);
    expect(second.monotonicMs - first.monotonicMs).toBeLessThan(600_000);
    clock.set(0);
    expect(await reader.read()).toMatchObject({ aheadSeconds: 0, isOneClock: true });
  },
);
