import type { Command } from "commander";
import { segment } from "../api-client.ts";
import { wholeNumber } from "../options.ts";
import { textOf } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";
import { waitUntilConnected, watchConnection } from "../watch-connection.ts";

type ConnectOptions = { wait: boolean; timeout?: number; expiresIn?: number; returnTo?: string; manual?: boolean };

/** `freshet connect NAME` */
export function addConnectCommand(program: Command, cli: Cli): void {
  program
    .command("connect <connection>")
    .description("print a link for the person whose account it is, and wait until they have connected it")
    .option("--no-wait", "print the link and leave")
    .option("--timeout <seconds>", "how long to wait (default: as long as the link works)", wholeNumber)
    .option("--expires-in <seconds>", "how long the link works (default: an hour)", wholeNumber)
    .option("--return-to <url>", "where the browser goes afterwards; one of RETURN_ORIGINS")
    .option("--manual", "the provider shows a code, which the person copies into the page")
    .action(handle(cli, connect));
}

async function connect(session: Session, { args: [name = ""], options }: { args: string[]; options: ConnectOptions }) {
  const { api, output, nowMs } = session;
  const path = `/connections/${segment(name)}`;
  const link = await api().post(`${path}/consent-links`, {
    expires_in: options.expiresIn,
    return_to: options.returnTo,
    manual: options.manual,
  });
  // Before anybody can have seen the link: whatever happens through it comes after this look.
  const watch = options.wait ? await watchConnection(api(), path) : null;
  output.value(textOf(link["url"]), link);
  if (watch === null) return;
  const linkEndsMs = Date.parse(textOf(link["expires_at"]));
  const deadlineMs = options.timeout === undefined ? linkEndsMs : nowMs() + options.timeout * 1000;
  output.note(`Open the link in the browser of whoever may connect ${name}. Waiting until it is connected …`);
  const connection = await waitUntilConnected(session, { name, watch, deadlineMs });
  output.done(`Connection ${name} is connected.`, connection);
}
