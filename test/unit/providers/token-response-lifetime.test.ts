import { afterEach, describe, expect, test, vi } from "vitest";
import type { Lifetime } from "../../../src/providers/format/definition.ts";
import { readPointer } from "../../../src/providers/oauth/answer-body.ts";
import {
  isUnreadableLifetime,
  readLifetime,
  readRefreshLifetime,
} from "../../../src/providers/oauth/token-response.ts";

const tenYears = 10 * 365 * 86_400;

/** The end that is read where the answer holds `stated`. */
function end(stated: unknown, rule: Partial<Lifetime>) {
  const lifetime: Lifetime = { from: "expires_in", pointer: "/end", unit: "s", fallbackSeconds: 77, ...rule };
  return readLifetime(lifetime, stated);
}

const moment = 2_000_000_000;
const at = (epochSeconds: number) => ({ kind: "at", epochSeconds });
const fallback = { kind: "in", seconds: 77 };
const jwt = (payload: unknown) => `h.${Buffer.from(JSON.stringify(payload) ?? "").toString("base64url")}.s`;

describe("a moment (expires_at)", () => {
  afterEach(() => void vi.unstubAllEnvs());

  test.each<[unknown, Lifetime["unit"]]>([
    [moment, "s"],
    ["2000000000", "s"],
    [" 2000000000 ", "s"],
    [moment * 1000, "ms"],
    ["2000000000000", "ms"],
    ["2033-05-18T03:33:20Z", "iso"],
    ["2033-05-18T03:33:20.000+00:00", "iso"],
    ["2033-05-18T05:33:20+02:00", "iso"],
    ["2033-05-18T05:33:20+0200", "iso"],
    ["2033-05-17 20:33:20-07:00", "iso"],
    [moment, "iso"],
    ["2033-05-18T05:33:20+02", "iso"],
    ["2033-05-18 03:33:20 UTC", "iso"],
    ["2033-05-18T03:33:20.000000000Z", "iso"],
    [" 2033-05-18T03:33:20z\n", "iso"],
    ["2033-05-18 01:33:20 -0200", "iso"],
    ["Wed, 18 May 2033 03:33:20 GMT", "iso"],
    ["Wed, 18 May 2033 05:33:20 +0200", "iso"],
    ["Wednesday, 18-May-33 03:33:20 GMT", "iso"],
    ["Wed May 18 03:33:20 2033", "iso"],
    ["/Date(2000000000000)/", "iso"],
    ["/Date(2000000000000+0200)/", "s"],
    [moment * 1000, "s"],
    ["2000000000000", "iso"],
    ["2033-05-18T03:33:20Z", "s"],
  ])("%j in %s is the same second", (stated, unit) => {
    expect(end(stated, { from: "expires_at", unit })).toEqual(at(moment));
  });

  test.each(["2033-05-18T03:33:20", "2033-05-18 03:33:20", "Wed May 18 03:33:20 2033"])(
    "%s, without a zone, is one of UTC, wherever this runs",
    (text) => {
      vi.stubEnv("TZ", "Asia/Tokyo");
      expect(new Date(0).getTimezoneOffset()).toBe(-540);
      expect(end(text, { from: "expires_at", unit: "iso" })).toEqual(at(moment));
    },
  );

  test("parts of a second are kept, and one that is over is told as it is", () => {
    expect(end(moment * 1000 + 500, { from: "expires_at", unit: "ms" })).toEqual(at(moment + 0.5));
    expect(end(5, { from: "expires_at" })).toEqual(at(5));
  });

  test.each<[unknown]>([
    [undefined],
    [null],
    [""],
    ["  "],
    ["soon"],
    ["18.05.2033"],
    ["2033-13-45T00:00:00Z"],
    ["May 18, 2033"],
    ["2033-05-18T03:33:20 CEST"],
    ["2033-05-18T03:33:20+2"],
    ["/Date(soon)/"],
    ["Wednesday"],
    [true],
    [{}],
    [[moment]],
  ])("%j is none: the fallback counts", (stated) => {
    expect(end(stated, { from: "expires_at", unit: "iso" })).toEqual(fallback);
  });
});

describe("the `exp` of a JWT (jwt_exp)", () => {
  test.each<[string, unknown]>([
    ["a number", { exp: moment }],
    ["a text", { exp: String(moment) }],
    ["one beside others", { sub: "ä", iat: 1, exp: moment }],
  ])("is read as %s", (_name, payload) => {
    expect(end(jwt(payload), { from: "jwt_exp" })).toEqual(at(moment));
  });

  test.each<[string, unknown]>([
    ["that has none", jwt({ iat: 5 })],
    ["whose exp is no number", jwt({ exp: "soon" })],
    ["whose payload is null", jwt(null)],
    ["whose payload is a number", jwt(5)],
    ["whose payload is no JSON", "h.bm90IGpzb24.s"],
    ["without a payload", "opaque"],
    ["that is empty", ""],
    ["that is no text", 5],
    ["that is not there", undefined],
  ])("of a token %s is the fallback", (_name, token) => {
    expect(end(token, { from: "jwt_exp" })).toEqual(fallback);
  });
});

