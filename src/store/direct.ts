/** A statement, and the name under which each session keeps it prepared. A name stands for one text. */
export type Statement = { name: string; text: string };

/**
 * Asks a statement past Prisma's client, which costs more than all the rest of a read. Only for what is asked all the time, and for columns of
 * these types and lists of texts. @throws as Prisma's client does here: BrokerError storage_unavailable, DatabaseBusyError
 */
export type Direct = <Row>(statement: Statement, values: readonly unknown[]) => Promise<Row[]>;

const types = { bool: 16, bytea: 17, int4: 23, text: 25, timestamptz: 1184, jsonb: 3802 } as const;

/**
 * By the number of its type, what a column's text stands for: the same value that Prisma's client makes of it
 * (test/contract/store/direct.ts). Lists of texts are left to the driver.
 */
export const parsers: Readonly<Record<number, (text: string) => unknown>> = {
  [types.bool]: (text) => text === "t",
  [types.int4]: Number,
  [types.text]: (text) => text,
  [types.jsonb]: (text) => JSON.parse(text) as unknown,
  [types.timestamptz]: dateOf,
  // A copy, since the driver's bytes are part of a larger piece of memory that would live as long.
  [types.bytea]: (text) => new Uint8Array(Buffer.from(text.slice(2), "hex")),
};

/** Sessions are in UTC (`settings`). What does not fit into a Date is no number; `withoutOddDates` replaces it. */
function dateOf(text: string): Date {
  return new Date(text.replace(" ", "T").replace(/\+00$/, "Z"));
}
