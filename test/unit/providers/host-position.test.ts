import { describe, expect, test } from "vitest";
import { domainIsPinned } from "../../../src/providers/format/hosts.ts";
import { hostInputs, requiredInputs } from "../../../src/providers/format/requirements.ts";
import { isUsualHost } from "../../../src/providers/format/places.ts";
import { define } from "./definitions.ts";

const name = "response.host";
const pinned = (authority: string, pattern?: string) =>
  domainIsPinned({ authority, name, input: pattern === undefined ? {} : { pattern } });

/** Loads a definition whose API is at `baseUrl`, with this pattern for what an answer says. */
const load = (baseUrl: string, pattern: string) => () =>
  define(`response: { capture: { host: { pointer: /host, pattern: '${pattern}' } } }\napi: { base_url: "${baseUrl}" }`);

/** The same of a token endpoint. */
const loadToken = (pattern: string) => () =>
  define(
    `grants: [import]\nresponse: { capture: { host: { pointer: /host, pattern: '${pattern}' } } }`,
    'id: own\ntoken: { url: "https://{response.host}/token" }',
  );

describe("what an answer says decides a host", () => {
  test.each([
    ["https://{response.host}.example.com/v1", "^[a-z0-9-]+$"],
    ["https://{response.host}.example.com/v1", "^(?:eu|us)[0-9]{1,2}$"],
    ["https://{response.host}", "^[a-z0-9-]+\\.example\\.com$"],
    ["https://{response.host}", "^[a-z0-9-]+\\.shops\\.example\\.co\\.uk$"],
    ["{response.host}/api", "^https://[a-z0-9-]+\\.example\\.com$"],
    ["{response.host}/api", "^https:\\/\\/[\\w-]+\\.example\\.com$"],
  ])("at %s with %s, within one domain", (baseUrl, pattern) => {
    expect(load(baseUrl, pattern)).not.toThrow();
    expect(pinned(baseUrl.replace(/\}\/.*$/, "}").replace("/v1", ""), pattern)).toBe(true);
  });

  test.each([
    ["https://{response.host}", "^[a-z0-9.-]+$"],
    ["https://{response.host}", "^.+\\.example\\.com$"], // evil.test/.example.com
    ["https://{response.host}", "^[a-z]+.example.com$"], // an open dot
    ["https://{response.host}", "^[a-z]+\\.(example\\.com|evil\\.test)$"],
    ["https://{response.host}", "^[a-z]+\\.com$"], // one label alone
    ["https://{response.host}", "^[a-z]+\\.co\\.uk$"], // a suffix that anyone registers in
    ["https://{response.host}.example.com", "^[^/]+$"], // evil.test#
    ["https://{response.host}.example.com", "^[a-z@]+$"],
    ["https://{response.host}.com", "^[a-z]+$"],
    ["https://api.{response.host}", "^[a-z]+\\.example\\.com$"], // rather no than yes
    ["{response.host}/api", "^https://[a-z.]+$"],
    ["{response.host}/api", "^https://[a-z]+\\.example\\.com/.*$"],
    ["{response.host}/api", "^https?://[a-z]+\\.example\\.com$"],
  ])("not at %s with %s, which leaves the domain open", (baseUrl, pattern) => {
    expect(load(baseUrl, pattern)).toThrow(/the `pattern` of this capture must keep it within one domain/);
    expect(pinned(baseUrl.replace("/api", ""), pattern)).toBe(false);
  });

  test.each(["[a-z]+", "^[a-z]+", "[a-z]+$", "^a|b$"])("not with %s, which is not anchored", (pattern) => {
    expect(load("https://{response.host}.example.com", pattern)).toThrow(/must be anchored/);
    expect(pinned("https://{response.host}.example.com", pattern)).toBe(false);
  });

  test("not without a pattern", () => {
    expect(() =>
      define('response: { capture: { host: /host } }\napi: { base_url: "https://{response.host}" }'),
    ).toThrow(/this capture needs a `pattern`/);
    expect(pinned("https://{response.host}.example.com")).toBe(false);
  });

  test.each([
    [
      "a callback",
      "authorization: { callback: { capture: { host: { param: h, pattern: '^[a-z.]+$' } } } }",
      "callback",
    ],
    [
      "a lookup",
      "after_connect: [{ value: x }, { request: { url: https://x.example }, capture: { host: { pointer: /h, pattern: '^[a-z.]+$' } } }]",
      "account",
    ],
  ])("%s is held to the same", (_name, capture, root) => {
    const file = (pattern: string) =>
      `${capture.replace("^[a-z.]+$", pattern)}\napi: { base_url: "https://{${root}.host}" }`;
    const head =
      root === "callback" ? "id: own\ngrants: [import]\ntoken: { url: https://login.example/token }" : undefined;
    expect(() => define(file("^[a-z.]+$"), head)).toThrow(/must keep it within one domain/);
    expect(() => define(file("^[a-z]+\\.example\\.com$"), head)).not.toThrow();
  });

  test("a token endpoint's address is held to the same: secrets are sent there", () => {
    expect(loadToken("^[a-z.]+$")).toThrow(/token\.url: .*within one domain/);
    expect(loadToken("^[a-z]+\\.example\\.com$")).not.toThrow();
  });
});