describe("where tokens never end (never)", () => {
  const never = { kind: "never" };

  test.each<[unknown]>([[undefined], [null], [0], ["0"], [0.4], [-1], ["never"]])(
    "an answer that states %j says so too",
    (stated) => {
      expect(end(stated, { from: "never" })).toEqual(never);
    },
  );

  test("a life that is stated counts nevertheless", () => {
    expect(end(1, { from: "never" })).toEqual({ kind: "in", seconds: 1 });
    expect(end("1500", { from: "never", unit: "ms" })).toEqual({ kind: "in", seconds: 1 });
  });
});

describe("a life (expires_in)", () => {
  test.each<[unknown, number]>([
    ["3600s", 3600],
    ["3600.9 s", 3600],
    ["PT1H", 3600],
    ["P1DT1M5S", 86_465],
    [" 3600 ", 3600],
  ])("%j is %i seconds", (stated, seconds) => {
    expect(end(stated, {})).toEqual({ kind: "in", seconds });
  });

  test.each(["one hour", "P", "PT", "1h", "3600;", {}, true, []])("%j says nothing: the fallback counts", (stated) => {
    expect(end(stated, {})).toEqual(fallback);
  });

  test("is whole seconds, of milliseconds too, and never below 0", () => {
    expect(end(1999, { unit: "ms" })).toEqual({ kind: "in", seconds: 1 });
    expect(end(1.9, {})).toEqual({ kind: "in", seconds: 1 });
    expect(end(-1, {})).toEqual({ kind: "in", seconds: 0 });
  });

  test("is no longer than ten years, stated or fallen back to", () => {
    expect(end(tenYears * 2, {})).toEqual({ kind: "in", seconds: tenYears });
    expect(end(tenYears * 1000 + 5000, { unit: "ms" })).toEqual({ kind: "in", seconds: tenYears });
    expect(end(undefined, { fallbackSeconds: tenYears * 2 })).toEqual({ kind: "in", seconds: tenYears });
  });

  test("of which neither answer nor definition say anything is unstated", () => {
    expect(end(undefined, { fallbackSeconds: null })).toEqual({ kind: "unstated" });
    expect(end("soon", { from: "expires_at", fallbackSeconds: null })).toEqual({ kind: "unstated" });
  });

  test("that is fixed is the definition's, whatever an answer states", () => {
    expect(end(5, { from: "fixed" })).toEqual(fallback);
    expect(end(undefined, { from: "fixed" })).toEqual(fallback);
  });

  test("that is asked for elsewhere counts where the answer states one after all", () => {
    expect(end(5, { from: "introspect" })).toEqual({ kind: "in", seconds: 5 });
    expect(end(undefined, { from: "introspect" })).toEqual(fallback);
  });

  test("that nothing points at, or of an answer that is nothing, is the fallback", () => {
    for (const body of [{ end: 5 }, null]) {
      expect(end(readPointer(body, ""), { pointer: "" })).toEqual(fallback);
    }
    expect(end(readPointer(null, "/end"), {})).toEqual(fallback);
  });
});

describe("a refresh token's life", () => {
  const rule: Lifetime = { from: "expires_in", pointer: "/end", unit: "s", fallbackSeconds: null };

  test.each([0, -1, "0", 0.4])("of %j is not known: the token has just come", (stated) => {
    expect(readRefreshLifetime(rule, stated)).toEqual({ kind: "unstated" });
  });

  test("of some seconds counts", () => {
    expect(readRefreshLifetime(rule, 1)).toEqual({ kind: "in", seconds: 1 });
  });
});

function isUnreadable(stated: unknown, rule: Partial<Lifetime> = {}) {
  const lifetime: Lifetime = { from: "expires_in", pointer: "/end", unit: "s", fallbackSeconds: 77, ...rule };
  return isUnreadableLifetime(lifetime, stated);
}

describe("a life that is stated and cannot be read", () => {
  test.each(["soon", true, {}, [3600]])("%j is one", (stated) => {
    expect([isUnreadable(stated), isUnreadable(stated, { from: "expires_at" })]).toEqual([true, true]);
  });

  test.each([undefined, null, "", " ", 5, "5", 0])("%j is none", (stated) => {
    expect(isUnreadable(stated)).toBe(false);
  });

  test("where none is read, none is unreadable", () => {
    expect([isUnreadable("soon", { from: "fixed" }), isUnreadable("opaque", { from: "jwt_exp" })]).toEqual([
      false,
      false,
    ]);
    expect(isUnreadable("never", { from: "never" })).toBe(false);
  });
});
