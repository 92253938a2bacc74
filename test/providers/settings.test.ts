import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { describe, expect, test } from "vitest";
import { defineFrom } from "./settings/base.ts";
import { elsewhere, pending } from "./settings/elsewhere.ts";
import { observeAnswers } from "./settings/observe-answers.ts";
import { observeRequests } from "./settings/observe-requests.ts";
import type { Change, Row } from "./settings/row.ts";
import { rows } from "./settings/table.ts";
import type { Observed } from "./settings/values.ts";
import { settingsOfSchema, type Setting, type PathStep } from "./support/schema-settings.ts";

const settings = settingsOfSchema();
const root = join(import.meta.dirname, "../..");

describe("the table of settings", () => {
  test("has a row for every setting of the schema, and none for another", () => {
    const shown = new Set([...rows, ...elsewhere, ...pending].map(({ setting }) => setting));
    expect(settings.filter(({ isLeaf, path }) => isLeaf && !shown.has(path)).map(({ path }) => path)).toEqual([]);
    expect([...shown].filter((path) => !settings.some((setting) => setting.path === path))).toEqual([]);
  });

  test("no setting waits for its proof", () => {
    expect(pending, "write the test and name it in settings/elsewhere.ts").toEqual([]);
  });

  test.each(elsewhere)("$setting is proved by $test: $title", ({ test: file, title }) => {
    expect(readFileSync(join(root, file), "utf8")).toContain(title);
  });
});

describe.each(rows.map((row, index) => ({ row, name: `${index + 1}: ${row.setting}` })))("row $name", ({ row }) => {
  test("its file sets the setting, and it shows something", () => {
    const known = settings.find(({ path }) => path === row.setting);
    expect(known && isSet(parse(row.file), known.steps)).toBe(true);
    expect(row.shows).not.toEqual({});
  });

  test(`changes ${Object.keys(row.shows).join(", ")}, and nothing else`, async () => {
    expect(await changesOf(row)).toEqual(row.shows);
  });
});

async function changesOf({ base = "full", file, instead = "" }: Row): Promise<Record<string, Change>> {
  const [before, after] = await Promise.all([observe(base, instead), observe(base, file)]);
  const names = Object.keys({ ...before, ...after }).filter((name) => before[name] !== after[name]);
  return Object.fromEntries(names.map((name) => [name, [before[name] ?? "", after[name] ?? ""]]));
}

const seen = new Map<string, Promise<Observed>>();

/** The bases are looked at often: once is enough. */
function observe(base: NonNullable<Row["base"]>, piece: string): Promise<Observed> {
  const key = `${base} ${piece}`;
  const known = seen.get(key) ?? observeAnew(base, piece);
  seen.set(key, known);
  return known;
}

async function observeAnew(base: NonNullable<Row["base"]>, piece: string): Promise<Observed> {
  const definition = defineFrom(base, piece);
  return { ...(await observeRequests(definition)), ...observeAnswers(definition) };
}

function isSet(value: unknown, steps: Setting["steps"]): boolean {
  const [step, ...rest] = steps;
  if (step === undefined) return value !== undefined;
  if (typeof value !== "object" || value === null) return false;
  return innerOf(value, step).some((inner) => isSet(inner, rest));
}

function innerOf(value: object, step: PathStep): unknown[] {
  if (typeof step === "object") return Object.hasOwn(value, step.key) ? [Reflect.get(value, step.key)] : [];
  return Object.values(value);
}
