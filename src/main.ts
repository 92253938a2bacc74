import "../bin/node-version.cjs";
import { existsSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { type Config, readConfig, readEnvironment } from "./config.ts";
import { BrokerError, StartupError } from "./errors.ts";
import { type EnvFile, withSource } from "./start/env-file.ts";
import { type FirstWarning, firstWarnings, requireFreePorts } from "./start/first-warnings.ts";
import { withoutControls } from "./text.ts";

// before anything that an old Node does not have

/** Of `npm start`: variables are read from `.env` of the current folder as well. */
const dotenv = "--dotenv";

async function main(args: readonly string[]): Promise<void> {
  process.report.excludeEnv = true; // Node's diagnostic reports would hold every secret that a variable has
  let [warnings, file]: [readonly FirstWarning[], EnvFile | null] = [[], null];
  try {
    requireNoArguments(args.filter((arg) => arg !== dotenv));
    const environment = readEnvironment(args.includes(dotenv) ? ".env" : null);
    [warnings, file] = [firstWarnings(environment), environment.file];
    const config = readConfig(environment.env);
    announce(config);
    await requireFreePorts(config);
    // Loaded only now, so that a wrong setting is reported at once.
    const { serve } = await import("./start/serve.ts");
    await serve(config, environment);
  } catch (error) {
    // If the database goes away in the middle of the start, that is no bug of the program.
    const isTold =
      error instanceof StartupError || (error instanceof BrokerError && error.code === "storage_unavailable");
    if (!isTold) throw error;
    // The cause is often a variable with a misspelt name.
    const told = error instanceof StartupError ? error.lines : [error.message];
    for (const line of [
      ...warnings.map(({ text }) => `warning: ${text}`),
      ...told.map((each) => withSource(each, file)),
    ]) {
      process.stderr.write(`freshet: ${withoutControls(line.replaceAll(/\s+/g, " "))}\n`);
    }
    process.exit(2);
  }
}

function requireNoArguments([first]: readonly string[]): void {
  if (first === undefined) return;
  throw new StartupError(
    `the broker takes no arguments, and ${JSON.stringify(first.slice(0, 20))} is one; set variables instead, such as PORT=9000 (.env.example lists all)`,
  );
}

/** The first line, before anything is loaded that takes time. The logs of a service with a database of its own are JSON alone. */
function announce({ databaseUrl, dataDir }: Config): void {
  if (!process.stdout.isTTY && databaseUrl !== null) return;
  const database =
    databaseUrl !== null
      ? "the database of DATABASE_URL"
      : existsSync(join(dataDir, "database"))
        ? `the embedded database in ${dataDir}`
        : `a new embedded database in ${dataDir}, which takes some seconds this first time`;
  process.stdout.write(`Freshet ${manifest.version} starts with ${database} …\n`);
}

void main(process.argv.slice(2));
