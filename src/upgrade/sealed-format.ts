import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { StartupError } from "../errors.ts";
import type { SpoolPlace } from "../spool/spool.ts";
import { migrationLock, type MigrationSession } from "../store/migrate.ts";
import { createKeyring, keyCheckPlace, sealKeyCheck, verifyKeyring } from "../vault/keyring.ts";
import { isOldFormat, openOldFormat } from "../vault/old-format.ts";
import { resealDatabase, resealSpools, type Resealing } from "./reseal.ts";

/** What this process's own folder remembers: that it has seen a database of the sealed format. */
export type FormatMemory = { isKept(): boolean; keep(): Promise<void> };

/** A file of `DATA_DIR`. Whoever deletes it lets a database from before be taken once more. */
export function createFormatMemory(path: string): FormatMemory {
  return {
    isKept: () => existsSync(path),
    keep: async () =>
      await writeFile(path, "2\n", { mode: 0o600, flush: true }).catch((error: NodeJS.ErrnoException) => {
        throw new StartupError(`DATA_DIR: ${path} cannot be written (${error.code})`);
      }),
  };
}

export type SealedFormatParts = {
  keys: readonly { id: string; key: Buffer }[];
  definitions: Resealing["definitions"];
  onSetAside: Resealing["onSetAside"];
  memory: FormatMemory;
  /** The spool in this process's own folder. */
  files: SpoolPlace;
  /** The spool that all replicas share; null: there is none. @throws StartupError when it does not answer */
  shared: () => Promise<(SpoolPlace & AsyncDisposable) | null>;
};

/**
 * Makes sure that a database has sealed format 2, in which secrets are bound to where they are sent and rows are proven, and that
 * this keyring fits it. Called at every start, on a session of its own, after the migrations and under their lock.
 *
 * The mark is the check record of each key in `encryption_keys`: from the first one in the new form on, the old one is refused for
 * good. All is sealed anew in one transaction together with the marks: a start that dies on the way leaves the database as it was,
 * and the next one begins again. What a database tells of itself (docs/decisions/0017):
 *
 * | `encryption_keys`        | elsewhere                     | it is                                              |
 * | ------------------------ | ----------------------------- | -------------------------------------------------- |
 * | empty                    | empty                         | new: it begins with the mark                       |
 * | empty                    | anything                      | robbed of its marks: refused                       |
 * | old form                 | nothing of the new form       | from before: sealed anew, unless this folder knows better |
 * | old form                 | anything of the new form      | robbed of its marks: refused                       |
 * | new form                 |                               | ready; a key that is new here gets its mark        |
 *
 * @throws StartupError for what the operator must look at
 */
export async function establishSealedFormat(session: MigrationSession, parts: SealedFormatParts): Promise<void> {
  await session.execute("BEGIN");
  try {
    await session.query("SELECT pg_advisory_xact_lock($1)::text", [migrationLock]);
    await establish(session, parts);
    await session.execute("COMMIT");
  } catch (error) {
    await session.execute("ROLLBACK").catch(() => undefined); // a lost connection has rolled back already
    throw error;
  }
  if (!parts.memory.isKept()) await parts.memory.keep();
}

async function establish(session: MigrationSession, parts: SealedFormatParts): Promise<void> {
  const { keys, memory, files } = parts;
  const keyring = createKeyring(keys);
  const marks = await session.query<{ id: string; check: Uint8Array }>(
    `SELECT id, check_sealed AS "check" FROM encryption_keys`,
  );
  const resealing: Resealing = {
    session,
    keyring,
    definitions: parts.definitions,
    onSetAside: parts.onSetAside,
    openOld: opener(keys),
  };
  if (marks.length === 0) {
    if (await finds(session, anything)) throw robbed("its table encryption_keys is empty, and other tables are not");
  } else if (marks.every(({ check }) => isOldFormat(check))) {
    verifyOldMarks(keys, marks);
    if (await finds(session, anythingNew)) {
      throw robbed("its encryption_keys have the form from before, and other rows do not");
    }
    if (memory.isKept()) {
      throw robbed(
        "its encryption_keys have the form from before; delete the file sealed-format in DATA_DIR if it is an old backup",
      );
    }
    await using shared = await parts.shared();
    await resealDatabase(resealing);
    await resealSpools(resealing, shared === null ? [files] : [files, shared]);
    await session.execute("DELETE FROM encryption_keys");
  } else {
    verifyKeyring(keyring, marks);
    // A folder from before, of another replica than the one that has sealed the database anew.
    if (!memory.isKept()) await resealSpools(resealing, [files]);
  }
  for (const key of keys) {
    await session.query("INSERT INTO encryption_keys (id, check_sealed) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", [
      key.id,
      sealKeyCheck(key),
    ]);
  }
}

const tables = ["api_keys", "clients", "connections", "consent_links", "held_grants"];
const anything = tables.map((table) => `EXISTS (SELECT 1 FROM ${table})`);
const sealedColumns = {
  clients: ["secret_sealed"],
  connections: ["access_token_sealed", "refresh_token_sealed", "credentials_sealed"],
  candidates: ["record_sealed"],
  unread_answers: ["answer_sealed"],
  held_grants: ["record_sealed"],
};
/** The first byte of a record is its format; each look stops at the first row that is found. */
const anythingNew = [
  ...tables.map((table) => `EXISTS (SELECT 1 FROM ${table} WHERE mac IS NOT NULL)`),
  ...Object.entries(sealedColumns).flatMap(([table, columns]) =>
    columns.map((column) => `EXISTS (SELECT 1 FROM ${table} WHERE substr(${column}, 1, 1) = '\\x02')`),
  ),
];

async function finds(session: MigrationSession, conditions: readonly string[]): Promise<boolean> {
  const [row] = await session.query<{ found: boolean }>(`SELECT ${conditions.join(" OR ")} AS found`);
  return row?.found === true;
}

function robbed(what: string): StartupError {
  return new StartupError(
    `DATABASE_URL (or DATA_DIR, without one): the database has lost the mark of its sealed format: ${what}. Somebody may have changed it by hand: restore a backup, see docs/security.md`,
  );
}

function opener(keys: SealedFormatParts["keys"]): Resealing["openOld"] {
  const byId = new Map(keys.map(({ id, key }) => [id, key]));
  return (record, place) => openOldFormat(record, (id) => byId.get(id), place);
}

function verifyOldMarks(keys: SealedFormatParts["keys"], marks: readonly { id: string; check: Uint8Array }[]): void {
  const openOld = opener(keys);
  const open = (record: Uint8Array, id: string) => openOld(record, keyCheckPlace(id));
  verifyKeyring({ ids: keys.map(({ id }) => id), open: (record, place) => open(record, place.row) }, marks);
}
