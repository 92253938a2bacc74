import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkProviderFile } from "../../src/providers/load/catalog.ts";
import { folderOf } from "../unit/providers/definitions.ts";
import { type Setting, settingsOfSchema, type PathStep } from "./support/schema-settings.ts";

const settings = settingsOfSchema();
const folder = folderOf({});
const file = join(folder, "own.yaml");

/** The problems of a file in which `key` stands in the place of a setting; and where it stands. */
function problemsWith({ steps }: Setting, key: string, value: string): { at: string; problems: string[] } {
  const lines = ["id: own", ...linesTo(steps.slice(0, -1), `${key}: ${value}`)];
  writeFileSync(file, lines.join("\n"));
  const last = lines.at(-1) ?? "";
  return {
    at: `${file}:${lines.length}:${last.lastIndexOf(`${key}:`) + 1}`,
    problems: checkProviderFile(file, { builtinFolder: folder, extraFolder: null }),
  };
}

function linesTo(steps: readonly PathStep[], last: string, indent = ""): string[] {
  const [step, ...rest] = steps;
  if (step === undefined) return [`${indent}${last}`];
  if (step === "item") {
    const [first = "", ...others] = linesTo(rest, last, `${indent}  `);
    return [`${indent}- ${first.trimStart()}`, ...others];
  }
  return [`${indent}${step === "entry" ? "some_name" : step.key}:`, ...linesTo(rest, last, `${indent}  `)];
}

const middle = (name: string) => Math.floor(name.length / 2);
const dropped = (name: string) => name.slice(0, middle(name)) + name.slice(middle(name) + 1);
const swapped = (name: string) => {
  const at = middle(name);
  return name.slice(0, at - 1) + name.charAt(at) + name.charAt(at - 1) + name.slice(at + 1);
};

/** The settings for which no problem says what it should, where it should. */
function unexplained(wrong: (setting: Setting) => string, advice: (setting: Setting) => string): string[] {
  return settings.flatMap((setting) => {
    const key = wrong(setting);
    if (setting.siblings.includes(key)) return [];
    const { at, problems } = problemsWith(setting, key, "x");
    const told = problems.filter(
      (problem) => problem.startsWith(`${at}: `) && problem.includes(`unknown setting \`${key}\``),
    );
    return told.some((problem) => problem.includes(advice(setting)))
      ? []
      : [`${setting.path} as ${key}: ${problems.join("; ")}`];
  });
}

describe("a setting that is misspelt", () => {
  test("by a letter that is lacking is refused at its line and column, and the right one is named", () => {
    expect(
      unexplained(
        ({ name }) => dropped(name),
        ({ name }) => `did you mean \`${name}\`?`,
      ),
    ).toEqual([]);
  }, 60_000);

  test("by two letters the wrong way round is refused so too, however short it is", () => {
    expect(
      unexplained(
        ({ name }) => swapped(name),
        ({ name }) => `did you mean \`${name}\`?`,
      ),
    ).toEqual([]);
  }, 60_000);

  test("beyond recognition is refused with the names that are known there", () => {
    expect(
      unexplained(
        () => "qqqqqqqqqq",
        ({ siblings }) => `known here: ${siblings.join(", ")}`,
      ),
    ).toEqual([]);
  }, 60_000);
});

describe("a value that is none of those allowed", () => {
  const closed = settings.flatMap((setting) => {
    const allowed = allowedBy(setting);
    return allowed.length > 0 ? [{ path: setting.path, setting, allowed }] : [];
  });

  test("there are many such settings", () => {
    expect(closed.length).toBeGreaterThan(80);
  });

  test("is refused at its setting, with all that are allowed", () => {
    const wrong = closed.filter(({ setting, allowed }) => {
      const { at, problems } = problemsWith(
        setting,
        setting.name,
        setting.schema["type"] === "array" ? "[nonsense]" : "nonsense",
      );
      const [line] = at.slice(file.length + 1).split(":");
      const told = problems.filter((problem) => problem.startsWith(`${file}:${line}:`)).join("\n");
      return !allowed.every((value) => told.includes(value));
    });
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});

/** The values of a setting that takes one of a few: an enum, a list of such, or a pattern of names alone. */
function allowedBy({ schema }: Setting): string[] {
  const { enum: values, items, pattern } = schema;
  if (Array.isArray(values)) return values.filter((value) => typeof value === "string");
  if (typeof items === "object" && items !== null && "enum" in items && Array.isArray(items.enum)) return items.enum;
  const names = /^\^\(?([a-z_|]+)\)?\$$/.exec(typeof pattern === "string" ? pattern : "")?.[1];
  return names?.split("|") ?? [];
}
