import { readFileSync } from "node:fs";
import { type Document, type ErrorCode, isMap, isScalar, isSeq, LineCounter, parseDocument, visit } from "yaml";

/** A fault in a file: where in it (keys and indices from the top), and what was expected. */
export type Problem = { path: readonly string[]; text: string };

/** A parsed file that knows the line of each value. */
export type YamlSource = {
  file: string;
  value: Record<string, unknown>;
  /** `file:line:column` of the value at a path, or of the nearest existing value around it. */
  locate(path: readonly string[]): string;
  /** How many steps of a path exist in this file. */
  depth(path: readonly string[]): number;
};

const longestFileBytes = 256 * 1024;

/**
 * Reads and parses a file; or every reason why that cannot be done, each with its line and column. `expected`: what a file of its kind
 * holds, and how it may begin.
 */
export function readYaml(
  file: string,
  expected = { what: "a provider definition", example: "id: example" },
): { source: YamlSource } | { problems: string[] } {
  const text = readText(file);
  if (typeof text !== "string") return text;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, strict: true, uniqueKeys: true });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const faults = [...document.errors, ...document.warnings].map(({ pos, code, message }) => {
    return { offset: pos[0], text: explain(code, message) };
  });
  visit(document, {
    Alias: (_key, node) =>
      void faults.push({ offset: node.range?.[0] ?? 0, text: "aliases (*name) are not used in these files" }),
  });
  if (faults.length > 0) {
    // One a line: the parser's further ones on the same line follow from the first.
    const byLine = new Map<number, string>();
    for (const { offset, text: fault } of faults) {
      const { line } = lines.linePos(offset);
      if (!byLine.has(line)) byLine.set(line, `${at(offset)}: ${fault}`);
    }
    return { problems: [...byLine.values()] };
  }
  if (document.contents === null) {
    return { problems: [`${file}:1:1: the file is empty; ${expected.what} was expected`] };
  }
  if (!isMap(document.contents)) {
    return { problems: [`${file}:1:1: a map of settings was expected, such as "${expected.example}"`] };
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

/**
 * Syntax that people often get wrong, by the parser's error code, in plain words. Where one code stands for several faults, the
 * parser's message tells them apart.
 */
const sentences: readonly (readonly [code: ErrorCode, message: RegExp | null, plain: string])[] = [
  ["DUPLICATE_KEY", null, "this key stands twice in the same map"],
  ["TAB_AS_INDENT", null, "this line is indented by a tab: use spaces"],
  [
    "BAD_INDENT",
    /^All mapping items must start at the same column$/,
    "this line is indented otherwise than those that it belongs to: the settings of one map start in the same column",
  ],
  [
    "MISSING_CHAR",
    /^Sequence item without - indicator$/,
    "this line is indented otherwise than the list item that it belongs to: its settings start in the same column",
  ],
  [
    "BLOCK_AS_IMPLICIT_KEY",
    /^Nested mappings/,
    "a value stands here, and the next line is indented as if it were a map; or a text that holds `: ` lacks its quotes",
  ],
  [
    "MULTILINE_IMPLICIT_KEY",
    /^Implicit keys need/,
    "a colon and a space must follow a setting (`url: …`), and the lines of one map are indented alike",
  ],
  ["MISSING_CHAR", /^Implicit map keys/, "a colon and a value are missing here (`setting: value`)"],
  [
    "BAD_INDENT",
    /^Flow (map|sequence) in block collection must be/,
    "a { or [ is not closed, or a line in it is not indented",
  ],
  [
    "UNEXPECTED_TOKEN",
    /^Unexpected \S+ at node end$/,
    "this does not belong to what stands before it: put a text that starts with a brace or a quote in quotes, and do not indent the settings of the top",
  ],
  ["BAD_SCALAR_START", null, "a text that starts with this character needs quotes"],
  ["BAD_DQ_ESCAPE", null, "a backslash in double quotes is an escape: put patterns in single quotes"],
  ["MISSING_CHAR", /^Missing closing /, "a quote is not closed"],
  ["MULTIPLE_DOCS", null, "the file holds a second document after ---; one was expected"],
];

function explain(code: ErrorCode, message: string): string {
  const known = sentences.find(([of, pattern]) => of === code && (pattern === null || pattern.test(message)));
  return known?.[2] ?? message.split("\n", 1)[0] ?? message;
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
