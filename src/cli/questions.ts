import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { CliError, errorCode, UsageError } from "./errors.ts";
import { collectName, collectPair } from "./options.ts";
import type { Terminal } from "./output.ts";
import type { Provider } from "./provider.ts";
import type { Session } from "./session.ts";
import type { SecretVariable, Settings } from "./settings.ts";

/** What is wrong with an answer: it says what is allowed and does not repeat what was typed; null: nothing is wrong. */
export type Misfit = (answer: string) => string | null;

const mostAttempts = 3;

/** What a command needs and its command line may leave out. */
export type Questions = {
  /** The value that was given, or else what a person types. `option`: what to give without a terminal. */
  text: (given: string | undefined, wanted: { option: string; question: string; misfit?: Misfit }) => Promise<string>;
  /** The same for a secret, which is never an argument. */
  secret: (source: SecretSource & { question: string; option: string; misfit?: Misfit }) => Promise<string>;
  /** @throws UsageError naming all that was neither given nor could be asked for */
  requireAll: () => void;
};

/**
 * At a terminal it asks for what is missing, and asks again after an answer that does not fit, so that earlier answers are not lost.
 * Elsewhere it collects what is missing, so that one message names everything.
 */
export function createQuestions(session: Session): Questions {
  const { terminal } = session;
  const missing: string[] = [];
  const lacks = (option: string): string => {
    missing.push(option);
    return "";
  };
  return {
    async text(given, { option, question, misfit }) {
      if (given !== undefined) return given;
      if (!terminal.interactive) return lacks(option);
      return await askUntilFits(session, misfit, async () => (await terminal.ask(question)).trim());
    },
    async secret({ option, misfit, question, ...source }) {
      const given = await readSecret(source, session);
      if (given !== undefined) return given;
      if (!terminal.interactive) return lacks(option);
      return await askUntilFits(session, misfit, async () => await terminal.askHidden(question));
    },
    requireAll() {
      if (missing.length > 0) throw new UsageError(`Missing: ${missing.join(", ")}`);
    },
  };
}

/** @throws CliError where nothing is entered, UsageError after the last attempt */
async function askUntilFits(
  { output }: Session,
  misfit: Misfit = () => null,
  ask: () => Promise<string>,
): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const answer = await ask();
    if (answer === "") throw new CliError("Nothing was entered", "cancelled");
    const fault = misfit(answer);
    if (fault === null) return answer;
    if (attempt === mostAttempts) throw new UsageError(fault);
    output.note(fault);
  }
}

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

/** Spaces may be part of a secret. A newline at its end is not: editors add it. */
function withoutNewline(content: string, file: string): string {
  const secret = content.replace(/\r?\n$/, "");
  if (secret === "") throw new UsageError(`${file === "-" ? "stdin" : file} holds no secret: it is empty`);
  return secret;
}

/** Inputs of a connection. The value of a secret one is no argument: arguments stand in the list of processes. */
export type InputOptions = { input?: Record<string, string>; secretInput?: string[] };

/** `--input` and `--secret-input`. */
export function addInputOptions(command: Command, description: string): Command {
  return command
    .option("--input <key=value>", description, collectPair)
    .option(
      "--secret-input <name>",
      "an input that is a secret; its value comes from FRESHET_INPUT_NAME or a prompt; repeatable",
      collectName,
    );
}

/**
 * A key without `admin` does not see which inputs are secrets: then nothing is refused.
 * @throws UsageError for the value of a secret as an argument
 */
export function refuseSecretArguments({ input = {} }: InputOptions, provider: Provider | null): void {
  const secret = Object.keys(input).find((name) => provider?.input(name).isSecret);
  if (secret === undefined) return;
  throw new UsageError(
    `The input ${secret} is a secret: give --secret-input ${secret} in its place, and set ${variableOf(secret)} or type it when asked`,
  );
}

/** The value of one input that is a secret, from the environment or a prompt. */
export async function askForSecretInput(questions: Questions, input: string, misfit?: Misfit): Promise<string> {
  const variable = variableOf(input);
  return await questions.secret({
    file: undefined,
    variable,
    option: variable,
    question: `The input ${input} (not shown): `,
    ...(misfit && { misfit }),
  });
}

/** All given inputs, also secret ones; undefined: none is given. If the provider is known, answers are checked at once. */
export async function readInputs(
  questions: Questions,
  { input, secretInput }: InputOptions,
  provider: Provider | null = null,
): Promise<Record<string, string> | undefined> {
  if (input === undefined && secretInput === undefined) return undefined;
  const inputs = { ...input };
  for (const name of secretInput ?? []) {
    inputs[name] = await askForSecretInput(questions, name, provider?.input(name).misfit);
  }
  return inputs;
}

/** The variable that an input which is a secret comes from. */
export function variableOf(input: string): `FRESHET_INPUT_${string}` {
  return `FRESHET_INPUT_${input.toUpperCase()}`;
}
