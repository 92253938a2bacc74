import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createDatabaseHealth, openPostgres } from "../../src/store/database.ts";
import { until } from "../support/patience.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { connectExpired, granted, RefreshBench } from "./refresh/bench.ts";
import { StoreStage } from "./store/stage.ts";

type Query = (this: Client, ...given: unknown[]) => unknown;

/** How many turns of other work stand in the line of the event loop when the answer comes. */
const others = 50;

const order: string[] = [];
const query = Reflect.get(Client.prototype, "query") as Query;

/** pg writes a statement to its idle connection when it is asked. */
const noting: Query = function (this: Client, ...given) {
  const [asked] = given as [string | { text?: string }];
  const text = typeof asked === "string" ? asked : (asked.text ?? "");
  if (text.includes("stored_answers")) order.push("stored");
  return query.apply(this, given);
};

describeWithServices(["postgres"], "an answer goes first", () => {
  let stage: StoreStage;

  beforeAll(async () => {
    const health = createDatabaseHealth(() => performance.now());
    stage = new StoreStage(await openPostgres(await useDatabase(), health));
    Reflect.set(Client.prototype, "query", noting);
  });
  afterAll(async () => {
    Reflect.set(Client.prototype, "query", query);
    await stage.database.close();
  });

  /** Sessions that have done nothing since they got their settings. */
  const unusedSessions = async (): Promise<number> => {
    const [row] = await stage.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM pg_stat_activity
       WHERE datname = current_database() AND state = 'idle' AND query LIKE '%set_config(%'`,
    );
    return row?.count ?? 0;
  };

  it("the first of a process, too: what stores it is written before anything that waits for the loop's next turn", async () => {
    const bench = new RefreshBench(stage);
    const { id } = await connectExpired(stage);
    const answer = async () => {
      await until("a connection for the answer is open", async () => (await unusedSessions()) > 0);
      await new Promise<void>((resolve) => {
        setImmediate(() => {
          for (let index = 0; index < others; index++) setImmediate(() => order.push("other work"));
          order.push("answer");
          resolve();
        });
      });
      return granted();
    };
    order.length = 0; // what came before was stored, too
    expect((await bench.run(id, [answer])).kind).toBe("moved");
    expect(order.slice(0, 3)).toEqual(["answer", "stored", "other work"]);
  });
});
