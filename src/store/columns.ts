import { Prisma as Sql } from "../generated/prisma/client.ts";

/** The SQL by which each property of a row is read. A property without a column does not compile, and neither does a column without a property. */
export type Columns<Row> = Readonly<Record<keyof Row, string>>;

/**
 * These columns, for the end of a SELECT or a RETURNING. Holds constants of the source only, never a value. `prefix`: stands before
 * their names, where another table's columns are beside them.
 */
export function selectList(columns: Readonly<Record<string, string>>, prefix = ""): Sql.Sql {
  return Sql.raw(
    Object.entries(columns)
      .map(([name, sql]) => `${sql} AS "${prefix}${name}"`)
      .join(", "),
  );
}

/** Takes apart a row that was read with such a prefix: what these columns gave, and the rest. */
export function takeJoined<Part, Joined extends object>(
  columns: Columns<Part>,
  prefix: string,
  joined: Joined,
): [Part, Joined] {
  const rest = { ...joined } as Record<string, unknown>;
  const part: Record<string, unknown> = {};
  for (const name of Object.keys(columns)) {
    part[name] = rest[`${prefix}${name}`];
    delete rest[`${prefix}${name}`];
  }
  return [part as Part, rest as Joined];
}
