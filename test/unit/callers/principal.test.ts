import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DuplicateGrantError } from "../../../src/errors.ts";
import { binds, carries, type Labels } from "../../../src/labels.ts";
import {
  boundsOf,
  coversAll,
  coversName,
  isAdmin,
  likePatterns,
  mayUse,
  mayUseClient,
  namingHolders,
  type Principal,
  requireMayCover,
  requireMayGive,
  requireOwnLabels,
  requireUnbound,
  toldNames,
  unknownClient,
} from "../../../src/callers/principal.ts";

const withPatterns = (...connections: string[]): Principal => ({
  callerId: "k",
  labels: {},
  actor: { kind: "key", id: "k", name: null },
  abilities: ["tokens"],
  connections,
  expiresAt: null,
});

it.each([
  ["a key that covers the other connection is told its name", ["*"], /^The connection "acme-old" holds the same/],
  ["of several the one that it covers", ["b-*"], /^The connection "b-old" holds the same/],
  ["a key that covers none of them reads what everybody reads", ["c-*"], /^Another connection of this client holds/],
])("where a refresh token is held twice, %s", async (_case, patterns, said) => {
  const refused = new DuplicateGrantError("new", ["acme-old", "b-old"]);
  const told = await namingHolders(withPatterns(...patterns), () => Promise.reject(refused)).catch((error) => error);
  expect(told).toMatchObject({ code: "duplicate_grant", context: { connection: "new" } });
  expect(told.message).toMatch(said);
  expect(JSON.stringify([refused, refused.context])).not.toContain("old");
});

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
  expect(coversName(withPatterns(pattern), name)).toBe(covers);
});

it("one of several patterns is enough, and none covers nothing", () => {
  expect(coversName(withPatterns("beta-*", "acme-*"), "acme-bol")).toBe(true);
  expect(coversName(withPatterns("beta-*", "gamma"), "acme-bol")).toBe(false);
  expect(coversName(withPatterns(), "acme-bol")).toBe(false);
});

it("a pattern covers what the regular expression of the same meaning does", () => {
  const piece = fc.constantFrom("a", "b", "ab", ".", "_", "%", "\\", "-");
  const texts = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(""));
  const patterns = fc.array(fc.oneof(piece, fc.constant("*")), { maxLength: 8 }).map((pieces) => pieces.join(""));
  const property = fc.property(patterns, texts, (pattern, name) => {
    const expression = pattern.replaceAll(/[.\\-]/g, String.raw`\$&`).replaceAll("*", ".*");
    expect(coversName(withPatterns(pattern), name)).toBe(new RegExp(`^${expression}$`, "s").test(name));
  });
  fc.assert(property, { numRuns: 3000 });
});

it("for SQL's LIKE a star becomes a percent sign, and LIKE's own characters stand for themselves", () => {
  expect(likePatterns(withPatterns("acme-*", "a_b%c\\d*"))).toEqual(["acme-%", String.raw`a\_b\%c\\d%`]);
});

/** Whether somebody with the outer pattern may hand out the inner one. */
function mayGiveOut(outer: string, inner: string): boolean {
  try {
    requireMayCover(withPatterns(outer), [inner]);
    return true;
  } catch {
    return false;
  }
}

it.each([
  ["team-*", "team-a-*", true],
  ["team-*", "team-*", true],
  ["team-*", "team-", true],
  ["team-*", "team*", false],
  ["team-a-*", "team-*", false],
  ["team-a-*", "*", false],
  ["*", "*", true],
  ["*a*", "x*a", true],
  ["*a*", "a", true],
  ["*a*", "*", false],
  ["*a*", "*b*", false],
  ["a*b", "a*b*b", true],
  ["a*b", "a*b*", false],
  ["a*b*c", "a*c", false],
  ["a*c", "a*b*c", true],
  ["**", "*", true],
  ["*", "**", true],
  ["a", "a*", false],
  ["a", "a**", false],
  ["", "*", false],
])("whoever has %s may hand out %s: %s", (outer, inner, may) => {
  expect(mayGiveOut(outer, inner)).toBe(may);
});

it.each([
  [["*"], true],
  [["team-*", "**"], true],
  [["team-*"], false],
  [[], false],
])("whoever has %j may hand out no patterns at all, which count as *: %s", (own, may) => {
  const give = () => requireMayCover(withPatterns(...own), []);
  if (may) expect(give).not.toThrow();
  else expect(give).toThrow(/^connections: /);
});

