import type { Command } from "commander";
import { segment } from "../api-client.ts";
import { UsageError } from "../errors.ts";
import { example, wholeNumber } from "../options.ts";
import { readInput, readSecret } from "../questions.ts";
import { parseResource, type Resource, textOf } from "../resource.ts";
import { type Cli, handle, type Session } from "../session.ts";

type ImportOptions = {
  file?: string;
  accessTokenFile?: string;
  refreshTokenFile?: string;
  expiresIn?: number;
  expiresAt?: string;
  scope?: string;
  verify?: boolean;
};

const setFields = ["access_token", "refresh_token", "expires_in", "expires_at", "scope"] as const;

/** `freshet import NAME` */
export function addImportCommand(program: Command, cli: Cli): void {
  const command = program
    .command("import <connection>")
    .description("hand over a token set by hand; tokens come from files, the environment or prompts that show nothing")
    .option("--file <file>", "a token endpoint's answer in JSON, - for stdin")
    .option("--access-token-file <file>", "file that holds the access token, - for stdin (or FRESHET_ACCESS_TOKEN)")
    .option("--refresh-token-file <file>", "file that holds the refresh token, - for stdin (or FRESHET_REFRESH_TOKEN)")
    .option("--expires-in <seconds>", "how long the access token lives from now", wholeNumber)
    .option("--expires-at <time>", "when the access token ends, as 2026-11-20T12:00:00Z")
    .option("--scope <scopes>", "the granted scopes, separated by spaces")
    .option("--verify", "refresh at once, to see whether the set works")
    .action(handle(cli, importTokens));
  example(command, "import acme-crm --refresh-token-file token.txt --verify", "import acme-crm --file answer.json");
}

async function importTokens(
  session: Session,
  { args: [name = ""], options }: { args: string[]; options: ImportOptions },
) {
  const api = session.api();
  const tokens = options.file === undefined ? await readTokens(session, options) : await readTokenSet(session, options);
  if (tokens["access_token"] === undefined && tokens["refresh_token"] === undefined) {
    throw new UsageError(
      "No tokens: give --file, --refresh-token-file or --access-token-file, or set FRESHET_REFRESH_TOKEN",
    );
  }
  const given = { expires_in: options.expiresIn, expires_at: options.expiresAt, scope: options.scope };
  const stated = Object.entries(given).filter(([, value]) => value !== undefined);
  const body = { ...tokens, ...Object.fromEntries(stated), verify: options.verify };
  const connection = await api.post(`/connections/${segment(name)}/import`, body);
  session.output.done(`Connection ${name} is ${textOf(connection["status"])}.`, connection);
}

async function readTokens(session: Session, options: ImportOptions): Promise<Resource> {
  if (options.accessTokenFile === "-" && options.refreshTokenFile === "-") {
    throw new UsageError("Only one token can come from stdin");
  }
  // With a file for one token, the other token is not asked for.
  const asks = options.accessTokenFile === undefined && options.refreshTokenFile === undefined;
  const refreshToken = await readSecret(
    {
      file: options.refreshTokenFile,
      variable: "FRESHET_REFRESH_TOKEN",
      ...(asks && { question: "Refresh token (empty for none, not shown): " }),
    },
    session,
  );
  const accessToken = await readSecret(
    {
      file: options.accessTokenFile,
      variable: "FRESHET_ACCESS_TOKEN",
      ...(asks && { question: "Access token (empty for none, not shown): " }),
    },
    session,
  );
  return { refresh_token: refreshToken, access_token: accessToken };
}

/** A provider's answer holds more than the broker takes; the rest is left out. */
async function readTokenSet(session: Session, { file = "-", ...options }: ImportOptions): Promise<Resource> {
  if (options.accessTokenFile !== undefined || options.refreshTokenFile !== undefined) {
    throw new UsageError("--file holds the whole set: leave out --access-token-file and --refresh-token-file");
  }
  const set = parseResource(await readInput(file, session.terminal));
  if (set === null) throw new UsageError(`${file === "-" ? "stdin" : file} must hold one JSON object with the tokens`);
  return Object.fromEntries(setFields.filter((field) => field in set).map((field) => [field, set[field]]));
}
