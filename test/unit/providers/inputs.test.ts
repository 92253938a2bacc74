import { describe, expect, test } from "vitest";
import { isAnchored } from "../../../src/providers/format/hosts.ts";
import {
  checkInputChanges,
  hostInputs,
  inputOwners,
  needsClientSecret,
  pinsDomain,
  requiredCredentials,
  requiredInputs,
  resolveClientInputs,
  resolveInputs,
  whyUnsendable,
} from "../../../src/providers/format/requirements.ts";
import { createDiscovery } from "../../../src/providers/oauth/discovery.ts";
import { builtin, define } from "./definitions.ts";

const lookupAt = (input: string) => `[{ request: { url: "https://{inputs.${input}}.x.example/me" }, pointer: /id }]`;
const invalid = (text: RegExp) =>
  expect.objectContaining({ code: "invalid_request", message: expect.stringMatching(text) });

describe("what cannot be sent where the definition puts it", () => {
  const definition = define(`
grants: [device_code]
inputs: { dev: { description: d }, plain: { description: p }, part: { description: p }, api: { description: a } }
device:
  url: https://login.example/device/{inputs.part}
  headers: { x-dev: "{inputs.dev}", x-id: "{client.id}" }
  fields: { plain: "{inputs.plain}" }
api: { headers: { x-api: "{inputs.api}" } }`);
  const change = (given: Record<string, string>) => checkInputChanges({ definition, given, hasClient: false });

  test.each([
    [{ dev: "é€" }, /^inputs\.dev is sent in a header/],
    [{ api: "注文" }, /^inputs\.api is sent in a header/],
    [{ part: ".." }, /^inputs\.part is a part of an address/],
  ])("%j is refused, and named", (given, text) => {
    expect(() => change(given as Record<string, string>)).toThrow(invalid(text));
  });

  test("what can be sent is taken", () => {
    const given = { dev: "Café 7", plain: "é€ ..", part: "é€", api: "x" };
    expect(change(given)).toEqual(given);
    expect(whyUnsendable(definition, "client.id", "app-€")).toContain("header");
    expect(whyUnsendable(definition, "client.secret", "s€cret")).toBeNull();
  });
});

describe("what a grant needs", () => {
  test("inputs are required only if a template in force uses them", () => {
    expect(requiredInputs(builtin("bakeronline"), "authorization_code")).toEqual(["device_id", "device_name"]);
    expect(requiredInputs(builtin("bakeronline"), "import")).toEqual([]);
    expect(requiredInputs(builtin("shopware"), "client_credentials")).toEqual(["shop_url"]);
    expect(requiredInputs(builtin("shopware"), "password")).toEqual(["shop_url"]);
    expect(requiredInputs(builtin("bol"), "client_credentials")).toEqual([]);
  });

  test("a lookup counts for the grants that it is for", () => {
    const definition = define(
      `grants: [authorization_code, client_credentials, password]
inputs: { usual: { pattern: "^[a-z]+$" }, machine: { pattern: "^[a-z]+$" } }
authorization: { url: https://x.example }
token: { url: https://x.example, grants: { client_credentials: { after_connect: ${lookupAt("machine")} }, password: { after_connect: [] } } }
after_connect: ${lookupAt("usual")}`,
      "id: own",
    );
    expect(requiredInputs(definition, "authorization_code")).toEqual(["usual"]);
    expect(requiredInputs(definition, "client_credentials")).toEqual(["machine"]);
    expect(requiredInputs(definition, "password")).toEqual([]);
    expect(hostInputs(definition)).toEqual(["usual", "machine"]);
    expect(whyUnsendable(definition, "inputs.machine", "a")).toBeNull();
  });

  test("credentials are those that its templates use", () => {
    expect(requiredCredentials(builtin("shopware"), "password")).toEqual(["username", "password"]);
    expect(requiredCredentials(builtin("shopware"), "client_credentials")).toEqual([]);
  });

  test.each<[string, "authorization_code" | "client_credentials" | "password" | "import", boolean]>([
    ["bakeronline", "authorization_code", false],
    ["apicbase", "import", true],
    ["apicbase-basic", "authorization_code", true],
    ["shopware", "client_credentials", true],
    ["shopware", "password", false],
    ["bol", "client_credentials", true],
  ])("%s by %s: a client secret is needed: %s", (id, grant, needed) => {
    expect(needsClientSecret(builtin(id), grant)).toBe(needed);
  });
});

