import { readFile } from "node:fs/promises";
import type { BrokerProcess } from "../../support/broker-process.ts";

type Definition = Record<string, unknown> & { id: string };

/** What stands beside the dump: what a broker of that version had outside of its database, and what its callers knew. */
type Beside = {
  encryptionKey: string;
  keys: { reader: string; maker: string; revoked: string };
  link: string;
  /** One answer that waited in `DATA_DIR/spool` to be stored. */
  spool: { name: string; base64: string };
  /** `PORT` stands where the provider's was. */
  definition: Definition;
};

const read = async (name: string) => await readFile(new URL(name, import.meta.url), "utf8");

/** A database of the last version before sealed format 2, with a row of each kind, and what belongs to it. */
export async function readDump(): Promise<Beside & { sql: string }> {
  const beside = JSON.parse(await read("f1efd7e.json")) as Beside;
  return { ...beside, sql: await read("f1efd7e.sql") };
}

export function definitionAt({ definition }: Beside, port: number): Definition {
  return JSON.parse(JSON.stringify(definition).replaceAll(":PORT/", `:${port}/`)) as Definition;
}

/** The path of the dumped link at a broker, which has another address. */
export function linkAt({ link }: Beside, broker: Pick<BrokerProcess, "url">): string {
  return broker.url + new URL(link).pathname;
}
