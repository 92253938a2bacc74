import { deflateRawSync, gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { HttpResponse } from "../../../src/providers/http/exchange.ts";
import type { Failure, Grant } from "../../../src/providers/oauth/token-answer.ts";
import { processTokenResponse } from "../../../src/providers/oauth/token-response.ts";
import { builtin, define } from "./definitions.ts";

const plain = define("");
type Answer = Partial<Omit<HttpResponse, "body">> & { body?: string | Buffer; json?: unknown };

function answered(answer: Answer, definition = plain, secrets: string[] = []) {
  const { json, ...rest } = answer;
  const body = Buffer.from(rest.body ?? (json === undefined ? "" : JSON.stringify(json)));
  return processTokenResponse({ definition, response: { status: 200, headers: {}, ...rest, body }, secrets });
}

function granted(answer: Answer, definition = plain): Grant {
  const result = answered(answer, definition);
  if (result.kind !== "granted") throw new Error(`not granted: ${result.failure.detail}`);
  return result.grant;
}

function failed(answer: Answer, definition = plain, secrets: string[] = []): Failure {
  const result = answered(answer, definition, secrets);
  if (result.kind !== "failed") throw new Error("granted");
  return result.failure;
}

describe("a 2xx with a token is a grant", () => {
  test("with everything that it names", () => {
    const json = { access_token: "a", refresh_token: "r", token_type: "bearer", expires_in: 299, scope: "x  y x" };
    expect(granted({ json })).toEqual({
      accessToken: "a",
      refreshToken: "r",
      tokenType: "Bearer",
      accessExpiry: { kind: "in", seconds: 299 },
      refreshExpiry: { kind: "unstated" },
      scopes: ["x", "y"],
      captured: {},
    });
  });

  test("without the white space around a token, and told where a life cannot be read", () => {
    expect(granted({ json: { access_token: " a\n", refresh_token: "\tr ", expires_in: "soon" } })).toMatchObject({
      accessToken: "a",
      refreshToken: "r",
      accessExpiry: { kind: "in", seconds: 3600 },
      unreadableLifetime: true,
    });
    const definition = define("response: { refresh_expires: { from: expires_in, pointer: /rt } }");
    expect(granted({ json: { access_token: "a", refresh_token: "r", rt: 0 } }, definition)).toMatchObject({
      refreshExpiry: { kind: "unstated" },
    });
    expect(
      granted({ json: { access_token: "a", refresh_token: "r", rt: "long" } }, definition).unreadableLifetime,
    ).toBe(true);
    expect(granted({ json: { access_token: "a", rt: "long" } }, definition)).not.toHaveProperty("unreadableLifetime");
    expect(failed({ json: { access_token: " \n" } }).code).toBe("unreadable_answer");
  });

  test("a refresh token without an access token is kept too", () => {
    const grant = granted({ json: { refresh_token: "r" } });
    expect(grant.refreshToken).toBe("r");
    expect("accessToken" in grant).toBe(false);
  });

  test.each<[string, object]>([
    ["an odd token type", { token_type: { a: 1 } }],
    ["an odd scope", { scope: { read: true } }],
    ["an empty scope", { scope: "" }],
    ["an odd refresh token", { refresh_token: 5 }],
    ["an error beside the token", { error: "invalid_grant" }],
  ])("%s does not lose it", (_name, odd) => {
    const grant = granted({ json: { access_token: "a", ...odd } });
    expect(grant).toMatchObject({ accessToken: "a", tokenType: "Bearer" });
    expect("scopes" in grant).toBe(false);
    expect("refreshToken" in grant).toBe(false);
  });

  test("no rule of a definition can throw a token away", () => {
    const definition = define("errors: [{ endpoint: token, body: a, means: needs_reauthorization }]");
    expect(granted({ json: { access_token: "a" } }, definition).accessToken).toBe("a");
  });

  test.each<[string, Answer]>([
    [
      "a form",
      { headers: { "content-type": "application/x-www-form-urlencoded" }, body: "access_token=a%2Bb&scope=x" },
    ],
    [
      "a form that calls itself a text",
      { headers: { "content-type": "text/plain" }, body: "access_token=a%2Bb&scope=x" },
    ],
    [
      "JSON that calls itself a page",
      { headers: { "content-type": "text/html" }, body: '{"access_token":"a+b","scope":["x"]}' },
    ],
    ["JSON after a byte order mark", { body: '\uFEFF {"access_token":"a+b","scope":"x"}\n' }],
    ["whole JSON on a connection that was cut", { complete: false, body: '{"access_token":"a+b","scope":"x"}' }],
    ["status 201", { status: 201, body: '{"access_token":"a+b","scope":"x"}' }],
  ])("%s is read", (_name, answer) => {
    expect(granted(answer)).toMatchObject({ accessToken: "a+b", scopes: ["x"] });
  });

  test("tokens, type, scope and captured values are read where the definition says", () => {
    const definition = define(
      `response:
  access_token: /data/0/token
  refresh_token: /data/0/a~1b
  token_type: /kind
  scope: /may
  capture: { site: /site, number: /number, odd: /odd, none: /none }
authorization: { scope: { separator: "," } }`,
      "id: own\ngrants: [import]\ntoken: { url: https://login.example/token }",
    );
    const json = { data: [{ token: "a", "a/b": "r" }], kind: "mac", may: "x,y", site: "s1", number: 7, odd: "a\nb" };
    expect(granted({ json }, definition)).toMatchObject({
      accessToken: "a",
      refreshToken: "r",
      tokenType: "mac",
      scopes: ["x", "y"],
      captured: { site: "s1", number: "7" },
    });
  });
});

describe("an answer with further tokens in it", () => {
  const definition = define(`response:
  scope_separator: ","
  capture: { team: /team }
  extra_tokens:
    - { name: user, access_token: /user/access_token }
    - { name: bot, access_token: /bot/token, refresh_token: /bot/refresh, token_type: /bot/type, scope: /bot/scope,
        expires: { pointer: /bot/life }, refresh_expires: { pointer: /bot/refresh_life } }
    - { name: later, exchange: {} }`);
  const own = { access_token: "a", refresh_token: "r", scope: "x", token_type: "mac", expires_in: 60, team: "t1" };
  const bot = { token: "ba", refresh: "br", type: "dpop", scope: "y,z", life: 5, refresh_life: 50 };

  test("gives each under its name, as its own pointers say, with what the answer captures", () => {
    const { furtherTokens } = granted({ json: { ...own, bot } }, definition);
    expect(furtherTokens).toEqual({
      bot: {
        accessToken: "ba",
        refreshToken: "br",
        tokenType: "dpop",
        scopes: ["y", "z"],
        accessExpiry: { kind: "in", seconds: 5 },
        refreshExpiry: { kind: "in", seconds: 50 },
        captured: { team: "t1" },
      },
    });
  });

  test("gives them nothing that is the connection's own: above all not its refresh token", () => {
    const { furtherTokens } = granted(
      { json: { ...own, refresh_token_expires_in: 90, user: { access_token: "ua", refresh_token: "ur" } } },
      definition,
    );
    expect(furtherTokens).toEqual({
      user: {
        accessToken: "ua",
        tokenType: "Bearer",
        accessExpiry: { kind: "in", seconds: 3600 },
        refreshExpiry: { kind: "unstated" },
        captured: { team: "t1" },
      },
    });
  });

  test("alone is a grant still: none of them is lost", () => {
    expect(granted({ json: { user: { access_token: "ua" } } }, definition)).toEqual({
      tokenType: "Bearer",
      accessExpiry: { kind: "unstated" },
      refreshExpiry: { kind: "unstated" },
      captured: {},
      furtherTokens: { user: expect.objectContaining({ accessToken: "ua" }) },
    });
  });

  test("has none where the answer holds none, and one that is exchanged for is not looked for", () => {
    expect("furtherTokens" in granted({ json: { ...own, user: {}, later: { access_token: "l" } } }, definition)).toBe(
      false,
    );
  });

  test("with no token of any name is a refusal", () => {
    expect(failed({ json: { user: { access_token: "" }, bot: { token: 5 } } }, definition).code).toBe(
      "unreadable_answer",
    );
  });
});

describe("a 2xx that is one only if the definition's condition holds (ok_when)", () => {
  const definition = define(`response: { ok_when: { pointer: /ok, equals: "true" } }
errors: [{ endpoint: token, pointer: /why, equals: gone, means: needs_reauthorization }]`);

  test.each<[unknown]>([[true], ["true"]])("and holds with %j: without a token nobody can read it", (ok) => {
    expect(failed({ json: { ok } }, definition)).toMatchObject({ class: "unknown", code: "unreadable_answer" });
  });

  test.each<[unknown]>([[false], ["no"], [1], [null], [undefined]])("and does not with %j: it is a refusal", (ok) => {
    expect(failed({ json: { ok, a: 1 } }, definition)).toMatchObject({
      class: "refused_for_now",
      code: "provider_unavailable",
    });
  });

  test("says what its error and the rules say", () => {
    expect(failed({ json: { ok: false, why: "gone" } }, definition).code).toBe("invalid_grant");
    expect(failed({ json: { ok: false, error: "invalid_client" } }, definition).code).toBe("invalid_client");
  });

  test("is a grant whatever it says, where there is a token in it: the old one is spent", () => {
    expect(granted({ json: { ok: false, error: "invalid_grant", access_token: "a" } }, definition).accessToken).toBe(
      "a",
    );
  });

  test("is unknown where it cannot be read at all, and no other status is made better by it", () => {
    expect(failed({ body: "<html>" }, definition).class).toBe("unknown");
    expect(failed({ status: 500, json: { ok: false } }, definition).class).toBe("unknown");
    expect(failed({ status: 401, json: { ok: true, error: "invalid_client" } }, definition).code).toBe(
      "invalid_client",
    );
  });
});

const life = (expires_in: unknown, rule = "") => {
  const definition = rule === "" ? plain : define(`response: { expires: { ${rule} } }`);
  return granted({ json: { access_token: "a", expires_in } }, definition).accessExpiry;
};

describe("how long a token lives", () => {
  const tenYears = 10 * 365 * 86_400;

  test.each<[unknown, number]>([
    [299, 299],
    ["600", 600],
    [600.9, 600],
    [0, 0],
    [-5, 0],
    [undefined, 3600],
    [null, 3600],
    ["soon", 3600],
    ["", 3600],
    [true, 3600],
    [{}, 3600],
    [tenYears + 1, tenYears],
    [Number.MAX_VALUE, tenYears],
  ])("expires_in %j counts as %d seconds", (stated, seconds) => {
    expect(life(stated)).toEqual({ kind: "in", seconds });
  });

  test("a number too large for JavaScript is ten years", () => {
    const body = '{"access_token":"a","expires_in":1e999}';
    expect(granted({ body }).accessExpiry).toEqual({ kind: "in", seconds: tenYears });
  });

  test("the definition's fallback stands in for what is not stated", () => {
    expect(life(undefined, "fallback: 600")).toEqual({ kind: "in", seconds: 600 });
    expect(life(50, "fallback: 600")).toEqual({ kind: "in", seconds: 50 });
  });

  test("fixed is fixed, milliseconds are milliseconds", () => {
    expect(life(50, "from: fixed, fallback: 600")).toEqual({ kind: "in", seconds: 600 });
    expect(life(5500, "unit: ms")).toEqual({ kind: "in", seconds: 5 });
  });

  test("never holds unless the answer states a life", () => {
    expect(life(undefined, "from: never")).toEqual({ kind: "never" });
    expect(life(43_200, "from: never")).toEqual({ kind: "in", seconds: 43_200 });
  });

  test("a refresh token's life is told for a refresh token alone", () => {
    const definition = define("response: { refresh_expires: { from: fixed, fallback: 86400 } }");
    const withToken = granted({ json: { access_token: "a", refresh_token: "r" } }, definition);
    expect(withToken.refreshExpiry).toEqual({ kind: "in", seconds: 86_400 });
    expect(granted({ json: { access_token: "a" } }, definition).refreshExpiry).toEqual({ kind: "unstated" });
    const stated = granted({ json: { access_token: "a", refresh_token: "r", refresh_token_expires_in: "60" } });
    expect(stated.refreshExpiry).toEqual({ kind: "in", seconds: 60 });
  });
});

const error = (code: string) => ({ json: { error: code } });

describe("what is no grant is classified once", () => {
  test.each<[string, Answer, boolean]>([
    ["a 400 without a word", { status: 400 }, true],
    ["invalid_request", { status: 400, ...error("invalid_request") }, true],
    ["a code that nobody knows", { status: 403, ...error("service.not_authorized") }, true],
    ["temporarily_unavailable", { status: 400, ...error("temporarily_unavailable") }, false],
    ["invalid_grant", { status: 400, ...error("invalid_grant") }, false],
    ["429", { status: 429 }, false],
    ["503", { status: 503 }, false],
    ["408", { status: 408 }, false],
    ["a proxy that wants a password", { status: 407 }, false],
    ["500", { status: 500 }, false],
  ])("%s: nothing says what it is about: %j", (_what, answer, isUnexplained) => {
    expect(failed(answer).isUnexplained ?? false).toBe(isUnexplained);
  });

  test.each<[string, Answer, Failure["class"], Failure["code"]]>([
    ["invalid_grant in a 400", { status: 400, ...error("invalid_grant") }, "refused_for_good", "invalid_grant"],
    ["invalid_grant in a 401", { status: 401, ...error("invalid_grant") }, "refused_for_good", "invalid_grant"],
    ["invalid_grant in a 200", { status: 200, ...error("invalid_grant") }, "refused_for_good", "invalid_grant"],
    ["invalid_grant in a form", { status: 400, body: "error=invalid_grant" }, "refused_for_good", "invalid_grant"],
    ["invalid_client in a 401", { status: 401, ...error("invalid_client") }, "client_rejected", "invalid_client"],
    ["unauthorized_client", { status: 400, ...error("unauthorized_client") }, "client_rejected", "invalid_client"],
    [
      "temporarily_unavailable",
      { status: 400, ...error("temporarily_unavailable") },
      "refused_for_now",
      "provider_unavailable",
    ],
    ["server_error in a 400", { status: 400, ...error("server_error") }, "refused_for_now", "provider_unavailable"],
    ["429", { status: 429 }, "refused_for_now", "rate_limited"],
    ["429 that says invalid_grant", { status: 429, ...error("invalid_grant") }, "refused_for_now", "rate_limited"],
    ["503", { status: 503 }, "refused_for_now", "provider_unavailable"],
    [
      "503 that says invalid_grant",
      { status: 503, ...error("invalid_grant") },
      "refused_for_now",
      "provider_unavailable",
    ],
    [
      "a redirect",
      { status: 307, headers: { location: "https://evil.example" } },
      "refused_for_now",
      "provider_unavailable",
    ],
    ["400 without a word", { status: 400 }, "refused_for_now", "provider_unavailable"],
    ["401 without a word", { status: 401 }, "refused_for_now", "provider_unavailable"],
    ["404 with a page", { status: 404, body: "<html>" }, "refused_for_now", "provider_unavailable"],
    ["invalid_request", { status: 400, ...error("invalid_request") }, "refused_for_now", "provider_unavailable"],
    ["invalid_scope", { status: 400, ...error("invalid_scope") }, "refused_for_now", "provider_unavailable"],
    [
      "an error that is a property of every object",
      { status: 400, ...error("constructor") },
      "refused_for_now",
      "provider_unavailable",
    ],
    [
      "an error that is no text",
      { status: 400, json: { error: { code: 1 } } },
      "refused_for_now",
      "provider_unavailable",
    ],
    ["500", { status: 500 }, "unknown", "outcome_unknown"],
    ["500 that says invalid_grant", { status: 500, ...error("invalid_grant") }, "unknown", "outcome_unknown"],
    ["502", { status: 502 }, "unknown", "outcome_unknown"],
    ["504", { status: 504 }, "unknown", "outcome_unknown"],
    ["520", { status: 520 }, "unknown", "outcome_unknown"],
    ["a token in a 400", { status: 400, json: { access_token: "a" } }, "refused_for_now", "provider_unavailable"],
    ["a token in a redirect", { status: 302, json: { access_token: "a" } }, "refused_for_now", "provider_unavailable"],
    ["200 with a page", { status: 200, body: "<html>" }, "unknown", "unreadable_answer"],
    ["200 with nothing", { status: 200 }, "unknown", "unreadable_answer"],
    ["200 with other JSON", { status: 200, json: { ok: true } }, "unknown", "unreadable_answer"],
    [
      "200 with empty tokens",
      { status: 200, json: { access_token: "", refresh_token: "" } },
      "unknown",
      "unreadable_answer",
    ],
    [
      "200 cut in its JSON",
      { status: 200, complete: false, body: '{"access_token":"abc' },
      "unknown",
      "unreadable_answer",
    ],
    [
      "200 cut in its form",
      { status: 200, complete: false, body: "access_token=abc&refresh_token=d" },
      "unknown",
      "unreadable_answer",
    ],
  ])("%s: %#", (...[, answer, expectedClass, code]) => {
    expect(failed(answer)).toMatchObject({ class: expectedClass, code, status: answer.status });
  });

  test("the raw answer of an unknown outcome is kept where no logger finds it", () => {
    const headers = { "content-type": "text/html", "set-cookie": "session=1" };
    const failure = failed({ status: 200, headers, body: "<html>odd" });
    expect(JSON.parse(failure.rawAnswer ?? "")).toEqual({
      status: 200,
      headers: { "content-type": "text/html" },
      complete: true,
      body: Buffer.from("<html>odd").toString("base64"),
    });
    expect(JSON.stringify(failure)).not.toContain("odd");
    expect(failed({ status: 400, body: "x" }).rawAnswer).toBeUndefined();
  });

  test.each<[string, Record<string, string>, number | undefined]>([
    ["seconds", { "retry-after": "17" }, 17],
    ["parts of a second", { "retry-after": "30.5" }, 31],
    [
      "an older form of date",
      { "retry-after": "Friday, 20-Nov-26 12:01:00 GMT", date: "Fri, 20 Nov 2026 12:00:00 GMT" },
      60,
    ],
    ["a date", { "retry-after": "Fri, 20 Nov 2026 12:01:00 GMT", date: "Fri, 20 Nov 2026 12:00:00 GMT" }, 60],
    ["a date gone by", { "retry-after": "Fri, 20 Nov 2026 11:00:00 GMT", date: "Fri, 20 Nov 2026 12:00:00 GMT" }, 0],
    ["a date without the answer's own", { "retry-after": "Fri, 20 Nov 2026 12:01:00 GMT" }, undefined],
    ["nonsense", { "retry-after": "-5" }, undefined],
    ["nothing", {}, undefined],
  ])("Retry-After with %s", (_name, headers, expected) => {
    expect(failed({ status: 429, headers }).retryAfterSeconds).toBe(expected);
  });
});

const shopwareError = (status: number, code: string) => ({
  status,
  json: {
    errors: [{ code, status: String(status), title: "The refresh token is invalid.", detail: "Token has expired" }],
  },
});

describe("the rules of a definition come first", () => {
  test.each<[string, Answer, Failure["class"]]>([
    ["a dead refresh token as league 8 says it", shopwareError(401, "8"), "refused_for_good"],
    ["a dead refresh token as league 9 says it", shopwareError(400, "8"), "refused_for_good"],
    ["a wrong password", shopwareError(400, "6"), "refused_for_good"],
    ["a wrong client", shopwareError(401, "4"), "client_rejected"],
    ["a wrong grant type", shopwareError(400, "2"), "refused_for_now"],
    ["throttling", shopwareError(429, "FRAMEWORK__AUTH_THROTTLED"), "refused_for_now"],
  ])("Shopware: %s", (_name, answer, expected) => {
    const failure = failed(answer, builtin("shopware"));
    expect(failure.class).toBe(expected);
    expect(failure.detail).toContain("Token has expired");
  });

  test("bol.com: a 404 means that the address is blocked", () => {
    expect(failed({ status: 404 }, builtin("bol"))).toMatchObject({ class: "refused_for_now", code: "blocked" });
    expect(failed({ status: 404 }, builtin("bol-form"))).toMatchObject({ code: "blocked" });
  });

  test("the first that matches wins, by status, body, and pointer with a text or an expression", () => {
    const definition = define(`errors:
  - { endpoint: api, status: 400, means: access_token_expired }
  - { endpoint: token, status: 400, pointer: /code, equals: "7", means: rate_limited }
  - { endpoint: token, pointer: /code, regex: ^dead_, means: needs_reauthorization }
  - { endpoint: token, body: gone away, means: transient }
  - { endpoint: token, status: 500, means: client_rejected }`);
    const verdict = (status: number, json: unknown) => failed({ status, json }, definition);
    expect(verdict(400, { code: 7 }).code).toBe("rate_limited");
    expect(verdict(401, { code: 7 }).code).toBe("provider_unavailable");
    expect(verdict(200, { code: "dead_token" }).class).toBe("refused_for_good");
    expect(verdict(500, { message: "gone away" }).code).toBe("provider_unavailable");
    expect(verdict(500, {}).class).toBe("client_rejected");
    expect(verdict(400, { code: { odd: true } }).code).toBe("provider_unavailable");
  });
});

describe("a body is never quoted", () => {
  const shown = (answer: Answer, definition = plain) => failed(answer, definition).detail;
  const ruled = define(`response: { access_token: /data/access }
errors:
  - { endpoint: token, pointer: /fault/code, equals: dead, means: needs_reauthorization }
  - { endpoint: token, pointer: /data/access, equals: none, means: transient }`);

  test("of a 2xx nothing but a code is told, where the definition looks for one", () => {
    expect(shown({ json: { access: "tok-1", refresh: "tok-2" } })).toBe("the provider answered 200");
    expect(shown({ json: { access: "tok-1", error: "E_42.b" } })).toBe("the provider answered 200: E_42.b");
    expect(shown({ json: { error: "a sentence", error_description: "tok-1" } })).toBe("the provider answered 200");
    expect(shown({ json: { fault: { code: "F7", detail: "tok-1" } } }, ruled)).toBe("the provider answered 200: F7");
    expect(shown({ json: { error: "tok-12345", access: "tok-12345" } })).toBe("the provider answered 200");
  });

  test("of a refusal what the definition's rules name, and the texts beside it", () => {
    const fault = { code: "F7", detail: "It is over.", trace: "tok-1" };
    expect(shown({ status: 400, json: { fault, message: "tok-2" } }, ruled)).toBe(
      "the provider answered 400: F7, It is over.",
    );
    expect(shown({ status: 400, json: { data: { access: "tok-3" } } }, ruled)).toBe("the provider answered 400");
  });

  test.each<[string, Answer]>([
    ["words", { status: 500, body: "could not store tok-1" }],
    ["a page with a token in an attribute", { status: 500, body: '<a href="#access_token=tok-1">back</a>' }],
    ["a redirect to an address with a token", { status: 302, headers: { location: "https://a.example/#tok-1" } }],
    ["a form that says it is JSON", { status: 400, body: "odd=tok-1&access=tok-1" }],
    ["a message", { status: 400, json: { message: "tok-1" } }],
    ["a list", { json: [{ access: "tok-1" }, { access: "tok-1" }] }],
  ])("%s", (_name, answer) => {
    expect(shown(answer)).not.toContain("tok-1");
  });
});

describe("what a provider said is told without secrets", () => {
  test("its error and description", () => {
    const json = { error: "invalid_grant", error_description: "Token was revoked." };
    expect(failed({ status: 400, json }).detail).toBe("the provider answered 400: invalid_grant, Token was revoked.");
  });

  test("a page is not quoted", () => {
    expect(failed({ status: 502, body: "<!doctype html>…" }).detail).toBe(
      "the provider answered 502: a page, not an OAuth answer",
    );
  });

  test.each<[string, string]>([
    ["plain", "bad secret pass w/rd!"],
    ["in a URL", "bad secret pass%20w%2Frd!"],
    ["in a form", "bad secret pass+w%2Frd%21"],
  ])("a secret that was sent and comes back %s", (_name, error_description) => {
    const { detail } = failed({ status: 400, json: { error: "x", error_description } }, plain, ["pass w/rd!", "other"]);
    expect(detail).toBe("the provider answered 400: x, bad secret […]");
  });

  test("tokens of the answer, known by their names or by their looks", () => {
    const error_description = "see short1, odd-name7 and eyJhbGciOiJIUzI1NiJ9.e30.abcdef";
    const json = { error: "x", error_description, nested: [{ accessToken: "short1" }], other: "odd-name7" };
    expect(failed({ status: 500, json }).detail).toBe("the provider answered 500: x, see […], […] and […]");
  });

  test("at most 300 characters, and no control characters", () => {
    const said = `a\u0000b\u001b[31m\r\nc\u202e ${"word ".repeat(200)}`;
    const { detail } = failed({ status: 500, json: { error: said } });
    expect(detail).toHaveLength(300);
    expect(detail).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    expect(detail).toContain("a b [31m c");
  });

  test("a body that was cut off is not quoted: a secret may be cut in it", () => {
    expect(failed({ status: 500, complete: false, body: "s3cre" }, plain, ["s3cret"]).detail).toBe(
      "the provider answered 500",
    );
  });
});

describe("where the strict reading finds no token, a lenient one may", () => {
  const both = { access_token: "at-1", refresh_token: "rt-1" };
  const json = JSON.stringify(both);
  const form = new URLSearchParams(both).toString();
  const notice = '<br />\n<b>Warning</b>: Undefined index {x} in /a.php on line 3 {"typed":"a{b"}\n';

  test.each<[string, Answer]>([
    ["a form under `format: json`", { body: form }],
    ["two byte order marks", { body: `\uFEFF\uFEFF${json}` }],
    ...([16, 32] as const).flatMap((bits) =>
      [true, false].flatMap((isBig): [string, Answer][] => [
        [`UTF-${bits}, ${isBig ? "big" : "little"} end first`, { body: wide(json, bits, isBig) }],
        [`the same with its mark`, { body: wide(`\uFEFF${json}`, bits, isBig) }],
        [`a form in it`, { body: wide(form, bits, isBig) }],
      ]),
    ),
    ["Latin-1 in a text", { body: Buffer.from(`{"note":"été",${json.slice(1)}`, "latin1") }],
    ["JSON in a JSON string", { body: JSON.stringify(json) }],
    ["JSON in a JSON string in one", { body: JSON.stringify(JSON.stringify(json)) }],
    ["a form in a JSON string", { body: JSON.stringify(form) }],
    ["a list of one", { body: `[${json}]` }],
    ["a call of a function", { body: `/**/cb.x(${json});` }],
    ["a notice before it", { body: notice + json }],
    ["a guard before it", { body: `)]}',\n${json}` }],
    ["an object before it that bears no tokens", { body: `{"notice":"tokens follow"}\n${json}` }],
    ["a line break in a text", { body: `{"note":"a\nb",${json.slice(1)}` }],
    ["a comma too much", { body: `${json.slice(0, -1)},}` }],
    ["sixty levels behind a notice", { body: `notice {"x":${"[".repeat(60)}${"]".repeat(60)},${json.slice(1)}` }],
    ["NaN", { body: `{"expires_in":NaN,${json.slice(1)}` }],
    ["NULs at its end", { body: `${json}\0\0` }],
    ["gzip without a label", { body: gzipSync(json) }],
    ["gzip under a wrong label", { headers: { "content-encoding": "br" }, body: gzipSync(json) }],
    ["deflate without its head", { headers: { "content-encoding": "deflate" }, body: deflateRawSync(json) }],
    ["JSON that says it is gzip", { headers: { "content-encoding": "gzip" }, body: json }],
    ["gzip without its end", { headers: { "content-encoding": "gzip" }, body: gzipSync(json).subarray(0, -8) }],
  ])("%s", (_name, answer) => {
    const strict = define("response: { format: json }");
    expect(granted(answer, strict)).toMatchObject({ accessToken: "at-1", refreshToken: "rt-1" });
  });

  test("JSON under `format: form`, and under the label of a form", () => {
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    expect(granted({ body: json }, define("response: { format: form }")).refreshToken).toBe("rt-1");
    expect(granted({ headers, body: json }).refreshToken).toBe("rt-1");
  });

  test.each(["token_type=Bearer&", "access_token=at-0&", ""])(
    "a form in a JSON string that begins with %o under `format: form`, and under its label",
    (first) => {
      for (const body of [JSON.stringify(first + form), JSON.stringify(JSON.stringify(`${first}${form}&x=1`))]) {
        const headers = { "content-type": "application/x-www-form-urlencoded" };
        for (const [answer, definition] of [
          [{ body }, define("response: { format: form }")],
          [{ body, headers }, plain],
        ] as const) {
          expect(granted(answer, definition)).toMatchObject({ accessToken: "at-1", refreshToken: "rt-1" });
        }
      }
    },
  );

  test("the bytes of a token are what was sent, whatever stands beside it", () => {
    const body = Buffer.from(
      `{"access_token":"caf\u00e9",${json.slice(1)}`
        .replace(',"access_token":"at-1"', "")
        .replace('"access_token":"at-1",', ""),
      "latin1",
    );
    expect(granted({ body }).accessToken).toBe("caf\u00e9");
  });

  test.each<[string, string, RegExp]>([
    ["two objects that bear tokens", `${json}${json.replace("at-1", "at-2")}`, /several objects/],
    ["the same object twice", `${json}\n${json}`, /several objects/],
    ["a notice that echoes one", `You typed ${json} at\n${json}`, /several objects/],
    ["a list of two", `[${json},${json}]`, /several objects/],
    ["words behind it", `${json};alert(1)`, /answered 200$/],
    ["words behind it that end as it does", `${json} see {odd}`, /answered 200$/],
    [
      "more than 64 levels behind a notice",
      `notice {"x":${"[".repeat(70)}${"]".repeat(70)},${json.slice(1)}`,
      /answered 200$/,
    ],
    ["a page around it", `<html>${json}</html>`, /page/],
    ["its end cut off", json.slice(0, -1), /answered 200$/],
    ["an object inside of another", `x {"other":${json}}`, /answered 200$/],
    ["NULs between its bytes", json.replaceAll(/(?<=.)/g, "\0\0"), /answered 200$/],
  ])("but not where nobody can tell which tokens count: %s", (_name, body, says) => {
    const failure = failed({ body });
    expect(failure).toMatchObject({ class: "unknown", code: "unreadable_answer" });
    expect(failure.detail).toMatch(says);
    expect(failure.detail).not.toMatch(/[ar]t-1/);
    expect(rawBody(failure)).toBe(body);
  });

  test("what was cut off is read leniently only where it is whole by itself", () => {
    expect(granted({ complete: false, body: JSON.stringify(json) }).accessToken).toBe("at-1");
    expect(failed({ complete: false, body: `notice ${json}` }).class).toBe("unknown");
    expect(failed({ complete: false, body: wide(form, 16, true) }).class).toBe("unknown");
  });

  test("it never ends a grant", () => {
    const dead = JSON.stringify({ error: "invalid_grant" });
    const lenient = [wide(dead, 16, true), JSON.stringify(dead), `notice ${dead}`, gzipSync(dead), `[${dead}]`];
    for (const body of lenient) {
      expect(failed({ status: 400, body }).class).toBe("refused_for_now");
      expect(failed({ status: 200, body }).class).toBe("unknown");
    }
  });

  test("of a refresh token that stands there twice the last is taken and the first kept beside it", () => {
    const twice = '{"access_token":"a","refresh_token":"first","refresh_token":" last "}';
    expect(granted({ body: twice })).toMatchObject({ refreshToken: "last", otherRefreshToken: "first" });
    expect(granted({ body: `notice ${twice}` })).toMatchObject({ refreshToken: "last", otherRefreshToken: "first" });
    const inForm = granted({ body: "access_token=a&refresh_token=first&refresh_token=last" });
    expect(inForm).toMatchObject({ refreshToken: "last", otherRefreshToken: "first" });
    const nested = define("response: { access_token: /d/access_token, refresh_token: /d/refresh_token }");
    expect(granted({ body: `{"d":${twice}}` }, nested)).toMatchObject({ otherRefreshToken: "first" });
    expect(granted({ body: twice.replace(" last ", "first") })).not.toHaveProperty("otherRefreshToken");
    expect(granted({ body: `{"x":${twice},${json.slice(1)}` })).not.toHaveProperty("otherRefreshToken");
  });

  test("what is shown of a grant holds none of its tokens", () => {
    const answer = {
      ...both,
      refresh_token: "refresh-token-1",
      scope: "read x:refresh-token-1 at-1",
      token_type: "at-1",
    };
    expect(granted({ json: answer })).toMatchObject({ scopes: ["read"], tokenType: "Bearer" });
  });

  test("its work grows with the length of the answer and no faster", () => {
    const hostile = ["{", '{"a":', '{"a":[', '{"a', '{"":{}},{', '{"\\"', "[", '"{', "{ ", "f(", ")", "\0", "%7B="];
    for (const piece of hostile) {
      const quarter = Math.min(...Array.from({ length: 3 }, () => work(piece, 16_384)));
      // The least time has nothing in it that other processes cost. A busy machine needs more runs to find it.
      let whole = Infinity;
      for (let run = 0; run < 20 && whole >= 10 * Math.max(quarter, 3_000); run++) {
        whole = Math.min(whole, work(piece, 65_536));
      }
      // Four times the text must be four times the work; with quadratic work it would be sixteen times. Times too short to measure count as equal.
      expect(whole / Math.max(quarter, 3_000), piece).toBeLessThan(10);
    }
  });
});

/** As UTF-16 or UTF-32. */
function wide(text: string, bits: 16 | 32, isBig: boolean): Buffer {
  const bytes = Buffer.from(text, "utf16le");
  const units = bits === 16 ? bytes : Buffer.from(Uint32Array.from(Array.from(text, (c) => c.charCodeAt(0))).buffer);
  if (!isBig) return units;
  return bits === 16 ? Buffer.from(units).swap16() : Buffer.from(units).swap32();
}

/** How long it takes to read an answer that repeats this piece, in microseconds. */
function work(piece: string, length: number): number {
  const body = Buffer.from(`x${piece.repeat(length / piece.length)}}`);
  const before = process.threadCpuUsage();
  processTokenResponse({ definition: plain, response: { status: 200, headers: {}, body }, secrets: [] });
  return process.threadCpuUsage(before).user;
}

/** The body of an answer that is kept, as it was sent. */
function rawBody({ rawAnswer = "" }: Failure): string {
  return Buffer.from((JSON.parse(rawAnswer) as { body: string }).body, "base64").toString();
}

test("text that no database can keep does not get as far as one", () => {
  const odd = ["a\0b", "\ud800", "good"];
  const capturing = define("response: { capture: { nul: /odd/0, half: /odd/1, good: /odd/2 } }");
  const grant = granted({ json: { access_token: "a", scope: odd, odd } }, capturing);
  expect(grant).toMatchObject({ scopes: ["good"], captured: { good: "good" } });
  const { detail } = failed({
    status: 400,
    json: { error: "x", error_description: `\ud800\0${"\u{1f600}".repeat(400)}` },
  });
  expect(detail.isWellFormed()).toBe(true);
  expect(detail).not.toMatch(/\p{Cc}/u);
});

test("nothing that an answer may hold makes it throw", () => {
  const definitions = [plain, builtin("shopware"), builtin("bol")];
  const body = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.json(),
    fc.constant("[".repeat(60_000)),
    fc.constant(`${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`),
  );
  const response = fc.record({
    status: fc.integer({ min: 100, max: 599 }),
    headers: fc.dictionary(fc.constantFrom("content-type", "retry-after", "date"), fc.string()),
    body: body.map((text) => Buffer.from(text)),
    complete: fc.boolean(),
  });
  fc.assert(
    fc.property(
      response,
      fc.constantFrom(...definitions),
      fc.array(fc.string({ unit: "binary" })),
      (answer, definition, secrets) => {
        const result = processTokenResponse({ definition, response: answer, secrets });
        if (result.kind === "failed") expect(result.failure.detail.length).toBeLessThanOrEqual(300);
      },
    ),
    { numRuns: 60 },
  );
});
