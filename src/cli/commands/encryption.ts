import type { Command } from "commander";
import { cliTimes } from "../../time.ts";
import { collect, example } from "../options.ts";
import type { Column, Output } from "../output.ts";
import { isResource, type Resource, resourcesIn, textOf } from "../resource.ts";
import { handle, type Cli, type Session } from "../session.ts";

const keyColumns: readonly Column[] = [
  ["KEY", "id"],
  ["STATE", "state"],
  ["VALUES", "values"],
  ["MACS", "macs"],
  ["MARKS", "marks"],
  ["WHY IT IS NOT FREE", "reasons"],
];

const replicaColumns: readonly Column[] = [
  ["REPLICA", "name"],
  ["KEYS", "keys"],
  ["SEALS WITH", "current_key"],
  ["HOLDS", "held_keys"],
  ["SEEN", "seen_at"],
  ["STOPPED", "left_at"],
];

/** `freshet encryption rotate|status` */
export function addEncryptionCommands(program: Command, cli: Cli): void {
  const encryption = program.command("encryption").description("the encryption keys, and moving to another one");
  example(encryption, "encryption status");
  const rotate = encryption
    .command("rotate")
    .description(
      "seal and sign everything anew with the first of ENCRYPTION_KEYS, while the broker serves; waits until it is done",
    )
    .option(
      "--abandon-spool <instance>",
      "give up what waits in the spool folder of an instance that never comes back; repeatable",
      collect,
    )
    .option(
      "--accept-audit-faults",
      "give up keys, too, that alone prove entries of the audit behind a fault; look at audit verify first",
    )
    .action(handle(cli, rotateKeys));
  example(rotate, "encryption rotate", "encryption rotate --abandon-spool broker-2:8080");
  const status = encryption
    .command("status")
    .description("what is under each key, and which keys may be taken out of ENCRYPTION_KEYS")
    .action(handle(cli, async (session) => await showStatus(session)));
  example(status, "encryption status");
}

type RotateOptions = { abandonSpool?: string[]; acceptAuditFaults?: boolean };

async function rotateKeys(session: Session, { options }: { options: RotateOptions }): Promise<void> {
  const { api, output, sleep } = session;
  const accepted = options.acceptAuditFaults === true ? { accept_audit_faults: true } : {};
  let rotation = await api().post("/encryption/rotate", { abandon_spool: options.abandonSpool ?? [], ...accepted });
  let said = "";
  for (;;) {
    const progress = describeProgress(rotation);
    if (progress !== said) output.note(progress);
    said = progress;
    if (rotation["state"] === "finished") break;
    await sleep(cliTimes.pollMs);
    rotation = await api().get("/encryption/rotation");
  }
  await showStatus(session);
}

function describeProgress(rotation: Resource): string {
  const [key, seen, moved, waits] = ["target_key", "seen", "moved", "waits_for"].map((name) => textOf(rotation[name]));
  const counts = `${seen} rows looked at, ${moved} sealed or signed anew`;
  if (rotation["state"] === "finished") return `Everything that opens is under the key ${key}: ${counts}.`;
  if (waits !== "") return `Waits for ${waits}.`;
  return `Pass ${textOf(rotation["pass"])}, ${textOf(rotation["place"]) || "beginning"}: ${counts}`;
}

async function showStatus({ api, output }: Session): Promise<void> {
  const status = await api().get("/encryption");
  const keys = resourcesIn(status["keys"]);
  if (output.json) return output.list({ ...status, items: keys }, keyColumns);
  output.list({ items: keys.map(keyRow) }, keyColumns);
  output.list({ items: resourcesIn(status["replicas"]) }, replicaColumns);
  remark(output, status, keys);
}

/** What to do next. */
function remark(output: Output, status: Resource, keys: readonly Resource[]): void {
  const { rotation } = status;
  const unopened = isResource(rotation) ? resourcesIn(rotation["unopened"]) : [];
  for (const { table, id, name, column, key } of unopened) {
    if (table === "audit.entries") {
      output.note(`The audit has faults, in the chain ${textOf(id)}, and keeps ${textOf(key)}: freshet audit verify`);
      continue;
    }
    output.note(
      `Does not open: ${textOf(table)} ${textOf(name) || textOf(id)}, ${textOf(column)}, under ${textOf(key) || "no key"}`,
    );
  }
  const free = keys.filter((key) => key["free"] === true && key["here"] === true && key["current"] !== true);
  if (free.length === 0) return;
  const ids = free.map(({ id }) => textOf(id)).join(", ");
  output.note(
    `Nothing is under ${ids}: a key that is not about to be used may be taken out of ENCRYPTION_KEYS, of one replica after the other.`,
  );
}

function keyRow(key: Resource): Resource {
  const tables = resourcesIn(key["tables"]);
  const sum = (field: string) => tables.reduce((all, table) => all + Number(table[field]), 0);
  const state = key["current"] === true ? "current" : key["free"] === true ? "free" : "in use";
  const reasons = key["current"] === true ? "" : (key["reasons"] as unknown[]).map(textOf).join("; ");
  return { ...key, state, values: sum("seals"), macs: sum("macs"), reasons };
}
