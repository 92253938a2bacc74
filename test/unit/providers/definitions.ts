import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { type Catalog, loadCatalog } from "../../../src/providers/load/catalog.ts";
import { builtins, folderOfBuiltins, sandboxAddress } from "../../support/built-ins.ts";
import { guard } from "../../support/services/guardian.ts";

const root = mkdtempSync(join(tmpdir(), "freshet-providers-"));
guard({ kind: "folder", path: root }); // test files share this module

/** Those of the built-in definitions that tests extend or replace. */
export const fewBuiltins = folderOfBuiltins("apicbase", "apicbase-basic", "bakeronline", "bol", "oauth2", "sandbox");

/** Definitions of `files` (name → YAML), beside a few of the built-in ones. */
export function catalogWith(files: Record<string, string>): Catalog {
  return loadCatalog({ builtinFolder: fewBuiltins, extraFolder: folderOf(files), sandbox: sandboxAddress });
}

/** A folder with these files, which goes when the tests' process ends. */
export function folderOf(files: Record<string, string | Uint8Array>): string {
  const folder = mkdtempSync(join(root, "files-"));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return folder;
}

export function builtin(id: string): ProviderDefinition {
  const definition = builtins().get(id);
  if (!definition) throw new Error(`no built-in ${id}`);
  return definition;
}

/** A definition from YAML whose first lines (id, authorize and token URL) are given. */
export function define(yaml: string, head = defaultHead, id = "own"): ProviderDefinition {
  const folder = folderOf({ "own.yaml": `${head}\n${yaml}` });
  const definition = loadCatalog({ builtinFolder: folderOf({}), extraFolder: folder, sandbox: null }).get(id);
  if (!definition) throw new Error("the file defines another id");
  return definition;
}

const defaultHead = `id: own
authorization: { url: https://login.example/authorize }
token: { url: https://login.example/token }`;
