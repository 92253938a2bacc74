import { gatherWork } from "../concurrency.ts";
import { isStorageUnavailable } from "../errors.ts";
import type { Prisma as Sql } from "../generated/prisma/client.ts";
import { storeTimes } from "../time.ts";
import type { Direct } from "./direct.ts";
import type { TokenRow } from "./token-row.ts";

type Together<Item> = {
  direct: Direct;
  name: string;
  /** Its first value is the JSON list of what is asked for. It waits for no locked row, and returns the rows that it has changed. */
  sql: Sql.Sql;
  given: (item: Item) => unknown;
  attemptOf: (item: Item) => string;
  /** The attempt for which a row was changed. */
  attemptIn: (row: TokenRow) => string | null;
};

/**
 * One statement for all that is asked for while another such statement is under way: most of what a statement costs, here and in Postgres, is not
 * for its rows. Null: it was left out, since its row is locked or not as it must be, or the statement has failed. Then it is asked for alone, so that
 * none stands in the way of another. @throws BrokerError storage_unavailable
 */
export function createTogether<Item>({ direct, name, sql, given, attemptOf, attemptIn }: Together<Item>) {
  const { text } = sql;
  const [, ...values] = sql.values;
  const ask = gatherWork<Item, ReadonlyMap<Item, TokenRow>>(
    async (items) => {
      // Of several for one attempt one goes with the others, so that it is known whose the row is.
      const asked = new Map(items.map((item) => [attemptOf(item), item]));
      const rows = await direct<TokenRow>({ name, text }, [JSON.stringify([...asked.values()].map(given)), ...values]);
      return new Map(rows.map((row) => [asked.get(attemptIn(row) ?? "") as Item, row]));
    },
    { patienceMs: storeTimes.togetherMs },
  );
  return async (item: Item): Promise<TokenRow | null> => {
    try {
      return (await ask(item)).get(item) ?? null;
    } catch (error) {
      if (isStorageUnavailable(error)) throw error;
      return null;
    }
  };
}
