import { readFile } from "node:fs/promises";
import { errorCode, UsageError } from "./errors.ts";
import type { SecretVariable, Settings } from "./settings.ts";
import type { Terminal } from "./terminal.ts";

/** Where one secret may come from, in this order: a file or `-` for stdin, the environment, a prompt that shows nothing. */
export type SecretSource = {
  file: string | undefined;
  variable: SecretVariable;
  /** Left out: nobody is asked. */
  question?: string;
};

/** Reads one secret; undefined when there is none. Secrets are never arguments: those stand in the list of processes. */
export async function readSecret(
  source: SecretSource,
  { terminal, settings }: { terminal: Terminal; settings: Settings },
): Promise<string | undefined> {
  if (source.file !== undefined) return withoutNewline(await readInput(source.file, terminal), source.file);
  const fromEnvironment = settings.secret(source.variable);
  if (fromEnvironment !== undefined) return fromEnvironment;
  if (!terminal.interactive || source.question === undefined) return undefined;
  return (await terminal.askHidden(source.question)) || undefined;
}

/** The text of a file, or of stdin for `-`. @throws UsageError when it cannot be read. */
export async function readInput(file: string, terminal: Terminal): Promise<string> {
  if (file === "-") return terminal.readStdin();
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new UsageError(`${file} cannot be read (${errorCode(error)})`);
  }
}

/** Spaces may be part of a secret, the newline that an editor leaves at the end is not. */
function withoutNewline(content: string, file: string): string {
  const secret = content.replace(/\r?\n$/, "");
  if (secret === "") throw new UsageError(`${file === "-" ? "stdin" : file} holds no secret: it is empty`);
  return secret;
}
