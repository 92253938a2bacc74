import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { actorKinds, auditActions } from "../../../src/audit/entries.ts";
import { errorCodes } from "../../../src/errors.ts";
import { connectionSchema, eventSchema, tokenSchema } from "../../../src/http/connection-answers.ts";
import { problemSchema } from "../../../src/http/schemas.ts";
import { attentionCodes } from "../../../src/services/attention.ts";
import { eventTypes } from "../../../src/store/token-row.ts";
import { warningCodes } from "../../../src/tokens/read.ts";

const root = resolve(import.meta.dirname, "../../..");
const api = readFileSync(join(root, "docs/api.md"), "utf8");

/** Every name in the first column of the table that follows a line which holds this text. */
function documented(after: string): string[] {
  const [, rest = ""] = api.split(after, 2);
  const table = /\n((?:\|.*\n)+)/.exec(rest)?.[1] ?? "";
  const cells = table
    .split("\n")
    .slice(2)
    .map((line) => line.split("|")[1] ?? "");
  return cells.flatMap((cell) => [...cell.matchAll(/`([a-z_]+)`/g)].map(([, name = ""]) => name));
}

/** Every closed set that stands somewhere in a schema under this name. */
function setOf(schema: unknown, field: string): string[] {
  const found: string[] = [];
  JSON.stringify(schema, (key, value: unknown) => {
    const isSet = key === field && typeof value === "object" && value !== null && "enum" in value;
    if (isSet) found.push(...(value.enum as string[]));
    return value;
  });
  return found;
}

const { last_error, attention } = connectionSchema.properties;

test.each([
  ["error codes", setOf(problemSchema, "code"), documented("Errors (`code` of a problem)")],
  ["warnings", setOf(tokenSchema.properties.warnings, "code"), documented("Warnings (`warnings` of a token)")],
  ["attention", setOf(attention, "code"), documented("(`attention` of a connection")],
  ["last errors", setOf(last_error, "code"), documented("(`last_error.code`)")],
  ["types of events", setOf(eventSchema, "type"), documented("newest first. Its types:")],
])("docs/api.md lists exactly the %s of the OpenAPI document", (_what, listed, told) => {
  expect(listed.length).toBeGreaterThan(2);
  expect(told.toSorted()).toEqual(listed.toSorted());
});

test("docs/audit.md lists exactly the actions and the kinds of actors of the audit", () => {
  const page = readFileSync(join(root, "docs/audit.md"), "utf8");
  const inTable = (heading: RegExp, name: RegExp) => {
    const table = page.split(heading, 2)[1]?.split("\n\n", 1)[0] ?? "";
    return [...table.matchAll(name)].map(([, found = ""]) => found).toSorted();
  };
  expect(inTable(/^\| action +\|.*$/m, /^\| `([a-z.]+)`/gm)).toEqual(Object.keys(auditActions).toSorted());
  expect(inTable(/^\| `actor\.kind` +\|.*$/m, /^\| `([a-z]+)`/gm)).toEqual(actorKinds.toSorted());
});

const lists = new Set(["src/errors.ts", "src/store/token-row.ts", "src/providers/oauth/token-answer.ts"]);
const paths = globSync("src/**/*.ts", { cwd: root }).filter((path) => !path.includes("generated"));
const read = (path: string) => readFileSync(join(root, path), "utf8");

test("no code, warning or type of event is listed that nothing gives", () => {
  const text = paths
    .filter((path) => !lists.has(path))
    .map(read)
    .join("\n");
  const used = new Set([...text.matchAll(/["']([a-z_]+)["']/g)].map(([, name]) => name));
  const listed = [...errorCodes, ...warningCodes, ...attentionCodes, ...eventTypes];
  expect(listed.filter((name) => !used.has(name))).toEqual([]);
});

test("every event that a statement adds by itself is of a type that is listed", () => {
  const text = paths.map(read).join("\n");
  const types = [...text.matchAll(/INSERT INTO connection_events[^`]*?'([a-z_]+)'/g)].map(([, type]) => type);
  expect(types.length).toBeGreaterThan(3);
  expect(types.filter((type) => !eventTypes.some((known) => known === type))).toEqual([]);
});
