import type { Command } from "commander";
import { UsageError } from "../errors.ts";
import { example } from "../options.ts";
import type { Column } from "../output.ts";
import { resourcesIn } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";

const columns: readonly Column[] = [
  ["NAME", "name"],
  ["PROVIDER", "provider"],
  ["STATUS", "status"],
  ["SETS LOST", "sets_lost"],
  ["ACCESS TOKEN UNTIL", "access_token_expires_at"],
];

const keyColumns: readonly Column[] = [
  ["ID", "id"],
  ["NAME", "name"],
  ["ABILITIES", "abilities"],
  ["CREATED", "created_at"],
  ["EXPIRES", "expires_at"],
];

const explanation =
  "These rows are older than what was stored before the database was restored: their refresh tokens have most likely been " +
  "spent, and many providers end a grant whose token is sent twice. Better: freshet connect NAME. " +
  "To refresh with what was restored nevertheless: freshet recover NAME..., or freshet recover --all";

/** `freshet recover` */
export function addRecoverCommand(program: Command, cli: Cli): void {
  const command = program
    .command("recover [names...]")
    .description(
      "after a restored database: show the connections that are held and the keys that may be back, or let them be refreshed again",
    )
    .option("--all", "all that are held")
    .action(handle(cli, recover));
  example(command, "recover", "recover acme-orders acme-crm");
}

async function recover(
  { api, output }: Session,
  { args, options }: { args: (string | string[])[]; options: { all?: boolean } },
) {
  const names = args.flat();
  const all = options.all ?? false;
  if (all && names.length > 0) throw new UsageError("name connections, or give --all, not both");
  if (!all && names.length === 0) {
    const answer = await api().get("/recovery");
    const items = resourcesIn(answer["items"]);
    output.list({ ...answer, items }, columns);
    if (items.length > 0) output.note(explanation);
    if (typeof answer["notice"] !== "string") return;
    output.note(answer["notice"]);
    if (!output.json) output.list({ items: resourcesIn(answer["keys"]) }, keyColumns);
    return;
  }
  const answer = await api().post("/recovery", all ? { all } : { connections: names });
  const released = (answer["released"] as unknown[]).map(String);
  output.done(`Refreshed again from now on: ${released.join(", ") || "none was held"}.`, answer);
}