it("a pattern that may be handed out covers no name beyond one's own, and one that may not covers such a name", () => {
  const piece = fc.constantFrom("a", "b", "ab", "-", ".");
  const patterns = fc
    .array(fc.oneof(piece, fc.constant("*")), { minLength: 1, maxLength: 6 })
    .map((pieces) => pieces.join(""));
  const fillings = fc.array(fc.array(piece, { maxLength: 4 }), { minLength: 6, maxLength: 6 });
  const property = fc.property(patterns, patterns, fillings, (outer, inner, texts) => {
    let star = 0;
    const name = inner.replaceAll("*", () => texts[star++]?.join("") ?? "");
    expect(coversName(withPatterns(inner), name)).toBe(true);
    if (mayGiveOut(outer, inner)) expect(coversName(withPatterns(outer), name)).toBe(true);
    // No pattern here holds a z, so only a star of the outer pattern can match it.
    else expect(coversName(withPatterns(outer), inner.replaceAll("*", "z"))).toBe(false);
  });
  fc.assert(property, { numRuns: 5000 });
});

/** Whether it throws nothing. */
function passes(check: () => void): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}

describe("a caller that is bound to labels", () => {
  const bound = { ...withPatterns("acme-*"), labels: { customer: "acme" } };

  it.each<[Labels, boolean]>([
    [{ customer: "acme" }, true],
    [{ customer: "acme", team: "orders" }, true],
    [{ customer: "beta" }, false],
    [{ customer: "ACME" }, false],
    [{ customer: "acme " }, false],
    [{ Customer: "acme" }, false],
    [{ team: "acme" }, false],
    [{}, false],
  ])("a connection with the labels %j that its patterns cover: %s", (labels, may) => {
    expect(mayUse(bound, { name: "acme-shop", labels })).toBe(may);
    expect(mayUse(bound, { name: "beta-shop", labels })).toBe(false);
    expect(mayUse(withPatterns("acme-*"), { name: "acme-shop", labels })).toBe(true);
    expect(passes(() => requireOwnLabels(bound, labels))).toBe(may);
  });

  it("needs a label that is named like something every object has to be there", () => {
    const odd = { ...withPatterns("*"), labels: { constructor: "x", toString: "y" } };
    expect(mayUse(odd, { name: "a", labels: {} })).toBe(false);
    expect(mayUse(odd, { name: "a", labels: { constructor: "x", toString: "y" } })).toBe(true);
  });

  it.each([[null], [[]], [7], ["customer"]])("reaches no row whose labels are %j, which no broker writes", (labels) => {
    expect(mayUse(bound, { name: "acme-shop", labels: labels as unknown as Labels })).toBe(false);
  });

  it("is told the name of no connection of which only the name is known", () => {
    expect(toldNames(bound, ["acme-a", "beta-b"])).toEqual([]);
    expect(toldNames(withPatterns("acme-*"), ["acme-a", "beta-b"])).toEqual(["acme-a"]);
  });

  it("has not everything, though its patterns cover *, and administers neither clients nor labels", () => {
    const wide = { ...bound, connections: ["*"], abilities: ["tokens", "connections", "admin"] as const };
    expect([coversAll(wide), isAdmin(wide), passes(() => requireUnbound(wide))]).toEqual([false, false, false]);
    const free = { ...wide, labels: {} };
    expect([coversAll(free), isAdmin(free), passes(() => requireUnbound(free))]).toEqual([true, true, true]);
    const client = { patterns: ["other-*"], scopes: [] };
    const use = { connection: "acme-shop", scopes: ["any"] };
    expect([mayUseClient(wide, client, use), mayUseClient(free, client, use)]).toEqual([false, true]);
    expect(mayUseClient(wide, { ...client, patterns: ["acme-*"] }, use)).toBe(true);
  });
});

