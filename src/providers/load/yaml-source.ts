import { readFileSync } from "node:fs";
import { type Document, isMap, isScalar, isSeq, LineCounter, parseDocument, visit } from "yaml";

/** A fault in a provider file: where in it (keys and indices from the top), and what was expected. */
export type Problem = { path: readonly string[]; text: string };

/** One file, parsed, with the way back from a value to its line. */
export type YamlSource = {
  file: string;
  value: Record<string, unknown>;
  /** `file:line:column` of the value at a path, or of the nearest one around it that is there. */
  locate(path: readonly string[]): string;
  /** How many steps of a path this file holds. */
  depth(path: readonly string[]): number;
};

const longestFileBytes = 256 * 1024;

/** Reads and parses a file; or every reason why that cannot be done, each with its line and column. */
export function readYaml(file: string): { source: YamlSource } | { problems: string[] } {
  const text = readText(file);
  if (typeof text !== "string") return text;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, strict: true, uniqueKeys: true });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const faults = [...document.errors, ...document.warnings].map(
    ({ pos, message }) => `${at(pos[0])}: ${explain(message)}`,
  );
  visit(document, {
    Alias: (_key, node) => void faults.push(`${at(node.range?.[0] ?? 0)}: aliases (*name) are not used in these files`),
  });
  if (faults.length > 0) return { problems: faults };
  if (document.contents === null) {
    return { problems: [`${file}:1:1: the file is empty; a provider definition was expected`] };
  }
  if (!isMap(document.contents)) {
    return { problems: [`${file}:1:1: a map of settings was expected, such as "id: example"`] };
  }
  const value: Record<string, unknown> = document.toJS();
  return {
    source: {
      file,
      value,
      locate: (path) => at(walk(document, path).offset),
      depth: (path) => walk(document, path).depth,
    },
  };
}

function readText(file: string): string | { problems: string[] } {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    return { problems: [`${file}: cannot be read (${code})`] };
  }
  if (bytes.length > longestFileBytes) return { problems: [`${file}:1:1: the file is larger than 256 KiB`] };
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    return decoder.decode(bytes);
  } catch {
    return { problems: [`${file}:${firstBadLine(bytes)}:1: the file is not UTF-8`] };
  }
}

function firstBadLine(bytes: Buffer): number {
  const lines = bytes.toString("latin1").split("\n");
  const bad = lines.findIndex((line) => {
    const raw = Buffer.from(line, "latin1");
    return !Buffer.from(raw.toString("utf8"), "utf8").equals(raw);
  });
  return bad + 1;
}

function explain(message: string): string {
  if (message.startsWith("Map keys must be unique")) return "this key stands twice in the same map";
  return message.split("\n", 1)[0] ?? message;
}

/** Follows a path as far as it goes; the offset is that of the last key (or list item) found. */
function walk(document: Document, path: readonly string[]): { offset: number; depth: number } {
  let node: unknown = document.contents;
  let offset = 0;
  for (const [depth, step] of path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === step);
      if (!pair) return { offset, depth };
      offset = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset;
      node = pair.value;
    } else if (isSeq(node) && node.items[Number(step)] !== undefined) {
      node = node.items[Number(step)];
      const range: unknown = typeof node === "object" && node !== null && "range" in node ? node.range : null;
      if (Array.isArray(range) && typeof range[0] === "number") offset = range[0];
    } else {
      return { offset, depth };
    }
  }
  return { offset, depth: path.length };
}