describe("a capture with a closed list decides a host", () => {
  const head =
    "id: own\ngrants: [authorization_code, import]\ninputs: { dc: { enum: [eu, com], default: eu }, free: {} }";
  const list = "enum: [https://login.one.eu, https://login.one.com, https://two.ca]";
  const file = (rule: string, url: string) => () =>
    define(
      `token: { url: "${url}" }\nauthorization: { url: https://two.ca/authorize, callback: { capture: { server: { param: accounts-server, ${rule} } } } }`,
      head,
    );

  test.each([
    ["{callback.server}/token", list],
    ["https://{callback.server}/token", "enum: [login.one.eu, two.ca]"],
    ["{callback.server}/token", `${list}, default: "https://login.one.{inputs.dc}"`],
    ["{callback.server}/token", `${list}, default: https://two.ca`],
  ])("at %s with %s", (url, rule) => {
    expect(file(rule, url)).not.toThrow();
  });

  test.each([
    [
      "a part of a host",
      "https://login.one.{callback.server}/token",
      "enum: [eu, com]",
      /stands there as a whole host/,
    ],
    [
      "more than a host",
      "{callback.server}/token",
      "enum: [https://two.ca/x]",
      /https:\/\/two\.ca\/x in its `enum` is not a whole host/,
    ],
    ["a user name", "{callback.server}/token", "enum: ['https://a@two.ca']", /is not a whole host/],
    [
      "no scheme where one is needed",
      "{callback.server}/token",
      "enum: [two.ca]",
      /two\.ca in its `enum` is not a whole host/,
    ],
    ["a slash behind the host", "https://{callback.server}/token", "enum: [two.ca/]", /is not a whole host/],
    ["an odd spelling", "https://{callback.server}/token", "enum: [Two.ca]", /is not a whole host/],
    [
      "neither list nor pattern",
      "{callback.server}/token",
      "default: https://two.ca",
      /this capture needs a `pattern`/,
    ],
    ["list and pattern", "{callback.server}/token", `${list}, pattern: "^x$"`, /either `pattern` or `enum`, not both/],
    [
      "a default outside of the list",
      "{callback.server}/token",
      `${list}, default: https://three.eu`,
      /default: https:\/\/three\.eu is not in its `enum`/,
    ],
    [
      "a default that an input takes outside",
      "{callback.server}/token",
      `enum: [https://login.one.eu], default: "https://login.one.{inputs.dc}"`,
      /default: https:\/\/login\.one\.com is not in its `enum`/,
    ],
    [
      "a default of a free input",
      "{callback.server}/token",
      `${list}, default: "{inputs.free}"`,
      /default: \{inputs\.free\} needs an `enum` of its own/,
    ],
    [
      "a default of something else",
      "{callback.server}/token",
      `${list}, default: "{client.id}"`,
      /default: \{client\.id\} is not known here/,
    ],
  ])("not with %s", (...[, url, rule, why]) => {
    expect(file(rule, url)).toThrow(why);
  });

  test("a capture without a list or a pattern does not load, and is told with its line", () => {
    expect(() =>
      define(
        'token: { url: "{callback.server}/token" }\nauthorization: { url: https://two.ca/authorize, callback: { capture: { server: s } } }',
        head,
      ),
    ).toThrow(
      /own\.yaml:\d+:\d+: token\.url: \{callback\.server\} .*this capture needs a `pattern` .* or an `enum` of whole hosts/,
    );
  });

  test("the hosts of the list are the definition's own, so that what they say is told", () => {
    const definition = file(list, "{callback.server}/token")();
    const hosts = [
      "https://login.one.com/x",
      "https://two.ca/token",
      "https://evil.test/",
      "https://login.one.cn/token",
    ];
    expect(hosts.map((url) => isUsualHost(definition, url))).toEqual([true, true, false, false]);
  });

  test("the input that its default is made of is one that decides a host", () => {
    const definition = file(`${list}, default: "https://login.one.{inputs.dc}"`, "{callback.server}/token")();
    expect(hostInputs(definition)).toEqual(["dc"]);
    expect(requiredInputs(definition, "import")).toEqual(["dc"]);
  });
});
