import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { checkShape } from "../../../src/providers/load/check-definition.ts";
import { settingsOfSchema } from "../../providers/support/schema-settings.ts";

const docs = resolve(import.meta.dirname, "../../../docs");
const text = readFileSync(join(docs, "provider-format.md"), "utf8");
/** What stands as code: in a line, or in a block. */
const code = [...text.matchAll(/```[\s\S]*?```|`[^`\n]+`/g)].map(([piece]) => piece).join("\n");
const blocks = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, block = ""]) => block);

describe("docs/provider-format.md", () => {
  test("names every setting of the schema", () => {
    const unnamed = settingsOfSchema().filter(({ name }) => !new RegExp(`(?<![a-z_])${name}(?![a-z_])`).test(code));
    expect(unnamed.map(({ path }) => path)).toEqual([]);
  });

  test("names every value that a setting takes", () => {
    const values = settingsOfSchema().flatMap(({ schema }) => (Array.isArray(schema["enum"]) ? schema["enum"] : []));
    const unnamed = new Set(values.filter((value) => typeof value === "string" && !code.includes(value)));
    expect([...unnamed]).toEqual([]);
  });

  test("shows examples of every section at the top, all of the right shape", () => {
    const shown = blocks.map((block) => checkShape({ id: "own", ...(parse(block) as object) }));
    expect(shown.flatMap((shape) => ("problems" in shape ? shape.problems : []))).toEqual([]);
    const used = new Set(blocks.flatMap((block) => Object.keys(parse(block) as object)));
    const top = settingsOfSchema().filter(({ path }) => !path.includes("."));
    expect(top.filter(({ name }) => !used.has(name)).map(({ name }) => name)).toEqual([]);
  });

  test("links to files and headings that are there", () => {
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => link);
    const broken = links.filter((link) => {
      const [path = "", heading] = link.split("#");
      const file = join(docs, path === "" ? "provider-format.md" : path);
      return !existsSync(file) || (heading !== undefined && !slugsOf(readFileSync(file, "utf8")).has(heading));
    });
    expect(broken).toEqual([]);
  });
});

function slugsOf(page: string): Set<string> {
  const headings = [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => heading.toLowerCase());
  return new Set(headings.map((heading) => heading.replaceAll(/[^\w\s-]/g, "").replaceAll(" ", "-")));
}
