import { existsSync, readdirSync } from "node:fs";
import { basename, join, resolve as absolute } from "node:path";
import { checkProviderFile, type CheckSurroundings } from "./catalog.ts";
import type { ProviderDefinition } from "./definition.ts";
import { loadFile, type LoadedFile, settleFile } from "./load-file.ts";

/**
 * What one file comes to, with those that it extends out of the built-in ones and `extraFolder`; or every problem of it,
 * as `file:line:column: text`. The sandbox's own file has no address without a broker: null.
 */
export function readDefinition(
  path: string,
  folders: CheckSurroundings,
): { definition: ProviderDefinition | null } | { problems: string[] } {
  const problems = checkProviderFile(path, folders);
  if (problems.length > 0) return { problems };
  const builtin = absolute(join(folders.builtinFolder, basename(path))) === absolute(path);
  if (builtin && basename(path) === "sandbox.yaml") return { definition: null };
  const loaded = loadFile(path, { builtin, sandbox: null });
  if ("problems" in loaded) return loaded;
  const { definition } = settleFile(loaded.file, [...filesBeneath(loaded.file, folders), loaded.file]);
  return { definition };
}

/** The files that one may be built on. A built-in file is named by its id. */
function filesBeneath(file: LoadedFile, { builtinFolder, extraFolder }: CheckSurroundings): LoadedFile[] {
  const own = absolute(file.source.file);
  const isOther = (path: string) => existsSync(path) && absolute(path) !== own;
  const extras = (extraFolder === null ? [] : yamlIn(extraFolder))
    .filter(isOther)
    .flatMap((path) => load(path, false))
    .filter(({ content }) => content.id !== file.content.id);
  const found: LoadedFile[] = [];
  const ids = new Set([file.content.extends ?? ""]);
  for (const id of ids) {
    const builtin = join(builtinFolder, `${id}.yaml`);
    const named = [
      ...(isOther(builtin) ? load(builtin, true) : []),
      ...extras.filter(({ content }) => content.id === id),
    ];
    found.push(...named);
    for (const { content } of named) ids.add(content.extends ?? ""); // a set that grows is walked to its end
  }
  return found;
}

function load(path: string, builtin: boolean): LoadedFile[] {
  const loaded = loadFile(path, { builtin, sandbox: null });
  return "file" in loaded ? [loaded.file] : [];
}

function yamlIn(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name) && !name.startsWith("."));
  return names.map((name) => join(folder, name));
}
