import { fileURLToPath } from "node:url";
import { guards } from "../../campaign/guards.ts";
import { armFailpoints } from "./failpoints.ts";
import { mutate, type Mutation } from "./mutations.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const folders = ["src/", "test/support/faults/example/"].map((folder) => root + folder);

/** The guard that `MUTATION` names. @throws for a name that is none */
export function chosenMutation(): Mutation | null {
  const name = process.env["MUTATION"];
  if (!name) return null;
  const found = guards.find((guard) => guard.name === name);
  if (found === undefined) throw new Error(`MUTATION: there is no guard "${name}"`);
  return found;
}

/** True where the environment asks for failpoints or a mutation. */
export function isInstrumented(): boolean {
  return Boolean(process.env["FAILPOINTS"] ?? process.env["MUTATION"]);
}

/** A module of src/ with its failpoints armed and the chosen guard removed; null for any other module. */
export function instrument(path: string, source: string): string | null {
  if (!folders.some((folder) => path.startsWith(folder))) return null;
  const mutation = chosenMutation();
  const mutated = mutation !== null && path === root + mutation.file ? mutate(source, mutation) : source;
  return process.env["FAILPOINTS"] === undefined ? mutated : armFailpoints(mutated);
}
