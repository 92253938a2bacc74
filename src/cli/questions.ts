import { CliError, UsageError } from "./errors.ts";
import { readSecret, type SecretSource } from "./secrets.ts";
import type { Session } from "./session.ts";

/** What a command needs and its command line may leave out. */
export type Questions = {
  /** The value that was given, or else what a person types. `option`: what to give without a terminal. */
  text: (given: string | undefined, wanted: { option: string; question: string }) => Promise<string>;
  /** The same for a secret, which is never an argument. */
  secret: (source: SecretSource & { question: string; option: string }) => Promise<string>;
  /** @throws UsageError naming all that was neither given nor could be asked for */
  requireAll: () => void;
};

/** Asks at a terminal for what is missing. Elsewhere it collects what is missing, so that one message names all of it. */
export function createQuestions(session: Session): Questions {
  const { terminal } = session;
  const missing: string[] = [];
  const lacks = (option: string): string => {
    missing.push(option);
    return "";
  };
  return {
    async text(given, { option, question }) {
      if (given !== undefined) return given;
      if (!terminal.interactive) return lacks(option);
      const answer = (await terminal.ask(question)).trim();
      if (answer === "") throw new CliError("Nothing was entered", "cancelled");
      return answer;
    },
    async secret({ option, ...source }) {
      const secret = await readSecret(source, session);
      if (secret !== undefined) return secret;
      if (!terminal.interactive) return lacks(option);
      throw new CliError("Nothing was entered", "cancelled");
    },
    requireAll() {
      if (missing.length > 0) throw new UsageError(`Missing: ${missing.join(", ")}`);
    },
  };
}
