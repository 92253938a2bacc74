import { CliError, UsageError } from "./errors.ts";
import { readSecret, type SecretSource } from "./secrets.ts";
import type { Session } from "./session.ts";

/** What is wrong with an answer, saying what is allowed and not what was typed; null: nothing is. */
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
 * Asks at a terminal for what is missing; an answer that does not fit is asked for again, so that the answers before it are not lost.
 * Elsewhere it collects what is missing, so that one message names all of it.
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
