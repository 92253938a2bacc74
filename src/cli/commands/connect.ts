import type { Command } from "commander";
import { segment } from "../api-client.ts";
import { wholeNumber } from "../options.ts";
import { CliError, UsageError } from "../errors.ts";
import { printable } from "../output.ts";
import { textOf, type Resource } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";
import { waitUntilConnected, watchConnection, type Watch } from "../watch-connection.ts";

type ConnectOptions = {
  wait: boolean;
  timeout?: number;
  expiresIn?: number;
  returnTo?: string;
  manual?: boolean;
  purpose?: string;
};

/** `freshet connect NAME` */
export function addConnectCommand(program: Command, cli: Cli): void {
  program
    .command("connect <connection>")
    .description(
      "print a link, or a code to type in, for the person whose account it is, and wait until they have connected it",
    )
    .option("--no-wait", "print it and leave")
    .option("--timeout <seconds>", "how long to wait (default: as long as it works)", wholeNumber)
    .option("--expires-in <seconds>", "how long the link works (default: an hour)", wholeNumber)
    .option("--return-to <url>", "where the browser goes afterwards; one of RETURN_ORIGINS")
    .option("--manual", "the provider shows a code, which the person copies into the page")
    .option("--purpose <text>", "what the account is connected for, shown to the person; at most 200 characters")
    .action(handle(cli, connect));
}

type Connecting = { name: string; path: string; connection: Resource; options: ConnectOptions };

async function connect(session: Session, { args: [name = ""], options }: { args: string[]; options: ConnectOptions }) {
  const path = `/connections/${segment(name)}`;
  const connection = await session.api().get(path);
  const connecting = { name, path, connection, options };
  if (connection["grant"] === "device_code") await connectByCode(session, connecting);
  else await connectByLink(session, connecting);
}

async function connectByLink(session: Session, { name, path, connection, options }: Connecting) {
  const { api, output } = session;
  const link = await api().post(`${path}/consent-links`, {
    expires_in: options.expiresIn,
    return_to: options.returnTo,
    manual: options.manual,
    purpose: options.purpose,
  });
  // Before anybody can have seen the link: whatever happens through it comes after this look.
  const watch = options.wait ? await watchConnection(api(), path, { connection }) : null;
  output.value(textOf(link["url"]), link);
  if (watch === null) return;
  output.note(`Open the link in the browser of whoever may connect ${name}. Waiting until it is connected …`);
  await waitFor(session, { name, watch, endsAt: link["expires_at"], options });
}

/** A code to type in at the provider (RFC 8628), which the broker asks about meanwhile. */
async function connectByCode(session: Session, { name, path, connection, options }: Connecting) {
  const { api, output } = session;
  const { expiresIn, returnTo, manual, purpose } = options;
  if (manual || [expiresIn, returnTo, purpose].some((given) => given !== undefined)) {
    const forLinks = "--expires-in, --return-to, --manual and --purpose are for links";
    throw new UsageError(`${name} is connected with a code: ${forLinks}`);
  }
  // Before the code is there: the broker may hear of a quick person before this program looks again.
  const watch = options.wait ? await watchConnection(api(), path, { connection, endings: endingsOfCode(name) }) : null;
  const code = await api().post(`${path}/device`, {});
  const complete = textOf(code["verification_uri_complete"]);
  output.value(printable(`${textOf(code["user_code"])}  ${textOf(code["verification_uri"])}`), code);
  output.note(
    `Open the address and type in the code${complete === "" ? "" : `, or open ${complete}`}, as whoever may connect ${name}.`,
  );
  if (watch === null) return;
  output.note("Waiting until it is connected …");
  await waitFor(session, { name, watch, endsAt: code["expires_at"], options });
}

/** A code works once: what the broker notes of it is its end. */
function endingsOfCode(name: string): Watch["endings"] {
  const over = new CliError(`${name} has not been connected, and its code works no more`, "not_connected");
  const remedy = `freshet connections confirm ${name} --accept, or --decline`;
  const other = new CliError(`The code was typed in by another account's owner: ${remedy}`, "account_changed");
  return { consent_denied: over, consent_failed: over, other_account_held: other };
}

async function waitFor(
  session: Session,
  { name, watch, endsAt, options }: { name: string; watch: Watch; endsAt: unknown; options: ConnectOptions },
) {
  const endsMs = Date.parse(textOf(endsAt));
  const deadlineMs = options.timeout === undefined ? endsMs : session.nowMs() + options.timeout * 1000;
  const connection = await waitUntilConnected(session, { name, watch, deadlineMs });
  session.output.done(`Connection ${name} is connected.`, connection);
}
