import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";
import { installFailpoints } from "./failpoint-runtime.ts";
import { instrument } from "./instrument.ts";

// Given to a process with `--import`: its modules of src/ are loaded with failpoints and the chosen mutation.
installFailpoints(() => process.env["FAILPOINTS"] ?? "");
registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.startsWith("file:") || loaded.source === undefined || loaded.source === null) return loaded;
    const source = instrument(fileURLToPath(url), text(loaded.source));
    return source === null ? loaded : { ...loaded, source };
  },
});

function text(source: string | ArrayBuffer | NodeJS.TypedArray): string {
  if (typeof source === "string") return source;
  return new TextDecoder().decode(source);
}
