import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../../..");
const find = (...patterns: string[]) =>
  globSync(patterns, { cwd: root, exclude: (path) => /(^|\/)(generated|node_modules)$/.test(path) });
const read = (path: string) => readFileSync(join(root, path), "utf8");

const pages = find("*.md", "docs/*.md", "docs/{decisions,internals}/*.md", "src/**/*.md", "test/*.md");
const sources = find("{src,scripts,bench}/**/*.ts", "test/**/*.ts", "prisma/schema.prisma");
const files = find("**/*.{ts,md}");
const isThere = (name: string) => files.some((file) => file === name || file.endsWith(`/${name}`));

const prose = (page: string) => read(page).replaceAll(/```[\s\S]*?```/g, "");

/** The comments of a source, where documents and other files are spoken of. */
const commentsOf = (path: string) =>
  [...read(path).matchAll(/\/\*[\s\S]*?\*\/|(?<![:"'`])\/\/.*/g)].map(([comment]) => comment).join("\n");

const slugOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\w\s-]/g, "")
    .replaceAll(" ", "-");

function leadsSomewhere(page: string, link: string): boolean {
  const [path = "", heading] = link.split("#");
  const target = path === "" ? page : join(dirname(page), path);
  if (!existsSync(join(root, target))) return false;
  const headings = () => [...read(target).matchAll(/^#+ (.+)$/gm)].map(([, text = ""]) => slugOf(text));
  return heading === undefined || headings().includes(heading);
}

describe("a document", () => {
  test("links only to files and headings that are there", () => {
    const broken = pages.flatMap((page) =>
      [...prose(page).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)]
        .map(([, link = ""]) => link)
        .filter((link) => !leadsSomewhere(page, link))
        .map((link) => `${page}: ${link}`),
    );
    expect(broken).toEqual([]);
  });
});

describe("documents and comments", () => {
  const texts = new Map([
    ...pages.filter((page) => page !== "CHANGELOG.md").map((page) => [page, prose(page)] as const),
    ...sources.map((path) => [path, commentsOf(path)] as const),
  ]);
  const inTexts = (pattern: RegExp, isWrong: (name: string) => boolean) =>
    [...texts].flatMap(([path, text]) =>
      [...text.matchAll(pattern)]
        .map(([, name = ""]) => name)
        .filter(isWrong)
        .map((name) => `${path}: ${name}`),
    );

  test("name only files that are there", () => {
    const named = /(?<![\w./@:-])((?:[\w.-]+\/)*[\w-]+(?:\.[a-z]+)*\.(?:ts|md))(?![\w-])/g;
    expect(inTexts(named, (name) => !isThere(name.replace(/^(\.\.?\/)+/, "")))).toEqual([]);
  });

  test("point to nothing that is not in this repository", () => {
    const outside = /(contract\.md|design-review|toolchain\.md|providers-facts|\bshared\/|[Ii]ssue #?\d+)/g;
    expect(inTexts(outside, () => true)).toEqual([]);
  });

  test("name steps and invariants of docs/refresh-protocol.md that are there", () => {
    const protocol = read("docs/refresh-protocol.md");
    const steps = [...protocol.matchAll(/^(\d+)\. \*\*/gm)].map(([, step]) => Number(step));
    const invariants = [...protocol.matchAll(/^- \*\*I(\d)\*\*/gm)].map(([, number = ""]) => number);
    expect(steps).toEqual(Array.from({ length: 11 }, (_, index) => index + 1));
    expect(invariants).toEqual(["1", "2", "3", "4", "5", "6"]);
    const wrong = [
      ...inTexts(/\b[Ss]teps? (\d+)\b/g, (step) => !steps.includes(Number(step))),
      ...inTexts(/\bI(\d)\b/g, (number) => !invariants.includes(number)),
    ];
    expect(wrong).toEqual([]);
  });

  test("name only durations of src/time.ts in the refresh protocol", () => {
    const named = [...read("docs/refresh-protocol.md").matchAll(/`([a-z][A-Za-z]+(?:Ms|Seconds))`/g)].map(
      ([, name = ""]) => name,
    );
    expect(named.length).toBeGreaterThan(8);
    expect(named.filter((name) => !new RegExp(`\\b${name}:`).test(read("src/time.ts")))).toEqual([]);
  });
});
