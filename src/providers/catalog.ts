import { readdirSync } from "node:fs";
import { basename, join, resolve as absolute } from "node:path";
import { StartupError } from "../errors.ts";
import type { ProviderDefinition } from "./definition.ts";
import { loadFile, type LoadedFile, type SandboxAddress, settleFile } from "./load-file.ts";

/** The definitions in force. */
export type Catalog = {
  get(id: string): ProviderDefinition | undefined;
  /** By id; those that are only there to be extended included (`usable: false`). */
  list(): readonly ProviderDefinition[];
};

const sandboxFile = "sandbox.yaml";

/**
 * Reads the built-in definitions and those of `extraFolder`, follows `extends`, applies defaults and checks everything.
 * Without `sandbox` there is no sandbox definition.
 * @throws StartupError with file, line and column of the first fault, and what was expected
 */
export function loadCatalog(options: {
  builtinFolder: string;
  extraFolder: string | null;
  sandbox: SandboxAddress | null;
}): Catalog {
  const { files, problems } = readFolders(options);
  stopOn([...problems, ...idProblems(files)]);
  const definitions = new Map<string, ProviderDefinition>();
  const faults: string[] = [];
  for (const file of filesInForce(files)) {
    const settled = settleFile(file, files);
    faults.push(...settled.problems);
    if (settled.definition) definitions.set(file.content.id, settled.definition);
  }
  stopOn(faults);
  const sorted = [...definitions.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  return { get: (id) => definitions.get(id), list: () => sorted };
}

/**
 * Every problem of one file, as `file:line:column: text`; none: it is good. Beside it stand the built-in definitions and
 * those of `extraFolder`, which it may extend.
 */
export function checkProviderFile(
  path: string,
  options: { builtinFolder: string; extraFolder: string | null },
): string[] {
  const sandbox = { publicUrl: "https://sandbox.example/sandbox", localUrl: "https://sandbox.example/sandbox" };
  const builtin = filesIn(options.builtinFolder).some((other) => absolute(other) === absolute(path));
  const loaded = loadFile(path, { builtin, sandbox: builtin && basename(path) === sandboxFile ? sandbox : null });
  if ("problems" in loaded) return loaded.problems;
  const { id } = loaded.file.content;
  const others = readFolders({ ...options, sandbox }).files.filter(
    (other) => absolute(other.source.file) !== absolute(path) && (builtin || other.builtin || other.content.id !== id),
  );
  const files = [...others, loaded.file];
  return [...idProblems(files), ...settleFile(loaded.file, files).problems];
}

function readFolders(options: { builtinFolder: string; extraFolder: string | null; sandbox: SandboxAddress | null }): {
  files: LoadedFile[];
  problems: string[];
} {
  const { builtinFolder, extraFolder, sandbox } = options;
  const builtins = filesIn(builtinFolder)
    .filter((path) => sandbox !== null || basename(path) !== sandboxFile)
    .map((path) => loadFile(path, { builtin: true, sandbox: basename(path) === sandboxFile ? sandbox : null }));
  const extras =
    extraFolder === null ? [] : filesIn(extraFolder).map((path) => loadFile(path, { builtin: false, sandbox: null }));
  const all = [...builtins, ...extras];
  return {
    files: all.flatMap((loaded) => ("file" in loaded ? [loaded.file] : [])),
    problems: all.flatMap((loaded) => ("problems" in loaded ? loaded.problems : [])),
  };
}

function filesIn(folder: string): string[] {
  try {
    const names = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name) && !name.startsWith("."));
    return names.sort().map((name) => join(folder, name));
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    throw new StartupError(`PROVIDERS_DIR ${folder} cannot be read (${code})`);
  }
}

/** One file per id; one of the extra folder may take the place of the built-in that it extends. */
function idProblems(files: readonly LoadedFile[]): string[] {
  return files.flatMap(({ source, content, builtin }, index) => {
    const { id } = content;
    const twin = files.slice(0, index).find((other) => other.content.id === id);
    if (!twin || (twin.builtin && !builtin && content.extends === id)) return [];
    const advice = twin.builtin && !builtin ? `; to change that one, add "extends: ${id}"` : "";
    return [`${source.locate(["id"])}: the id ${id} is that of ${twin.source.file} too${advice}`];
  });
}

function filesInForce(files: readonly LoadedFile[]): LoadedFile[] {
  return files.filter(
    (file) => !file.builtin || !files.some((other) => !other.builtin && other.content.id === file.content.id),
  );
}

function stopOn(problems: readonly string[]): void {
  const [first, ...more] = new Set(problems);
  if (first === undefined) return;
  const rest = more.length > 0 ? ` (and ${more.length} more: see "freshet providers check FILE")` : "";
  throw new StartupError(`${first}${rest}`);
}
