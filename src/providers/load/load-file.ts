import { existsSync } from "node:fs";
import type net from "node:net";
import { dirname, join } from "node:path";
import { nearest } from "../../text.ts";
import type { ProviderDefinition } from "../format/definition.ts";
import type { ProviderFile } from "../format/file.ts";
import { checkClientAuth, checkDeadGrant, checkDefinition, checkEgress, checkShape } from "./check-definition.ts";
import { checkPlainHttp } from "./check-templates.ts";
import { resolveDefinition } from "./resolve.ts";
import { type Problem, readYaml, type YamlSource } from "./yaml-source.ts";

/** The addresses of the built-in sandbox: for browsers, and for this process. */
export type SandboxAddress = { publicUrl: string; localUrl: string };

/** A file whose shape is right. */
export type LoadedFile = { source: YamlSource; content: ProviderFile; builtin: boolean; isSandbox: boolean };

/** Reads one file and checks its shape; or every problem, as `file:line:column: text`. */
export function loadFile(
  path: string,
  options: { builtin: boolean; sandbox: SandboxAddress | null },
): { file: LoadedFile } | { problems: string[] } {
  const { builtin, sandbox } = options;
  const read = readYaml(path);
  if ("problems" in read) return read;
  const { source } = read;
  const shape = checkShape(sandbox ? fillSandbox(source.value, sandbox) : source.value);
  if ("file" in shape) return { file: { source, content: shape.file, builtin, isSandbox: sandbox !== null } };
  return { problems: shape.problems.map((problem) => `${source.locate(problem.path)}: ${say(problem)}`) };
}

type Resolved<Fault> = { definition: ProviderDefinition | null; problems: Fault[] };

/**
 * Follows `extends` among `files`, applies defaults and checks what came of it. With `networks` its addresses are checked, too: null names none.
 */
export function resolveFile(
  file: LoadedFile,
  files: readonly LoadedFile[],
  { networks }: { networks?: net.BlockList | null } = {},
): Resolved<string> {
  const chain = [file];
  for (let at = file; at.content.extends;) {
    const parent = parentOf(at, files);
    const fault =
      parent === undefined ? unknownParent(at, files) : chain.includes(parent) ? "goes round in a circle" : null;
    if (parent === undefined || fault !== null) {
      return {
        definition: null,
        problems: [`${at.source.locate(["extends"])}: extends ${at.content.extends}, ${fault ?? ""}`],
      };
    }
    chain.push(parent);
    at = parent;
  }
  const { definition, problems } = judge(chain);
  const unreached =
    problems.length === 0 && definition !== null && networks !== undefined && !file.builtin
      ? checkEgress(definition, networks)
      : [];
  return { definition, problems: [...problems, ...unreached].map((problem) => describeProblem(chain, problem)) };
}

/** The definition of the first of these files, each of which extends the next. */
function judge(chain: readonly LoadedFile[]): Resolved<Problem> {
  const [file] = chain;
  if (file === undefined) return { definition: null, problems: [] };
  // Two files of the right shape merge into one of the right shape.
  const content = chain.reduceRight<ProviderFile>((base, { content: own }) => inherit(base, own), file.content);
  const unresolvable = checkClientAuth(content);
  if (unresolvable.length > 0) return { definition: null, problems: unresolvable };
  const definition = resolveDefinition(content, file.isSandbox);
  // The sandbox has the broker's addresses. Other files are checked against their networks at each request.
  const plain = file.builtin && !file.isSandbox ? checkPlainHttp(content) : [];
  const networks = file.builtin && content.networks !== undefined ? [builtinNetworks] : [];
  const problems = [...checkDefinition(content, definition), ...plain, ...networks];
  // An answer can be read only by valid rules.
  const deadGrant = problems.length > 0 ? [] : checkDeadGrant(definition, { own: file.content, builtin: file.builtin });
  return { definition, problems: [...problems, ...deadGrant] };
}

const builtinNetworks: Problem = {
  path: ["networks"],
  text: "is for files of PROVIDERS_DIR: a built-in definition reaches public addresses only",
};

