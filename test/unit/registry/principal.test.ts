import * as fc from "fast-check";
import { expect, it } from "vitest";
import { likePatterns, mayUse, type Principal } from "../../../src/registry/principal.ts";

const withPatterns = (...connections: string[]): Principal => ({ keyId: "k", abilities: ["tokens"], connections });

it.each([
  ["acme-bol", "acme-bol", true],
  ["acme-bol", "acme-bol2", false],
  ["acme-*", "acme-bol", true],
  ["acme-*", "acme-", true],
  ["acme-*", "acme", false],
  ["*", "anything", true],
  ["*-bol", "acme-bol", true],
  ["*-bol", "acme-bol-2", false],
  ["a*b*c", "a-b-b-c", true],
  ["a*b*c", "a-c-b", false],
  ["ab*ba", "aba", false],
  ["ab*ba", "abba", true],
  ["a**b", "ab", true],
  ["acme_bol", "acme-bol", false],
  ["acme.bol", "acme-bol", false],
  ["acme%", "acme-bol", false],
  ["", "acme", false],
])("the pattern %s and the name %s: %s", (pattern, name, covers) => {
  expect(mayUse(withPatterns(pattern), name)).toBe(covers);
});

it("one of several patterns is enough, and none covers nothing", () => {
  expect(mayUse(withPatterns("beta-*", "acme-*"), "acme-bol")).toBe(true);
  expect(mayUse(withPatterns("beta-*", "gamma"), "acme-bol")).toBe(false);
  expect(mayUse(withPatterns(), "acme-bol")).toBe(false);
});

it("a pattern covers what the regular expression of the same meaning does", () => {
  const piece = fc.constantFrom("a", "b", "ab", ".", "_", "%", "\\", "-");
  const texts = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(""));
  const patterns = fc.array(fc.oneof(piece, fc.constant("*")), { maxLength: 8 }).map((pieces) => pieces.join(""));
  const property = fc.property(patterns, texts, (pattern, name) => {
    const expression = pattern.replaceAll(/[.\\-]/g, String.raw`\$&`).replaceAll("*", ".*");
    expect(mayUse(withPatterns(pattern), name)).toBe(new RegExp(`^${expression}$`, "s").test(name));
  });
  fc.assert(property, { numRuns: 3000 });
});

it("for SQL's LIKE a star becomes a percent sign, and LIKE's own characters stand for themselves", () => {
  expect(likePatterns(withPatterns("acme-*", "a_b%c\\d*"))).toEqual(["acme-%", String.raw`a\_b\%c\\d%`]);
});
