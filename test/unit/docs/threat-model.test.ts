import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { guards } from "../../campaign/guards.ts";

const root = resolve(import.meta.dirname, "../../..");
const read = (path: string) => readFileSync(join(root, path), "utf8");

/** The rows of the tables of threats, whose last two cells name a test and a guard. */
const rows = read("docs/internals/threat-model.md")
  .split("\n")
  .map((line) =>
    line
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("\\|", "|")),
  )
  .filter((cells) => cells.length === 4 && cells[0] !== "threat" && !/^-+$/.test(cells[0] ?? ""));

/** The file and a part of the name of the test. */
const namedIn = (cell: string) => /^`(test\/\S+\.ts)`: “(.+)”$/.exec(cell)?.slice(1) ?? [];

describe("the threat model", () => {
  test("names for each threat a test that is there, by its file and a part of its name", () => {
    expect(rows.length).toBeGreaterThan(60);
    const wrong = rows.flatMap(([threat = "", , cell = ""]) => {
      if (cell === "-") return [];
      const [file = "", name = ""] = namedIn(cell);
      const isThere = file !== "" && name.length > 20 && existsSync(join(root, file)) && read(file).includes(name);
      return isThere ? [] : [`${threat}: ${cell}`];
    });
    expect(wrong).toEqual([]);
  });

  test("names only guards that are there, and says what has no test of its own in one row at most", () => {
    const known = new Set(guards.map(({ name }) => name));
    expect(rows.map(([, , , guard = ""]) => guard).filter((guard) => guard !== "-" && !known.has(guard))).toEqual([]);
    expect(rows.filter(([, , cell]) => cell === "-").length).toBeLessThanOrEqual(1);
  });
});