/**
 * `networks` is not inherited: a file that extends another one must name its own. Former ids belong to one id, whichever file defines
 * it.
 */
function inherit({ networks: _others, formerly, ...base }: ProviderFile, own: ProviderFile): ProviderFile {
  const former = base.id === own.id && formerly !== undefined && { formerly };
  return { ...merge({ ...base, ...former }, own), id: own.id };
}

/** A file extends the definition in force. Only a file that overrides a built-in extends that built-in. */
function parentOf(file: LoadedFile, files: readonly LoadedFile[]): LoadedFile | undefined {
  const named = files.filter((other) => other.content.id === file.content.extends);
  if (file.content.extends === file.content.id && !file.builtin) return named.find((other) => other.builtin);
  return named.find((other) => !other.builtin) ?? named[0];
}

function unknownParent(file: LoadedFile, files: readonly LoadedFile[]): string {
  if (file.content.extends === "sandbox") return "which there is none of while the sandbox is off";
  const ids = [...new Set(files.map((other) => other.content.id))].filter((id) => id !== file.content.id).sort();
  const near = nearest(file.content.extends ?? "", ids);
  const neighbour = adviceOnNeighbour(file);
  if (neighbour !== null) return `which is no provider here; ${neighbour}`;
  return `which is no provider; ${near ? `did you mean "${near}"?` : `there are ${ids.join(", ")}`}`;
}

/** A file beside this one that may define what it extends; null: there is none. */
function adviceOnNeighbour({ source, content, builtin }: LoadedFile): string | null {
  const { extends: id } = content;
  const folder = dirname(source.file);
  if (builtin || !id || !/^[a-z0-9-]+$/.test(id) || id === content.id) return null;
  const path = [".yaml", ".yml"].map((ending) => join(folder, `${id}${ending}`)).find(existsSync);
  if (path === undefined) return null;
  const read = loadFile(path, { builtin: false, sandbox: null });
  if ("problems" in read) return `${path} lies beside it and has faults of its own: check that one first`;
  if (read.file.content.id !== id) return null;
  return `${path} lies beside it, and counts with PROVIDERS_DIR=${folder}`;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Maps merge, everything else replaces. */
function merge(base: object, own: object): Record<string, unknown> {
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(own)) {
    const below = merged[key];
    merged[key] = isMap(value) && isMap(below) ? merge(below, value) : value;
  }
  return merged;
}

/**
 * A problem with its place: in the checked file, or in a file that it extends and that has the same problem by itself. If another file has
 * more of the path than the checked one, the text names the value that was combined with it.
 */
function describeProblem(chain: readonly LoadedFile[], problem: Problem): string {
  const { path } = problem;
  const isSame = (other: Problem) => other.text === problem.text && other.path.join("/") === path.join("/");
  const owner = chain.findLastIndex((_, index) => index > 0 && judge(chain.slice(index)).problems.some(isSame));
  const [own, ...extended] = chain.slice(Math.max(owner, 0));
  if (own === undefined) return say(problem);
  const depth = own.source.depth(path);
  const deepest = Math.max(depth, ...extended.map(({ source }) => source.depth(path)));
  const other = depth === deepest ? undefined : extended.find(({ source }) => source.depth(path) === deepest);
  const at =
    depth === 0 && own.content.extends !== undefined ? own.source.locate(["extends"]) : own.source.locate(path);
  const combined =
    other === undefined ? "" : ` (${path.slice(0, deepest).join(".")} is that of ${other.source.locate(path)})`;
  return `${at}: ${say(problem)}${combined}`;
}

function say({ path, text }: Problem): string {
  return path.length === 0 ? text : `${path.join(".")}: ${text}`;
}

function fillSandbox(value: Record<string, unknown>, sandbox: SandboxAddress): Record<string, unknown> {
  const fill = (inner: unknown): unknown => {
    if (typeof inner === "string") {
      return inner
        .replaceAll("{sandbox.public_url}", sandbox.publicUrl)
        .replaceAll("{sandbox.local_url}", sandbox.localUrl);
    }
    return isMap(inner) ? fillSandbox(inner, sandbox) : inner;
  };
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fill(inner)]));
}
