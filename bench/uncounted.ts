import { registerHooks } from "node:module";
import { mutate, type Mutation } from "../test/support/faults/mutations.ts";

/** Given to a broker with `--import`: fresh reads are counted neither by the audit nor by metrics. For the case `accounting`. */
const uncounted: Mutation = {
  name: "fresh reads are not counted",
  file: "src/http/fresh-read.ts",
  find: "    count(found.name);\n",
  replace: "",
};
registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.endsWith(uncounted.file) || loaded.source === undefined || loaded.source === null) return loaded;
    const { source } = loaded;
    return {
      ...loaded,
      source: mutate(typeof source === "string" ? source : new TextDecoder().decode(source), uncounted),
    };
  },
});
