import { copyFileSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Catalog, loadCatalog } from "../../src/providers/load/catalog.ts";
import { guard } from "./services/guardian.ts";

export const builtinFolder = resolve(import.meta.dirname, "../../providers");

export const sandboxAddress = {
  publicUrl: "https://broker.example/sandbox",
  localUrl: "http://127.0.0.1:8080/sandbox",
};

let all: Catalog | undefined;

/** Every built-in definition, the sandbox included. Reading them costs half a second: test files share this one. */
export function builtins(): Catalog {
  all ??= loadCatalog({ builtinFolder, extraFolder: null, sandbox: sandboxAddress });
  return all;
}

const folders = new Map<string, string>();

/** A folder with these built-in files alone, for what reads a folder of its own; it goes when the tests' process ends. */
export function folderOfBuiltins(...ids: string[]): string {
  const known = folders.get(ids.join());
  if (known !== undefined) return known;
  const folder = mkdtempSync(join(tmpdir(), "freshet-builtins-"));
  guard({ kind: "folder", path: folder });
  for (const id of ids) copyFileSync(join(builtinFolder, `${id}.yaml`), join(folder, `${id}.yaml`));
  folders.set(ids.join(), folder);
  return folder;
}
