import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tokenColumns } from "../../../src/store/token-row.ts";
import type { StoreStage } from "./stage.ts";

/** Texts of each type that a direct SELECT may have. Prisma's client says what each stands for. */
const texts = {
  text: fc.string({ unit: "binary" }).map((text) => text.replaceAll(/[\0\p{Surrogate}]/gu, "")),
  bool: fc.constantFrom("true", "false"),
  int4: fc.integer().map(String),
  timestamptz: fc.oneof(
    fc
      .date({ noInvalidDate: true, min: new Date("0001-01-01"), max: new Date("9999-12-31") })
      .map((at) => at.toISOString()),
    fc.constantFrom(
      "infinity",
      "-infinity",
      "0044-03-15 12:00:00 BC",
      "0001-01-01",
      "12026-01-01",
      "294276-12-31",
      "2026-11-29 05:00:00.123456",
      "2026-11-29 05:00:00.1+05:30",
      "epoch",
    ),
  ),
  jsonb: fc
    .oneof(
      fc.dictionary(fc.string(), fc.string()),
      fc.json().map((json) => JSON.parse(json) as unknown),
    )
    .map((value) => JSON.stringify(value).replaceAll(/\\u0000|\\ud[89a-f]../gi, "")),
  bytea: fc.uint8Array({ maxLength: 300 }).map((bytes) => String.raw`\x${Buffer.from(bytes).toString("hex")}`),
  "text[]": fc
    .array(fc.option(fc.constantFrom("", "a", "null", "NULL", 'q"q', "b\\b", "{}", ",", " é ☃ 😀 ", "two words")))
    .map((list) => `{${list.map((each) => (each === null ? "NULL" : JSON.stringify(each))).join(",")}}`),
} satisfies Record<string, fc.Arbitrary<string>>;

/** In columns that may be null, and in one that may not: a time that fits into no Date is read as null or as long ago. */
const names = ["expiresAt", "backoffUntil", "value"];

export function direct(stage: () => StoreStage): void {
  describe("a direct SELECT", () => {
    for (const [type, text] of Object.entries(texts)) {
      it(`gives for each ${type} the value, of the type, that Prisma's client gives`, async () => {
        const { database, share } = stage();
        await fc.assert(
          fc.asyncProperty(fc.option(text), async (value) => {
            const list = names.map((name) => `$1::text::${type} AS "${name}"`).join(", ");
            const statement = { name: `a ${type}`, text: `SELECT ${list}` };
            const ours = await database.direct<object>(statement, [value]);
            expect(ours).toStrictEqual(await database.prisma.$queryRawUnsafe(statement.text, value));
          }),
          { numRuns: 200 * share },
        );
      });
    }

    it("gives of a connection the row that Prisma's client gives", async () => {
      const { rows, database } = stage();
      const plain = await stage().connect({
        labels: { customer: "acme" },
        scopes: ["a b", 'c"'],
        inputs: { shop: "north" },
      });
      const odd = await stage().connect({ name: `odd ' " \\ é-${randomUUID()}` });
      await stage().set(
        odd.id,
        `expires_at = 'infinity', issued_at = '0044-01-01 BC', refresh_token_sealed = '', captured = '{"a": "é ☃"}', keep_alive_at = now()`,
      );
      const wanted = [plain.name, odd.name];
      const ours = await rows.readByName([...wanted, "nobody"]);
      const theirs = await database.prisma.$queryRaw<{ name: string }[]>`
        SELECT ${tokenColumns} FROM connections c WHERE c.name = ANY(${wanted}::text[])`;
      expect(ours).toHaveLength(2);
      for (const { row, asOf } of ours) {
        const now = expect.any(Date) as Date;
        expect({ ...row, now }).toStrictEqual({ ...theirs.find(({ name }) => name === row.name), now, asOf });
      }
    });

    it("tells the fault of a statement as it is", async () => {
      const { database } = stage();
      const fault = { name: "a fault", text: "SELECT 1 / 0 AS quotient" };
      await expect(database.direct(fault, [])).rejects.toThrow("division by zero");
    });
  });
}
