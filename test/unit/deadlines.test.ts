import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");
/** Words of code that a slow machine could change the result of: a wait, a limit, or a look at a clock. */
const time =
  /\bsleep\(|setTimeout\(|setInterval\(|[tT]imeout\w*\s*[:=]|Date\.now\(\)|performance\.now\(\)|AbortSignal\.timeout|\bhangMs\b|\bpatience\b|\buntil\(/;

function linesWithTime(path: string): number {
  return readFileSync(join(root, path), "utf8")
    .split("\n")
    .filter((line) => time.test(line)).length;
}

test("test/deadlines.md lists every line of the tests that has a time in it, with why a slow machine does not fail it", () => {
  const paths = [...globSync("test/**/*.ts", { cwd: root }), "vitest.config.ts"].sort();
  const found = paths.map((path) => [path, linesWithTime(path)] as const).filter(([, count]) => count > 0);
  const rows = [
    ...readFileSync(join(root, "test/deadlines.md"), "utf8").matchAll(
      /^\| `?([\w./-]+\.ts)`? +\| +(\d+) +\| +(\S.*?) +\|$/gm,
    ),
  ];
  const listed = rows.map(([, path = "", count]) => [path, Number(count)] as const);
  expect(Object.fromEntries(listed)).toEqual(Object.fromEntries(found));
  expect(rows.length, "a file stands there twice").toBe(new Set(listed.map(([path]) => path)).size);
});
