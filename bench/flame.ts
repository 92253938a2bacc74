import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "../test/support/patience.ts";
import { useDatabase } from "../test/support/services/index.ts";
import { temporaryFolder } from "../test/support/services/guardian.ts";
import { type CpuProfile, flameGraph, largest } from "../scripts/flame-graph.ts";
import { generate, pinServer } from "./harness.ts";
import { needServices, stopServices } from "./services.ts";
import { startSandboxBroker } from "./sandbox-broker.ts";

/**
 * `npm run bench:flame -- FILE.svg`: where the time of fresh reads goes. A broker that runs from its sources, so that each function has the name
 * and the line that it has there. Writes the picture, and tells the ten functions with the most time of their own.
 */
const [file = "docs/hot-path.svg", seconds = "10"] = process.argv.slice(2);
const profilePath = join((await temporaryFolder("flame")).path, "hot-path.cpuprofile");
const entry = fileURLToPath(new URL("../src/main.ts", import.meta.url));
await needServices();
// On Postgres, so that the work of the embedded database is not in the picture.
const broker = await startSandboxBroker({
  databaseUrl: await useDatabase(),
  entry,
  nodeOptions: [`--import=${new URL("profiled.ts", import.meta.url).href}`],
  env: { CPU_PROFILE: profilePath },
});
await pinServer(broker.pid);
const { api } = broker;
await api.createConnection({ name: "bench", provider: "sandbox", client: "sandbox", grant: "import" });
await api.importTokens("bench", { access_token: "x".repeat(64), expires_in: 86_400 });
const key = await api.createKey({ name: "bench", abilities: ["tokens"], connections: ["bench"] });
const load = { url: `${broker.url}/tokens/bench`, headers: { authorization: `Bearer ${key}` } };
await generate({ ...load, seconds: 5 });
process.kill(broker.pid, "SIGUSR2");
await generate({ ...load, seconds: Number(seconds) });
process.kill(broker.pid, "SIGUSR2");
const profile = await until("the profile is written", () => readProfile(profilePath));
await broker[Symbol.asyncDispose]();
await stopServices();
writeFileSync(file, flameGraph(profile, "Fresh reads: one broker, 50 keep-alive connections"));
for (const { share, name, place } of largest(profile, 10)) {
  process.stdout.write(`${(100 * share).toFixed(1).padStart(5)} %  ${name}  ${place}\n`);
}

/** False: it is not there yet, or not whole. */
function readProfile(path: string): CpuProfile | false {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as CpuProfile;
  } catch {
    return false;
  }
}
