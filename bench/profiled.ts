import { writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";

// Given to a broker with `--import`: SIGUSR2 begins a profile, and the next one writes it where CPU_PROFILE says.
const session = new Session();
session.connect();
await session.post("Profiler.enable");
await session.post("Profiler.setSamplingInterval", { interval: 200 });
let isRunning = false;
process.on("SIGUSR2", () => {
  isRunning = !isRunning;
  if (isRunning) void session.post("Profiler.start");
  else void session.post("Profiler.stop").then(({ profile }) => writeProfile(JSON.stringify(profile)));
});

function writeProfile(text: string): void {
  const path = process.env["CPU_PROFILE"];
  if (path !== undefined) writeFileSync(path, text);
}
