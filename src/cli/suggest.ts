import { didYouMean } from "../nearest.ts";
import type { ApiClient } from "./api-client.ts";
import { CliError } from "./errors.ts";
import { resourcesIn, textOf } from "./resource.ts";

/** The most that a list of the API gives at once. */
const mostNames = 200;

/**
 * The same failure, with the name that may have been meant. The names are those that the key itself can list, so that nothing is said that it
 * may not know; where it can list none, or `name` is among them, the failure stays as it is.
 */
export async function withSuggestion(
  api: Pick<ApiClient, "get">,
  failure: unknown,
  { name, path }: { name: string; path: string },
): Promise<unknown> {
  if (!(failure instanceof CliError) || failure.exitCode !== 1 || name === "") return failure;
  const names = await namesAt(api, path);
  if (names.includes(name)) return failure;
  const advice = didYouMean(name, names);
  return advice === "" ? failure : new CliError(`${failure.message}${advice}`, failure.code);
}

async function namesAt(api: Pick<ApiClient, "get">, path: string): Promise<string[]> {
  try {
    const { items } = await api.get(path, { limit: mostNames });
    return resourcesIn(items).map((item) => textOf(item["name"]));
  } catch (error) {
    if (error instanceof CliError) return []; // what was to be told is the first failure
    throw error;
  }
}
