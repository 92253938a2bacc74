import { expect, test } from "vitest";
import { coversMatch, fits, isMatched, type Match } from "../../../src/callers/claims.ts";

test.each<[pattern: string, text: string, does: boolean]>([
  ["repo:acme/shop:ref:refs/heads/main", "repo:acme/shop:ref:refs/heads/main", true],
  ["repo:acme/*:ref:refs/heads/main", "repo:acme/shop:ref:refs/heads/main", true],
  ["repo:acme*", "repo:acme-evil/shop:ref:refs/heads/main", false],
  ["repo:acme*", "repo:acme-evil", true],
  ["repo:acme/*", "repo:acme/shop:ref:refs/heads/main", false],
  ["repo:*/shop", "repo:acme/evil/shop", false],
  ["*", "a/b", false],
  ["*", "a:b", false],
  ["*", "", true],
  ["a*c*e", "abcde", true],
  ["a*c*e", "ace", true],
  ["a*ca", "aca", true],
  ["a*aa", "aa", false],
  ["system:serviceaccount:shop:*", "system:serviceaccount:shop:sync", true],
  ["system:serviceaccount:shop:*", "system:serviceaccount:shop-evil:sync", false],
  ["main*", "main\nevil", false],
  ["main*", "main\u0000", false],
  ["main", "MAIN", false],
  ["caf\u00e9", "cafe\u0301", false],
  ["a.c", "abc", false],
  ["a?c", "abc", false],
  ["[a]", "a", false],
])("the pattern %j and the text %j: %s", (pattern, text, does) => {
  expect(fits(pattern, text)).toBe(does);
});

const claims = {
  sub: "system:serviceaccount:shop:sync",
  groups: ["users", "shop"],
  run: 7,
  isProtected: true,
  nothing: null,
  "a/b": { "~": "deep" },
  "kubernetes.io": { namespace: "shop", pod: { name: "sync-1" } },
};

test.each<[match: Match, does: boolean]>([
  [{ sub: "system:serviceaccount:shop:sync" }, true],
  [{ sub: ["system:serviceaccount:shop:other", "system:serviceaccount:shop:s*"] }, true],
  [{ sub: "system:serviceaccount:shop:sync", groups: "shop" }, true],
  [{ sub: "system:serviceaccount:shop:sync", groups: "admins" }, false],
  [{ run: "7", isProtected: "true" }, true],
  [{ run: "7.0" }, false],
  [{ nothing: "*" }, false],
  [{ nothing: "null" }, false],
  [{ "kubernetes.io": "*" }, false],
  [{ "/kubernetes.io/namespace": "shop" }, true],
  [{ "/kubernetes.io/pod/name": "sync-*" }, true],
  [{ "/a~1b/~0": "deep" }, true],
  [{ "/kubernetes.io/missing": "*" }, false],
  [{ toString: "*" }, false],
  [{ "/__proto__/constructor": "*" }, false],
])("the match %j: %s", (match, does) => {
  expect(isMatched(match, claims)).toBe(does);
});

test.each<[wide: Match, narrow: Match, does: boolean]>([
  [{ sub: "a:*" }, { sub: "a:b" }, true],
  [{ sub: "a:*" }, { sub: "a:*" }, true],
  [{ sub: "a:b" }, { sub: "a:*" }, false],
  [{ sub: "a:*" }, { sub: "a:b", ref: "main" }, true],
  [{ sub: "a:*", ref: "main" }, { sub: "a:b" }, false],
  [{ sub: ["a", "b"] }, { sub: ["b", "a"] }, true],
  [{ sub: ["a", "b"] }, { sub: ["b", "c"] }, false],
  [{ sub: "a*" }, { sub: "*a" }, false],
])("the match %j covers %j: %s", (wide, narrow, does) => {
  expect(coversMatch(wide, narrow)).toBe(does);
});
