import { readConfig } from "./config.ts";
import { StartupError } from "./errors.ts";

try {
  const config = readConfig();
  // Loaded only now, so that a wrong setting is told at once.
  const { serve } = await import("./serve.ts");
  await serve(config);
} catch (error) {
  if (!(error instanceof StartupError)) throw error;
  process.stderr.write(`freshet: ${error.message.replaceAll(/\s+/g, " ")}\n`);
  process.exit(2);
}
