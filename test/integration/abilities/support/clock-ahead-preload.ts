import { writeSync } from "node:fs";

// Given to a broker with `--import`: SIGUSR2 puts its monotonic clock a minute ahead, SIGPWR an hour, so that nobody waits. It says when.
let aheadMs = 0;
const now = performance.now.bind(performance);

performance.now = () => now() + aheadMs;
process.on("SIGUSR2", () => jump(61_000));
process.on("SIGPWR", () => jump(3_601_000));

function jump(milliseconds: number): void {
  aheadMs += milliseconds;
  writeSync(2, "clock ahead\n");
}