describe("the inputs of a connection", () => {
  const bakeronline = builtin("bakeronline");
  const resolve = (given: Record<string, unknown>, definition = bakeronline) =>
    resolveInputs({ definition, grant: "authorization_code", given, clientInputs: {} });

  test("are generated and defaulted where nobody gave them", () => {
    const uuid = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;
    expect(resolve({})).toEqual({ device_id: expect.stringMatching(uuid), device_name: "Freshet" });
    expect(resolve({})["device_id"]).not.toBe(resolve({})["device_id"]);
    expect(resolve({ device_id: "till-3" })).toEqual({ device_id: "till-3", device_name: "Freshet" });
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ["an unknown one", { device: "x" }, /no input "device"; it has device_id, device_name/],
    ["one that is a property of every object", { constructor: "x" }, /no input "constructor"/],
    ["a number", { device_id: 5 }, /inputs\.device_id must be a string/],
    ["an empty one", { device_id: "" }, /inputs\.device_id must be a string that is not empty/],
    ["null", { device_id: null }, /inputs\.device_id must be a string/],
    ["one of two lines", { device_id: "a\r\nb" }, /inputs\.device_id must not hold control characters/],
    ["half a character", { device_id: "\ud800" }, /inputs\.device_id must not hold/],
    ["a very long one", { device_id: "x".repeat(2001) }, /inputs\.device_id must not be longer than 2000/],
  ])("%s is refused, naming the input and what is allowed", (_name, given, text) => {
    expect(() => resolve(given)).toThrow(invalid(text));
  });

  test("a list and a pattern are enforced, and named with the description", () => {
    const definition = define(`inputs:
  region: { enum: [eu, us] }
  shop: { pattern: "^[a-z]+$", description: the shop's short name }
api: { base_url: "https://{inputs.region}.shops.example/{inputs.shop}" }`);
    expect(resolve({ region: "eu", shop: "abc" }, definition)).toEqual({ region: "eu", shop: "abc" });
    expect(() => resolve({ region: "xx", shop: "abc" }, definition)).toThrow(
      invalid(/inputs\.region must be one of: eu, us/),
    );
    expect(() => resolve({ region: "eu", shop: "A1" }, definition)).toThrow(
      invalid(/inputs\.shop must match \^\[a-z\]\+\$ \(the shop's short name\)/),
    );
    expect(() => resolve({ region: "eu" }, definition)).toThrow(invalid(/inputs\.shop is required by provider own/));
    expect(() => resolve({ shop: "abc" }, definition)).toThrow(
      invalid(/inputs\.region is required by provider own, one of: eu, us/),
    );
  });

  test("changes are checked the same way, and nothing is added to them", () => {
    expect(checkInputChanges({ definition: bakeronline, given: { device_name: "Till" }, hasClient: true })).toEqual({
      device_name: "Till",
    });
    expect(() => checkInputChanges({ definition: bakeronline, given: { x: "y" }, hasClient: true })).toThrow(
      invalid(/no input "x"/),
    );
  });
});

describe("whoever creates connections does not choose where a client's secret is sent", () => {
  const shopware = builtin("shopware");
  const shop = { shop_url: "https://shop.example" };
  const resolve = (
    grant: "client_credentials" | "password",
    given: Record<string, unknown>,
    clientInputs: Record<string, string> | null,
  ) => resolveInputs({ definition: shopware, grant, given, clientInputs });

  test("a host input is set on the client, and taken from there", () => {
    expect(inputOwners({ definition: shopware, grant: "client_credentials", hasClient: true })).toEqual({
      client: ["shop_url"],
      connection: [],
    });
    expect(resolveClientInputs({ definition: shopware, given: shop })).toEqual(shop);
    expect(resolve("client_credentials", {}, shop)).toEqual({});
    expect(() => resolve("client_credentials", shop, shop)).toThrow(
      invalid(/inputs\.shop_url decides where the client's secret is sent: set it on the client/),
    );
    expect(() => resolve("client_credentials", {}, {})).toThrow(invalid(/inputs\.shop_url is missing on the client/));
    expect(() => checkInputChanges({ definition: shopware, given: shop, hasClient: true })).toThrow(
      invalid(/set it on the client/),
    );
  });

  test("and on the connection where there is no client", () => {
    expect(inputOwners({ definition: shopware, grant: "password", hasClient: false })).toEqual({
      client: [],
      connection: ["shop_url"],
    });
    expect(resolve("password", shop, null)).toEqual(shop);
    expect(() => resolve("password", {}, null)).toThrow(invalid(/inputs\.shop_url is required/));
  });

  test("or where its pattern stays within one domain", () => {
    const definition = define(`inputs: { shop: { pattern: "^[a-z0-9-]+$" } }
api: { base_url: "https://{inputs.shop}.shops.example" }`);
    expect(hostInputs(definition)).toEqual(["shop"]);
    expect(inputOwners({ definition, grant: "authorization_code", hasClient: true })).toEqual({
      client: [],
      connection: ["shop"],
    });
    const options = {
      definition,
      grant: "authorization_code",
      given: { shop: "a" },
      clientInputs: {},
    } as const;
    expect(resolveInputs(options)).toEqual({ shop: "a" });
    expect(() => resolveClientInputs({ definition, given: { shop: "a" } })).toThrow(
      invalid(/inputs\.shop is not an input of a client: this provider has none/),
    );
  });

  test.each([
    ["in its path, of one pattern", "https://login.example/{inputs.x}", '{ pattern: "^[a-z]+$" }'],
    ["in its path, of anything", "https://login.example/{inputs.x}", "{}"],
    ["in its host, within one domain", "https://{inputs.x}.logins.example", '{ pattern: "^[a-z]+$" }'],
    ["in its host, of a list", "https://{inputs.x}", "{ enum: [eu.logins.example, us.logins.example] }"],
  ])("nor whose metadata say where it is: an input %s", (_name, issuer, input) => {
    const owners = (head: string, hasClient = true) => {
      const definition = define(`issuer: "${issuer}"\ninputs: { x: ${input} }`, head);
      return inputOwners({ definition, grant: "authorization_code", hasClient });
    };
    expect(owners("id: own")).toEqual({ client: ["x"], connection: [] });
    expect(owners("id: own", false)).toEqual({ client: [], connection: ["x"] });
    // The issuer of a definition that has all of its addresses is compared alone.
    const whole = `id: own
authorization: { url: https://login.example/authorize }
token: { url: https://login.example/token }`;
    expect(owners(`${whole}\nrevocation: {}`)).toEqual({ client: ["x"], connection: [] });
    expect(owners(whole)).toEqual({ client: [], connection: ["x"] });
  });

  test("an input of the issuer goes on deciding where secrets go when its metadata have filled the addresses in", async () => {
    const file = `issuer: "https://login.example/{inputs.x}"
discovery: { metadata_url: "https://login.example/meta/{inputs.y}" }
inputs: { x: {}, y: {} }`;
    const definition = define(file, "id: own");
    const metadata = {
      issuer: "https://login.example/a",
      authorization_endpoint: "https://login.example/authorize",
      token_endpoint: "https://login.example/token",
    };
    const ask = async () => await Promise.resolve({ ok: true, status: 200, body: metadata, detail: "" });
    const discovery = createDiscovery({ oauth: { ask }, clock: { monotonicMs: () => 0 } });
    const whole = await discovery.complete(definition, { inputs: { x: "a", y: "b" } });
    expect(whole.exchanges.authorization_code?.url).toBe("https://login.example/token");
    expect([hostInputs(definition), hostInputs(whole)]).toEqual([
      ["x", "y"],
      ["x", "y"],
    ]);
    expect(inputOwners({ definition: whole, grant: "authorization_code", hasClient: true }).client).toEqual(["x", "y"]);
  });

  test("an input that decides the issuer is kept as long as what is stored for it", () => {
    const definition = define('issuer: "https://login.example/{inputs.x}"\ninputs: { x: {} }', "id: own");
    expect(hostInputs(definition)).toEqual(["x"]);
    expect(resolveClientInputs({ definition, given: { x: "a" } })).toEqual({ x: "a" });
    expect(() => checkInputChanges({ definition, given: { x: "a" }, hasClient: true })).toThrow(
      invalid(/decides where the client's secret is sent/),
    );
  });

  test.each([
    "ftp://shop.example",
    "https://shop.example/",
    "https://user@shop.example",
    "https://shop.example?x",
    "https://shop.example#x",
    "https://",
    "shop.example",
    "https://a b",
    "https://shop.example\\@evil.example",
  ])("a shop's address %s is refused", (shop_url) =>
    expect(() => resolveClientInputs({ definition: shopware, given: { shop_url } })).toThrow(
      invalid(/inputs\.shop_url must match/),
    ),
  );

  test.each(["https://shop.example", "https://shop.example:8443/a/b_c.d~e", "http://127.0.0.1:9000"])(
    "a shop's address %s is taken",
    (shop_url) => {
      expect(resolveClientInputs({ definition: shopware, given: { shop_url } })).toEqual({ shop_url });
    },
  );
});

const pins = (base_url: string, input: string) =>
  pinsDomain(define(`inputs: { x: ${input} }\napi: { base_url: "${base_url}" }`), "x");

describe("a pattern pins the domain", () => {
  test.each([
    ["https://{inputs.x}.shops.example", "{ pattern: '^[a-z0-9][a-z0-9-]*$' }"],
    ["https://{inputs.x}.shops.example/v1", "{ pattern: '^\\w{2,40}$' }"],
    ["https://{inputs.x}.shops.example:8443", "{ pattern: '^(?:eu|us)[0-9]?$' }"],
    ["https://{inputs.x}.shop.co.uk", "{ pattern: '^[a-z]+$' }"],
    ["{inputs.x}/api", "{ pattern: '^https://[a-z0-9-]+\\.shops\\.example$' }"],
    ["https://{inputs.x}", "{ enum: [eu.shop.example, us.shop.example] }"],
    ["https://{inputs.x}.shop.example", "{ enum: [eu, us] }"],
    ["{inputs.x}/api", "{ enum: [https://shop.co.uk, 'https://test.shop.co.uk:8443'] }"],
    ["https://{inputs.x}", "{ enum: [one.example] }"],
    // The definition vouches for the domains.
    ["https://login.shop.{inputs.x}", "{ enum: [example, test], hosts_of_one_owner: true }"],
  ])("%s with %s", (url, input) => expect(pins(url, input)).toBe(true));

  test.each([
    ["https://login.shop.{inputs.x}", "{ enum: [example, test] }"],
    ["https://{inputs.x}", "{ enum: [eu.shop.example, eu.other.example] }"],
    ["https://{inputs.x}", "{ enum: [one.co.uk, two.co.uk] }"],
    ["https://{inputs.x}", "{ enum: [one.com.au, two.com.au] }"],
    ["https://{inputs.x}", "{ enum: [127.0.0.1, 10.0.0.1] }"],
    ["https://{inputs.x}", "{ enum: [one.example, 'a b'] }"], // no host
    ["https://{inputs.x}.example", "{ pattern: '^[a-z]+$' }"], // one label alone
    ["https://{inputs.x}.co.uk", "{ pattern: '^[a-z]+$' }"], // a suffix that anyone registers in
    ["https://{inputs.x}", "{ pattern: '^[a-z.]+$' }"],
    ["https://login.shop.{inputs.x}", "{ pattern: '^[a-z]+$' }"],
    ["https://{inputs.x}.shops.example", "{ pattern: '^.+$' }"], // evil.test/
    ["https://{inputs.x}.shops.example", "{ pattern: '^[^.]+$' }"],
    ["https://{inputs.x}.shops.example", "{ pattern: '^[a-z/]+$' }"],
    ["https://{inputs.x}.shops.example", "{ pattern: '^[a-z]+[#?]?$' }"],
    ["https://{inputs.x}.shops.example", "{ pattern: '^[ -~]+$' }"],
    ["https://{inputs.x}.shops.example", "{ pattern: '^[!-~]+$' }"],
    ["https://{inputs.x}.shops.example", "{ pattern: '^\\S+$' }"],
    ["{inputs.x}", "{ pattern: '^https://[a-z.]+$' }"],
    ["{inputs.x}", "{ pattern: '^https://.*\\.shops\\.example$' }"], // evil.test/.shops.example
    ["{inputs.x}", "{ pattern: '^https://[a-z]+.shops.example$' }"], // an open dot
    ["{inputs.x}", "{ pattern: '^https://[a-z]+\\.shops\\.example(/.*)?$' }"],
    ["{inputs.x}", "{ pattern: '^https://([a-z]+\\.shops\\.example|evil\\.test)$' }"],
    ["{inputs.x}.shops.example", "{ pattern: '^https?://[a-z/]+$' }"],
  ])("not %s with %s", (url, input) => expect(pins(url, input)).toBe(false));

  test.each([
    ["^a$", true],
    ["^(a|b)$", true],
    ["^[|]$", true],
    ["^a\\|b$", true],
    ["^\\(a|b\\)$", false],
    ["^a|b$", false],
    ["^a", false],
    ["a$", false],
    ["^a\\$", false],
    ["^a\\\\$", true],
    ["^$", true],
  ])("%s is anchored: %s", (pattern, anchored) => expect(isAnchored(pattern)).toBe(anchored));
});
