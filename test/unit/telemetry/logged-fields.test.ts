import { globSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { createLogger } from "../../../src/telemetry/logger.ts";

const root = `${import.meta.dirname}/../../../src/`;

/** The names of fields in calls such as `log.warn({ issuer, said: detail }, …)`. */
function fieldsOfCalls(): string[] {
  const sources = globSync("**/*.ts", { cwd: root }).filter((file) => !file.startsWith("generated/"));
  const text = sources.map((file) => readFileSync(root + file, "utf8")).join("\n");
  const calls = [...text.matchAll(/\blog\.(?:debug|info|warn|error)\(\s*\{([^{}]*)\}/g)];
  const fields = calls.flatMap(([, inner = ""]) => inner.split(",").map((field) => field.split(":")[0]?.trim() ?? ""));
  return [...new Set(fields)].filter((name) => /^\w+$/.test(name) && name !== "err");
}

test("every field that the code logs is on the allow-list: the others would be left out without a word", () => {
  const lines: string[] = [];
  const log = createLogger("debug", { write: (line) => void lines.push(line) });
  const fields = fieldsOfCalls();
  expect(fields).toEqual(expect.arrayContaining(["issuer", "refused", "said"]));
  for (const field of fields) log.debug({ [field]: "x" }, "text");
  const left = fields.filter((field, index) => !(field in (JSON.parse(lines[index] ?? "{}") as object)));
  expect(left).toEqual([]);
});
