import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { ProviderFile } from "../../../src/providers/format/file.ts";
import { builtinFolder } from "../../support/built-ins.ts";

const files = new Map<string, ProviderFile>();

/** A built-in file as it is written, without what it extends. */
export function ownFile(id: string): ProviderFile {
  const file = files.get(id) ?? (parse(readFileSync(join(builtinFolder, `${id}.yaml`), "utf8")) as ProviderFile);
  files.set(id, file);
  return file;
}
