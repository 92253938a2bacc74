import { describe, expect, test } from "vitest";
import type { Lookup } from "../../../src/providers/format/definition.ts";
import { readLookup } from "../../../src/providers/oauth/side-requests.ts";
import { define } from "./definitions.ts";

const values = { inputs: { shop: "b" } };

function lookup(settings: string): Lookup {
  const definition = define(
    `inputs: { shop: {} }\nafter_connect: [{ request: { url: https://api.example/me }, ${settings} }]`,
  );
  const [first] = definition.lookups;
  if (first === undefined) throw new Error("no lookup");
  return first;
}

const found = (account: string | null, more = {}) => ({ account, label: null, captured: {}, ...more });

describe("what a lookup tells", () => {
  test("account, label and values for later templates are read where the definition says", () => {
    const rule = lookup(
      "pointer: /user/id, label: /user/mail, capture: { site: /sites/0, number: /number, none: /none }",
    );
    const body = { user: { id: "u1", mail: "m@x" }, sites: ["s1"], number: 7 };
    expect(readLookup(rule, body, values)).toEqual({
      account: "u1",
      label: "m@x",
      captured: { site: "s1", number: "7" },
    });
  });

  test.each<[unknown, string]>([
    ["u1", "u1"],
    [42, "42"],
    [0, "0"],
    [false, "false"],
    ["Zoë & Söhne", "Zoë & Söhne"],
    ["x".repeat(300), "x".repeat(300)],
  ])("an account called %j has a name", (id, account) => {
    expect(readLookup(lookup("pointer: /id"), { id }, values)).toEqual(found(account));
  });

  test.each<[unknown]>([[undefined], [null], [""], [{}], [["u1"]], ["a\nb"], ["\ud800"], ["x".repeat(301)]])(
    "an account called %j has none, and nothing was found",
    (id) => {
      expect(readLookup(lookup("pointer: /id, capture: { site: /site }"), { id, site: "s1" }, values)).toBeNull();
    },
  );

  test("a label that cannot be shown is left out, and the account is not lost for it", () => {
    expect(readLookup(lookup("pointer: /id, label: /mail"), { id: "u1", mail: "a\nb" }, values)).toEqual(found("u1"));
  });

  test("one that names no account still captures", () => {
    expect(readLookup(lookup("capture: { site: /site }"), { site: "s1" }, values)).toEqual(
      found(null, { captured: { site: "s1" } }),
    );
  });

  test("a captured value that does not fit its pattern is left out", () => {
    const rule = lookup("pointer: /id, capture: { site: { pointer: /site, pattern: '^s[0-9]$' } }");
    expect(readLookup(rule, { id: 1, site: "s1" }, values)?.captured).toEqual({ site: "s1" });
    expect(readLookup(rule, { id: 1, site: "evil" }, values)?.captured).toEqual({});
  });

  test.each<[unknown]>([[null], ["text"], [5], [undefined]])("an answer that is %j holds nothing", (body) => {
    expect(readLookup(lookup("pointer: /id"), body, values)).toBeNull();
    expect(readLookup(lookup("capture: { site: /site }"), body, values)).toBeNull();
  });
});

describe("an entry of a list", () => {
  const list = [
    { id: 1, shop: "a" },
    { id: 2, shop: "b" },
    { id: 3, shop: "b" },
  ];

  test("is the first, of the whole answer or of a list in it", () => {
    expect(readLookup(lookup("pointer: /id, select: {}"), list, values)).toEqual(found("1"));
    expect(readLookup(lookup("pointer: /id, select: { list: /data }"), { data: list }, values)).toEqual(found("1"));
  });

  test("is the first that equals what the template says, as text", () => {
    const byShop = lookup("pointer: /id, select: { where: /shop, equals: '{inputs.shop}' }");
    expect(readLookup(byShop, list, values)).toEqual(found("2"));
    const byId = lookup("pointer: /shop, select: { where: /id, equals: '3' }");
    expect(readLookup(byId, list, values)).toEqual(found("b"));
  });

  test("is none where no entry is like it, in an empty list, and in what is no list", () => {
    const byShop = lookup("pointer: /id, select: { list: /data, where: /shop, equals: '{inputs.shop}' }");
    for (const data of [[{ id: 1, shop: "c" }], [{ id: 1 }], ["b"], [], { 0: { id: 1, shop: "b" } }, undefined]) {
      expect(readLookup(byShop, { data }, values)).toBeNull();
    }
    expect(readLookup(lookup("pointer: /id, select: { list: /data }"), { data: [] }, values)).toBeNull();
  });

  test("cannot be told where the value to compare with lacks, which is named", () => {
    const byShop = lookup("pointer: /id, select: { where: /shop, equals: '{inputs.shop}' }");
    expect(() => readLookup(byShop, list, {})).toThrow(/needs inputs\.shop/);
  });
});
