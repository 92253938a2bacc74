import { expect, it } from "vitest";
import { deafHealth, openPostgres } from "../../src/store/database.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";

describeWithServices(["postgres"], "a statement that sessions keep prepared", () => {
  it("is answered after somebody has changed its table, or has told the sessions to forget it", async () => {
    const databaseUrl = await useDatabase();
    await query(databaseUrl, "CREATE TABLE things (value int)");
    await query(databaseUrl, "INSERT INTO things VALUES (1)");
    const database = await openPostgres(databaseUrl, deafHealth);
    // So many at once that every session of the pool has some.
    const read = async () => {
      const asked = Array.from({ length: 200 }, () =>
        database.direct({ name: "things", text: "SELECT * FROM things" }, []),
      );
      return new Set((await Promise.all(asked)).map((rows) => JSON.stringify(rows)));
    };
    expect(await read()).toEqual(new Set(['[{"value":1}]']));
    await query(databaseUrl, "ALTER TABLE things ALTER value TYPE text");
    expect(await read()).toEqual(new Set(['[{"value":"1"}]']));
    await Promise.all(Array.from({ length: 200 }, () => database.prisma.$executeRawUnsafe("DEALLOCATE ALL")));
    expect(await read()).toEqual(new Set(['[{"value":"1"}]']));
    await database.close();
  });

  it("is answered, too, when another text comes under its name", async () => {
    const database = await openPostgres(await useDatabase(), deafHealth);
    const ask = async (text: string) => await database.direct({ name: "one name", text }, []);
    const asked = ["SELECT 1 AS one", "SELECT 2 AS two", "SELECT 1 AS one"];
    expect([await ask(asked[0] ?? ""), await ask(asked[1] ?? ""), await ask(asked[2] ?? "")]).toEqual([
      [{ one: 1 }],
      [{ two: 2 }],
      [{ one: 1 }],
    ]);
    await database.close();
  });
});
