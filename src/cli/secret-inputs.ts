import type { Command } from "commander";
import { UsageError } from "./errors.ts";
import { collectName, collectPair } from "./options.ts";
import type { Provider } from "./provider.ts";
import type { Misfit, Questions } from "./questions.ts";

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

/** All inputs that are given, secret ones too; undefined: none is. With the provider, what is typed is judged at once. */
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
