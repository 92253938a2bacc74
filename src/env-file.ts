import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import { StartupError } from "./errors.ts";
import { whyNotOnDisk } from "./unreachable.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** A file of variables, as `npm start` reads it. Null: there is none. @throws StartupError naming file and line, never a value */
export function readEnvFile(path: string): Environment | null {
  const bytes = readBytes(path);
  if (bytes === null) return null;
  const text = decode(path, bytes);
  requireLines(path, text);
  return parseEnv(text);
}

/** What the file adds. The environment wins: a variable that is in it, even an empty one, counts before both of its forms in the file. */
export function addedBy(file: Environment, env: Environment): Environment {
  return Object.fromEntries(
    Object.entries(file).filter(([name]) => formsOf(name).every((form) => env[form] === undefined)),
  );
}

const formsOf = (name: string): string[] => [name, name.replace(/_FILE$/, ""), `${name}_FILE`];

function readBytes(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new StartupError(`${path} cannot be read ${whyNotOnDisk(error)}`);
  }
}

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

const assignment = /^\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=[^\S\n]*(.*)$/;
const quotes = ['"', "'", "`"];

/** Node's parser passes over what it does not understand, and cuts a value off at a `#`. */
function requireLines(path: string, text: string): void {
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? "";
    if (/^\s*(#|$)/.test(line)) continue;
    const fail = (problem: string, number = at + 1): never => {
      throw new StartupError(`${path}:${number}: ${problem}`);
    };
    const [, , value] = assignment.exec(line) ?? fail("must be NAME=value, or begin with #");
    const quote = quotes.find((each) => value?.startsWith(each));
    if (quote === undefined) {
      if (/\S#/.test(value ?? "")) fail("a value with # in it must stand in quotes; what follows # is a comment");
      continue;
    }
    const begun = at;
    let rest = (value ?? "").slice(1);
    while (!rest.includes(quote)) {
      at += 1;
      rest = lines[at] ?? fail(`the quote ${quote} is not closed; close it, or take it away`, begun + 1);
    }
    const after = rest.slice(rest.indexOf(quote) + 1);
    if (!/^\s*(#.*)?$/.test(after)) fail("nothing but a comment may follow the closing quote");
  }
}