it("whatever a caller gives, and whatever those give in turn, reaches no connection and no ability that the first one lacks", () => {
  const words = fc.constantFrom("a", "b", "ab");
  const names = fc.array(words, { minLength: 1, maxLength: 2 }).map((pieces) => pieces.join(""));
  const random = fc
    .array(fc.oneof(words, fc.constant("*")), { minLength: 1, maxLength: 3 })
    .map((pieces) => pieces.join(""));
  const patterns = fc.array(fc.oneof(random, fc.constantFrom("*", "a*", "*b")), { minLength: 1, maxLength: 2 });
  const labels = fc.dictionary(fc.constantFrom("customer", "team"), fc.constantFrom("acme", "beta"), { maxKeys: 2 });
  const abilities = fc.subarray(["tokens", "connections", "admin"] as const);
  const ends = fc.constantFrom(null, new Date(1), new Date(2));
  const callers = fc.record({ abilities, connections: patterns, labels, expiresAt: ends });
  const counts = { given: 0, reached: 0 };
  const property = fc.property(
    fc.array(callers, { minLength: 2, maxLength: 4 }),
    fc.record({ name: names, labels }),
    (chain, connection) => {
      const [first, ...rest] = chain.map((one) => ({ ...withPatterns(), ...one }));
      if (first === undefined) return;
      let giver = first;
      for (const gift of rest) {
        if (!passes(() => requireMayGive(giver, gift))) continue;
        counts.given += 1;
        giver = gift;
        expect(gift.abilities.filter((ability) => !first.abilities.includes(ability))).toEqual([]);
        expect(first.expiresAt === null || (gift.expiresAt !== null && gift.expiresAt <= first.expiresAt)).toBe(true);
        expect(isAdmin(gift) && !isAdmin(first)).toBe(false);
        expect(coversAll(gift) && !coversAll(first)).toBe(false);
        const bounds = { own: boundsOf(first), given: boundsOf(gift) };
        expect(carries(bounds.given.labels, bounds.own.labels)).toBe(true);
        expect(toldNames(gift, [connection.name]).length).toBeLessThanOrEqual(
          toldNames(first, [connection.name]).length,
        );
        if (!mayUse(gift, connection)) continue;
        counts.reached += 1;
        expect(mayUse(first, connection)).toBe(true);
        expect(coversName(first, connection.name)).toBe(true);
        // What it makes under that name stays within the first one's labels, too.
        if (binds(first.labels)) expect(passes(() => requireOwnLabels(first, connection.labels))).toBe(true);
      }
    },
  );
  fc.assert(property, { numRuns: 5000 });
  expect(Math.min(counts.given, counts.reached)).toBeGreaterThan(100);
});

const key = (connections: string[], abilities: Principal["abilities"] = ["connections"]): Principal => ({
  ...withPatterns(...connections),
  abilities,
});

describe("a client", () => {
  const client = { patterns: ["team-b-*", "shared-*"], scopes: ["read", "write"] };
  const b = { connection: "team-b-app", scopes: ["read"] };

  it.each([
    ["its own connection, within the scopes", { by: key(["team-b-*"]), wanted: b }, true],
    ["a connection that only the client's patterns cover", { by: key(["team-a-*"]), wanted: b }, false],
    [
      "a connection that only the key's patterns cover",
      { by: key(["*"]), wanted: { ...b, connection: "team-c" } },
      false,
    ],
    ["a scope beyond the client's", { by: key(["*"]), wanted: { ...b, scopes: ["read", "admin"] } }, false],
    ["no scope at all, which is whatever the provider gives", { by: key(["*"]), wanted: { ...b, scopes: [] } }, false],
    [
      "anything, with admin",
      { by: key(["*"], ["connections", "admin"]), wanted: { connection: "team-c", scopes: ["any"] } },
      true,
    ],
    [
      "a connection beyond its own patterns, with admin",
      { by: key(["team-a-*"], ["connections", "admin"]), wanted: b },
      false,
    ],
  ])("may be used for %s: %s", (_what, { by, wanted }, may) => {
    expect(mayUseClient(by, client, wanted)).toBe(may);
  });

  it("without patterns is nobody's but those with admin; without scopes it sets no bounds to them", () => {
    expect(mayUseClient(key(["*"]), { patterns: [], scopes: [] }, b)).toBe(false);
    expect(mayUseClient(key(["*"]), { patterns: ["*"], scopes: [] }, { ...b, scopes: ["any"] })).toBe(true);
    expect(mayUseClient(key(["*"]), { patterns: ["*"], scopes: [] }, { ...b, scopes: [] })).toBe(true);
  });

  it("that is not for the caller is answered as one that does not exist", () => {
    expect(unknownClient("x")).toMatchObject({
      code: "invalid_request",
      message: 'client: there is no client named "x" that this key may use for this connection.',
    });
  });
});
