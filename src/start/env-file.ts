import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import { StartupError, whyNotOnDisk } from "../errors.ts";
import { editDistance } from "../text.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** A file of variables. `problems`: one line for a person about each part that is skipped, never with a value. */
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

/** Adds to a text about variables which of them come from the file. */
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
    // Reported below.
  }
  throw new StartupError(`${path} must be text in UTF-8; save it anew as UTF-8`);
}

const assignment = /^\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=(.*)$/;
const quotes = ['"', "'", "`"];

/** Reads line by line: after a line that it does not understand, Node's parser would take the next lines for a part of it. */
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
      // As Compose and shells read it. Node's parser would end a value at any #.
      values[name] = value.replace(/\s#.*$/, "").trim();
      continue;
    }
    const begun = at;
    at = endOfQuote(lines, { begun, quote, path });
    Object.assign(values, parseEnv(lines.slice(begun, at + 1).join("\n")));
  }
  return { values, problems };
}

/** @returns the line of the closing quote. After a wrong quote nobody can say what is meant, so it ends the start. */
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

/** A variable that is set and not read, and the one that was most likely meant. */
export type NearMiss = { variable: string; meant: string };

/** The command line's own variables. */
const ofCommandLine =
  /^FRESHET_(URL|KEY|KEY_FILE|CLIENT_SECRET|PASSWORD|ACCESS_TOKEN|REFRESH_TOKEN|(CREDENTIAL|INPUT)_.*)$/;

/** Names that other programs use for the same thing. They are spelt too differently to be found as misspellings. */
const otherNames: Readonly<Record<string, string>> = {
  DB_URL: "DATABASE_URL",
  PG_URL: "DATABASE_URL",
  POSTGRES_URL: "DATABASE_URL",
  POSTGRESQL_URL: "DATABASE_URL",
  DATABASE_DSN: "DATABASE_URL",
  BROKER_URL: "PUBLIC_URL",
  TRUSTED_PROXIES: "TRUST_PROXY",
};

/** Variables of other programs that look like misspellings of Freshet's. */
const foreign = new Set(["FTP_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY"]);

/**
 * Variables that look like one of `known` and are not: another spelling, lower case, with the prefix `FRESHET_`. One is left out if the
 * variable that it looks like is set, too: whoever set that knows its name.
 */
export function findNearMisses(env: Environment, known: readonly string[]): NearMiss[] {
  const names = Object.keys(env).filter((name) => env[name] && !known.includes(name) && !ofCommandLine.test(name));
  return names.sort().flatMap((variable) => {
    if (isOfKubernetes(env[variable] ?? "")) return [];
    const meant = meantBy(variable, known);
    return meant === null || isSet(env, { meant, variable }) ? [] : [{ variable, meant }];
  });
}

/** One line, without the value. */
export function describeNearMiss({ variable, meant }: NearMiss): string {
  const name = variable.replaceAll(/[^\x21-\x7E]/g, "?");
  return `${name} is set, and Freshet reads no variable of this name: did you mean ${meant}? Rename it, or take it away`;
}

function meantBy(variable: string, known: readonly string[]): string | null {
  const plain = variable
    .toUpperCase()
    .replaceAll(/[-. ]/g, "_")
    .replace(/^FRESHET_+/, "");
  if (foreign.has(plain)) return null;
  if (known.includes(plain)) return plain;
  const withoutFile = plain.replace(/_FILE$/, "");
  const other = otherNames[plain] ?? otherNames[withoutFile];
  if (other !== undefined) return plain === withoutFile ? other : `${other}_FILE`;
  // Only secrets come from files.
  if (plain !== withoutFile && known.includes(withoutFile)) return withoutFile;
  // Most names differ too much in length: each start compares all of them with whatever its environment holds.
  const likelyNear = known.filter((name) => Math.abs(name.length - plain.length) <= mostEdits(name));
  const near = likelyNear.filter((name) => editDistance(plain, name) <= mostEdits(name));
  return near.sort((one, two) => editDistance(plain, one) - editDistance(plain, two))[0] ?? null;
}

/** Short names are not compared, since too many are similar: HOST, POST and COST. */
function mostEdits(name: string): number {
  return name.length < 7 ? 0 : name.length < 10 ? 1 : 2;
}

/** The variable itself, or its other form (`NAME` and `NAME_FILE`). */
function isSet(env: Environment, { meant, variable }: NearMiss): boolean {
  const value = meant.replace(/_FILE$/, "");
  return [value, `${value}_FILE`].some((name) => name !== variable && Boolean(env[name]));
}

/** Kubernetes sets variables such as FRESHET_PORT in each container, for a service that is called freshet. */
export function isOfKubernetes(value: string): boolean {
  return /^(tcp|udp|sctp):\/\/[\d.:[\]a-f]+$/i.test(value);
}
