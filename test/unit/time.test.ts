import { globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { misfitsOf, times, type Times } from "../../src/time.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const sources = globSync("src/**/*.ts", { cwd: root })
  .map((file) => file.replaceAll("\\", "/"))
  .filter((file) => file !== "src/time.ts" && !file.startsWith("src/generated/"))
  .map((file) => ({ file, text: readFileSync(root + file, "utf8") }));

/** The times with one group changed. */
const changed = <Group extends keyof Times>(group: Group, values: Partial<Times[Group]>): Times => ({
  ...times,
  [group]: { ...times[group], ...values },
});

/** `30_000` as `30 s`, `100` as `100 ms`: how documents write a duration. */
const written = (name: string, value: number): string => {
  const ms = name.endsWith("Seconds") ? value * 1000 : value;
  return ms % 1000 === 0 ? `${ms / 1000} s` : `${ms} ms`;
};

describe("the table of times in docs/refresh-protocol.md", () => {
  const all: Record<string, number> = Object.assign({}, ...Object.values(times));
  const [, section = ""] = readFileSync(root + "docs/refresh-protocol.md", "utf8").split("\n## Times\n");
  const lines = [...section.split("\n## ")[0]!.matchAll(/^\| (`.+?) +\| (.+?) +\|/gm)];

  test("has the values of src/time.ts", () => {
    expect(lines.length).toBeGreaterThan(8);
    for (const [, names = "", values = ""] of lines) {
      const expected = [...names.matchAll(/`(\w+)`/g)].map(([, name = ""]) => written(name, all[name] ?? NaN));
      expect(values, names).toBe(expected.join(", "));
    }
  });
});

describe("durations", () => {
  test("fit to each other", () => {
    expect(misfitsOf(times)).toEqual([]);
  });

  test("that do not fit are named with both values and the reason", () => {
    expect(misfitsOf(changed("refresh", { leaseSeconds: 27 }))).toEqual([
      "refresh.sendWindowMs (2000 ms) + provider.callMs (25000 ms) must be < refresh.leaseSeconds (27 seconds): a request must end before its permit does",
    ]);
    expect(misfitsOf(changed("replica", { forgetHours: 23 }))).toEqual([
      "caller.keyTrustMaxSeconds (86400 seconds) must be <= replica.forgetHours (23 hours): a replica that may still trust a key is known",
    ]);
  });

  test("may be equal where nothing is lost by that", () => {
    expect(misfitsOf(changed("replica", { tellPatienceMs: 2500 }))).toEqual([]);
    expect(misfitsOf(changed("replica", { tellPatienceMs: 2499 }))).toHaveLength(1);
  });

  test("are frozen: nobody changes one while the broker runs", () => {
    expect(() => Object.assign(times.refresh, { leaseSeconds: 1 })).toThrow(TypeError);
  });

  test("stand in no other file of src", () => {
    const duration =
      /const (?:\w*(?:Ms|Seconds|Minutes|Hours|Days)|ms|seconds|minutes|hours|days) = \d[\d_ *]*;|interval '\d[^']*'|(?:retryAfterSeconds|TimeoutMillis): \d+/g;
    const found = sources.flatMap(({ file, text }) => [...text.matchAll(duration)].map(([each]) => `${file}: ${each}`));
    expect(found).toEqual([]);
  });

  test("have a user each", () => {
    const all = sources.map(({ text }) => text).join("\n");
    const unused = Object.values(times).flatMap((group) =>
      Object.keys(group).filter((name) => !new RegExp(`\\b${name}\\b`).test(all)),
    );
    expect(unused).toEqual([]);
  });
});
