import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import { StartupError } from "./errors.ts";
import { whyNotOnDisk } from "./unreachable.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** A file of variables. `problems`: what is passed over in it, a line for a person each, never with a value. */
export type EnvFile = { path: string; values: Environment; problems: readonly string[] };

/** A file of variables, as `npm start` reads it. Null: there is none. @throws StartupError naming file and line, never a value */
export function readEnvFile(path: string): EnvFile | null {
  try {
    return { path, ...parseLines(path, decode(path, readFileSync(path))) };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof StartupError) throw error;
    if (code === "ENOENT") return null;
    if (code === "EISDIR") return { path, values: {}, problems: [`${path} ${isFolder}`] };
    throw new StartupError(`${path} cannot be read ${whyNotOnDisk(error)}`);
  }
}

const isFolder = "is a folder, so no variable is read from it: name it otherwise, or make a file of it";

/** A text about variables, with what of them comes from the file. */
export function withSource(text: string, file: EnvFile | null): string {
  if (file === null) return text;
  const named = text.match(/^\w+|\b[A-Z][A-Z_]+\b/g) ?? [];
  const from = [...new Set(named.flatMap(formsOf))].filter((name) => file.values[name]);
  if (from.length === 0) return text;
  const ofCompose = from.find((name) => file.values[name]?.startsWith("/run/secrets/"));
  const remedy = `, which seems to be for Compose: start with ${ofCompose}= (empty) in the environment, or in another folder`;
  const comes = from.length === 1 ? "comes" : "come";
  return `${text}; ${from.join(" and ")} ${comes} from ${file.path}${ofCompose === undefined ? "" : remedy}`;
}

/** What the file adds. The environment wins: a variable that is in it, even an empty one, counts before both of its forms in the file. */
export function addedBy(file: Environment, env: Environment): Environment {
  return Object.fromEntries(
    Object.entries(file).filter(([name]) => formsOf(name).every((form) => env[form] === undefined)),
  );
}

const formsOf = (name: string): string[] => [name, name.replace(/_FILE$/, ""), `${name}_FILE`];

/** Some editors and shells of Windows write UTF-16. */
function decode(path: string, bytes: Buffer): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text.replaceAll("\r\n", "\n");
  } catch {
    // Told below.
  }
  throw new StartupError(`${path} must be text in UTF-8; save it anew as UTF-8`);
}

const assignment = /^\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=(.*)$/;
const quotes = ['"', "'", "`"];

/** Line by line: of a line that it does not understand, Node's parser would take the next ones for a part. */
function parseLines(path: string, text: string): Pick<EnvFile, "values" | "problems"> {
  const values: Record<string, string | undefined> = {};
  const problems: string[] = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? "";
    if (/^\s*(#|$)/.test(line)) continue;
    const [, name, value = ""] = assignment.exec(line) ?? [];
    if (name === undefined) {
      problems.push(`${path}:${at + 1}: is not NAME=value and is passed over; correct it, or put # before it`);
      continue;
    }
    const quote = quotes.find((each) => value.trimStart().startsWith(each));
    if (quote === undefined) {
      // As Compose and shells read it; Node's parser would cut a value off at any #.
      values[name] = value.replace(/\s#.*$/, "").trim();
      continue;
    }
    const begun = at;
    at = endOfQuote(lines, { begun, quote, path });
    Object.assign(values, parseEnv(lines.slice(begun, at + 1).join("\n")));
  }
  return { values, problems };
}

/** @returns the line of the closing quote. What follows a quote that is wrong cannot be told, so it ends the start. */
function endOfQuote(lines: string[], { begun, quote, path }: { begun: number; quote: string; path: string }): number {
  const fail = (problem: string, at: number): never => {
    throw new StartupError(`${path}:${at + 1}: ${problem}`);
  };
  let at = begun;
  let rest = lines[at] ?? "";
  rest = rest.slice(rest.indexOf(quote) + 1);
  while (!rest.includes(quote)) {
    at += 1;
    rest = lines[at] ?? fail(`the quote ${quote} is not closed; close it, or take it away`, begun);
  }
  const after = rest.slice(rest.indexOf(quote) + 1);
  if (!/^\s*(#.*)?$/.test(after)) fail("nothing but a comment may follow the closing quote", at);
  return at;
}
