import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { type LoadedFile, loadFile, resolveFile } from "../../../src/providers/load/load-file.ts";
import { builtinFolder, sandboxAddress } from "../../support/built-ins.ts";

/** Only to be extended, or this broker's own: no provider's. */
export const genericIds = ["oauth2", "oidc", "sandbox"];

export function builtinIds(): string[] {
  return readdirSync(builtinFolder)
    .filter((name) => name.endsWith(".yaml"))
    .map((name) => name.replace(/\.yaml$/, ""));
}

const settled = new Map<string, ProviderDefinition>();

/** One built-in definition, whatever the state of the others. */
export function onlyWith(id: string): ProviderDefinition {
  const definition = settled.get(id) ?? settle(id);
  settled.set(id, definition);
  return definition;
}

function settle(id: string): ProviderDefinition {
  const file = load(id);
  const { definition, problems } = resolveFile(file, chainOf(file));
  if (definition === null || problems.length > 0) throw new Error(problems.join("\n"));
  return definition;
}

function chainOf(file: LoadedFile): LoadedFile[] {
  const parent = file.content.extends;
  return parent ? [file, ...chainOf(load(parent))] : [file];
}

function load(id: string): LoadedFile {
  const path = join(builtinFolder, `${id}.yaml`);
  const loaded = loadFile(path, { builtin: true, sandbox: id === "sandbox" ? sandboxAddress : null });
  if ("problems" in loaded) throw new Error(loaded.problems.join("\n"));
  return loaded.file;
}
