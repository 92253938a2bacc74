import { readdirSync, readFileSync } from "node:fs";
import type net from "node:net";
import { resolve as absolute, basename, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { StartupError, whyNotOnDisk } from "../../errors.ts";
import type { ProviderDefinition } from "../format/definition.ts";
import { type LoadedFile, loadFile, type SandboxAddress, resolveFile } from "./load-file.ts";

/** The definitions in force. A definition is read when it is first asked for, synchronously. */
export type Catalog = {
  /** Finds a definition by its id, or by a former id. */
  get(id: string): ProviderDefinition | undefined;
  /**
   * All definitions by id, also those that are only there to be extended (`usable: false`). It yields to other work between files that have
   * not been read yet, so that no request waits for more than one file. @throws StartupError for a faulty file
   */
  list(): Promise<readonly ProviderDefinition[]>;
  /** How many there are, and how many files of the extra folder are among them. */
  readonly count: { all: number; own: number };
};

const sandboxFile = "sandbox.yaml";

type Folders = { builtinFolder: string; extraFolder: string | null; sandbox: SandboxAddress | null };

/**
 * Reads the definitions of `extraFolder`, follows `extends`, applies defaults and checks everything. The built-in ones, which
 * the tests have checked, are read when they are asked for: most brokers use a handful of them. Without `sandbox` there
 * is no sandbox definition.
 * @throws StartupError with file, line and column of the first fault, and what was expected
 */
export function loadCatalog(folders: Folders): Catalog {
  const builtins = createBuiltins(folders);
  const extras = readExtras(folders.extraFolder);
  stopOn([...extras.problems, ...idProblems([...extras.files.flatMap(builtins.twinOf), ...extras.files])]);
  const definitions = new Map<string, ProviderDefinition | undefined>();

  const resolve = (file: LoadedFile): ProviderDefinition | undefined => {
    const resolved = resolveFile(file, [...builtins.above(file, extras.files), ...extras.files]);
    stopOn(resolved.problems);
    return resolved.definition ?? undefined;
  };
  for (const file of extras.files) definitions.set(file.content.id, resolve(file));
  const former = formerIds([...builtins.renamed(), ...extras.files], new Set([...builtins.ids, ...definitions.keys()]));
  stopOn(former.problems);

  const find = (id: string): ProviderDefinition | undefined => {
    if (definitions.has(id)) return definitions.get(id);
    const file = builtins.load(id);
    if (file === null) return undefined; // unknown ids are not cached, since anybody can make them up
    const definition = resolve(file);
    definitions.set(id, definition);
    return definition;
  };
  const get = (id: string): ProviderDefinition | undefined => find(former.nowOf.get(id) ?? id);
  const ids = [...new Set([...builtins.ids, ...definitions.keys()])].sort();
  return {
    get,
    count: { all: ids.length, own: extras.files.length },
    async list() {
      for (const id of ids) {
        if (definitions.has(id)) continue;
        await setImmediate();
        get(id);
      }
      return ids.flatMap((id) => get(id) ?? []);
    },
  };
}

/** For checking one file: the folder of files that it may extend, and PROVIDER_NETWORKS, if its addresses are to be checked, too. */
export type CheckSurroundings = { builtinFolder: string; extraFolder: string | null; networks?: net.BlockList | null };

/**
 * Every problem of one file, as `file:line:column: text`; none: it is good. Beside it stand the built-in definitions and
 * those of `extraFolder`, which it may extend.
 */
export function checkProviderFile(path: string, options: CheckSurroundings): string[] {
  return resolveAlone(path, options).problems;
}

/** The definition of the same file, or all its problems. Null for the sandbox's own file, which has no address without a broker. */
export function readDefinition(
  path: string,
  options: CheckSurroundings,
): { definition: ProviderDefinition | null } | { problems: string[] } {
  const { definition, problems } = resolveAlone(path, options);
  if (problems.length > 0) return { problems };
  return { definition: definition?.isSandbox ? null : definition };
}

function resolveAlone(path: string, options: CheckSurroundings): ReturnType<typeof resolveFile> {
  const sandbox = { publicUrl: "https://sandbox.example/sandbox", localUrl: "https://sandbox.example/sandbox" };
  const builtin = filesIn(options.builtinFolder).some((other) => absolute(other) === absolute(path));
  const loaded = loadFile(path, { builtin, sandbox: builtin && basename(path) === sandboxFile ? sandbox : null });
  if ("problems" in loaded) return { definition: null, problems: loaded.problems };
  const { id } = loaded.file.content;
  const isOther = (other: LoadedFile) =>
    absolute(other.source.file) !== absolute(path) && (builtin || other.builtin || other.content.id !== id);
  const builtins = createBuiltins({ ...options, sandbox });
  const extras = readExtras(options.extraFolder).files.filter(isOther);
  const above = [...builtins.twinOf(loaded.file), ...builtins.above(loaded.file, extras)].filter(isOther);
  const files = [...new Set(above), ...extras, loaded.file];
  const ids = new Set([...builtins.ids, ...files.map(({ content }) => content.id)]);
  const renamed = [
    ...builtins.renamed().filter(isOther),
    ...files.filter((file) => !file.builtin || file === loaded.file),
  ];
  const { problems } = formerIds(renamed, ids);
  const resolved = resolveFile(loaded.file, files, options);
  return { ...resolved, problems: [...idProblems(files), ...problems, ...resolved.problems] };
}

/** The built-in files, each named by its id, and read once when it is needed. */
function createBuiltins({ builtinFolder, sandbox }: Pick<Folders, "builtinFolder" | "sandbox">) {
  const paths = filesIn(builtinFolder).filter((path) => sandbox !== null || basename(path) !== sandboxFile);
  const pathOf = new Map(paths.map((path) => [basename(path).replace(/\.ya?ml$/, ""), path]));
  const loaded = new Map<string, LoadedFile>();

  const load = (id: string): LoadedFile | null => {
    const path = pathOf.get(id);
    if (path === undefined) return null;
    const known = loaded.get(id);
    if (known !== undefined) return known;
    const read = loadFile(path, { builtin: true, sandbox: basename(path) === sandboxFile ? sandbox : null });
    if ("problems" in read) throw new StartupError(read.problems.join("; "));
    loaded.set(id, read.file);
    return read.file;
  };

  /** The built-in files that a file extends, directly or through the extra folder. All of them if one cannot be found. */
  const above = (file: LoadedFile, extras: readonly LoadedFile[]): LoadedFile[] => {
    const found: LoadedFile[] = file.builtin ? [file] : [];
    const seen = new Set<LoadedFile>([file]);
    for (let at: LoadedFile | undefined = file; at?.content.extends;) {
      const id: string = at.content.extends;
      const own: LoadedFile = at;
      const builtin = load(id);
      if (builtin !== null) found.push(builtin);
      const next: LoadedFile | null = extras.find((other) => other.content.id === id && other !== own) ?? builtin;
      if (next === null) return [...pathOf.keys()].flatMap((each) => load(each) ?? []);
      if (seen.has(next)) break;
      seen.add(next);
      at = next;
    }
    return [...new Set(found)];
  };

  const twinOf = ({ content }: LoadedFile): LoadedFile[] => {
    const twin = load(content.id);
    return twin === null ? [] : [twin];
  };
  /** The files with former ids. Other files are not parsed for this. */
  const renamed = (): LoadedFile[] =>
    [...pathOf].flatMap(([id, path]) => (/^formerly:/m.test(readFileSync(path, "utf8")) ? (load(id) ?? []) : []));
  return { ids: [...pathOf.keys()], load, above, twinOf, renamed };
}

function readExtras(folder: string | null): { files: LoadedFile[]; problems: string[] } {
  const all = folder === null ? [] : filesIn(folder).map((path) => loadFile(path, { builtin: false, sandbox: null }));
  return {
    files: all.flatMap((read) => ("file" in read ? [read.file] : [])),
    problems: all.flatMap((read) => ("problems" in read ? read.problems : [])),
  };
}

/** A schema for editors may lie there, too. */
const looksMeant = (name: string) => /^(?!\.|schema\.json$).*\.(json|ya?ml|ya?ml\.txt)$/i.test(name);
const isRead = (name: string) => /\.ya?ml$/.test(name) && !name.startsWith(".");

/** Files of a folder that are not read, and by their names are most likely meant as definitions. */
export function passedOverIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => looksMeant(name) && !isRead(name))
    .sort();
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter(isRead)
      .sort()
      .map((name) => join(folder, name));
  } catch (error) {
    throw new StartupError(`PROVIDERS_DIR ${folder} cannot be read ${whyNotOnDisk(error)}`);
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

/** Former id → definition. If two files have the same id, the last one counts. */
function formerIds(files: readonly LoadedFile[], ids: ReadonlySet<string>) {
  const saying = new Map(files.filter(({ content }) => content.formerly).map((file) => [file.content.id, file]));
  const nowOf = new Map<string, string>();
  const problems = [...saying.values()].flatMap(({ source, content }) =>
    (content.formerly ?? []).flatMap((id, index) => {
      const at = `${source.locate(["formerly", String(index)])}: formerly: ${id}`;
      if (ids.has(id)) return [`${at} is the id of a definition that is there; a former id is nobody's id now`];
      const other = nowOf.get(id);
      if (other !== undefined) return [`${at} is a former id of ${other} too; only one definition can go on with it`];
      nowOf.set(id, content.id);
      return [];
    }),
  );
  return { nowOf, problems };
}

function stopOn(problems: readonly string[]): void {
  const [first, ...more] = new Set(problems);
  if (first === undefined) return;
  const rest = more.length > 0 ? ` (and ${more.length} more: see "freshet providers check FILE")` : "";
  throw new StartupError(`${first}${rest}`);
}
