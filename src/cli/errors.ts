/** A command that could not do its work: exit code 1. The message is one sentence for a person and holds no secret. */
export class CliError extends Error {
  /** The broker's `code`, or one of this program's own. */
  readonly code: string;
  readonly exitCode: number = 1;

  constructor(message: string, code: string) {
    super(message);
    this.name = "CliError";
    this.code = code;
  }
}

/** The system's or fetch's code for what went wrong (`ENOENT`, `ECONNREFUSED`); its message may hold more than people may see. */
export function errorCode(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : "failed";
}

/** A wrong command line, environment or file: exit code 2, and nothing was sent. */
export class UsageError extends CliError {
  override readonly exitCode = 2;

  constructor(message: string) {
    super(message, "usage");
    this.name = "UsageError";
  }
}
