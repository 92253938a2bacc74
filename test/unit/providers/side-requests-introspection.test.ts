import { expect, test } from "vitest";
import type { IntrospectionDefinition } from "../../../src/providers/format/definition.ts";
import { readIntrospection } from "../../../src/providers/oauth/side-requests.ts";
import { define } from "./definitions.ts";

function asking(settings: string): IntrospectionDefinition {
  const { introspection } = define(`introspection: { url: https://login.example/introspect, ${settings} }`);
  if (introspection === null) throw new Error("no introspection");
  return introspection;
}

const rfc = asking("");

test("a token is active where the answer says so in RFC 7662's words, and ends at its exp", () => {
  expect(readIntrospection(rfc, { active: true, exp: 2_000_000_000 })).toEqual({
    active: true,
    expiry: { kind: "at", epochSeconds: 2_000_000_000 },
  });
  expect(readIntrospection(rfc, { active: "true" })).toEqual({ active: true, expiry: { kind: "unstated" } });
});

test.each<[unknown]>([
  [{ active: false, exp: 2_000_000_000 }],
  [{ active: "false" }],
  [{ active: 1 }],
  [{ active: "yes" }],
  [{ active: ["true"] }],
  [{}],
  [[]],
  [null],
  ["true"],
])("%j does not say that a token is active", (body) => {
  expect(readIntrospection(rfc, body).active).toBe(false);
});

test("both are read where the definition says, as a life too", () => {
  const own = asking("active: /data/valid, expires: { from: expires_in, pointer: /data/life, unit: ms, fallback: 60 }");
  expect(readIntrospection(own, { active: false, exp: 5, data: { valid: true, life: 9000 } })).toEqual({
    active: true,
    expiry: { kind: "in", seconds: 9 },
  });
  expect(readIntrospection(own, { data: { valid: true } }).expiry).toEqual({ kind: "in", seconds: 60 });
});
