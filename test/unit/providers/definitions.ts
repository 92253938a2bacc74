import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Catalog, loadCatalog } from "../../../src/providers/catalog.ts";
import type { ProviderDefinition } from "../../../src/providers/definition.ts";
import { guard } from "../../support/services/guardian.ts";

const root = mkdtempSync(join(tmpdir(), "freshet-providers-"));
guard({ kind: "folder", path: root }); // test files share this module

export const builtinFolder = resolve(import.meta.dirname, "../../../providers");

export const sandboxAddress = {
  publicUrl: "https://broker.example/sandbox",
  localUrl: "http://127.0.0.1:8080/sandbox",
};

/** The built-in definitions, and those of `files` (name → YAML). */
export function catalogWith(files: Record<string, string>): Catalog {
  return loadCatalog({ builtinFolder, extraFolder: folderOf(files), sandbox: sandboxAddress });
}

/** A folder with these files, which goes when the tests' process ends. */
export function folderOf(files: Record<string, string | Uint8Array>): string {
  const folder = mkdtempSync(join(root, "files-"));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return folder;
}

const builtins = loadCatalog({ builtinFolder, extraFolder: null, sandbox: sandboxAddress });

export function builtin(id: string): ProviderDefinition {
  const definition = builtins.get(id);
  if (!definition) throw new Error(`no built-in ${id}`);
  return definition;
}

/** A definition from YAML whose first lines (id, authorize and token URL) are given. */
export function define(yaml: string, head = defaultHead): ProviderDefinition {
  const folder = folderOf({ "own.yaml": `${head}\n${yaml}` });
  const definition = loadCatalog({ builtinFolder: folder, extraFolder: null, sandbox: null }).get("own");
  if (!definition) throw new Error("the file defines another id");
  return definition;
}

const defaultHead = `id: own
authorization: { url: https://login.example/authorize }
token: { url: https://login.example/token }`;
