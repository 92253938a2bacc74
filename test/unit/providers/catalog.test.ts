import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { StartupError } from "../../../src/errors.ts";
import { checkProviderFile, loadCatalog } from "../../../src/providers/catalog.ts";
import { builtin, builtinFolder, catalogWith, folderOf, sandboxAddress } from "./definitions.ts";

const token = "token: { url: https://login.example/token }";
const own = `id: own\nauthorization: { url: https://login.example/authorize }\n${token}\n`;

function problemsOf(yaml: string | Uint8Array): string[] {
  const folder = folderOf({ "own.yaml": yaml });
  const file = join(folder, "own.yaml");
  return checkProviderFile(file, { builtinFolder: folderOf({}), extraFolder: null }).map((problem) =>
    problem.replace(`${file}:`, ""),
  );
}

describe("the built-in definitions", () => {
  test("all of them load, and only oauth2 is there to be extended alone", () => {
    const catalog = loadCatalog({ builtinFolder, extraFolder: null, sandbox: sandboxAddress });
    const ids = ["apicbase", "apicbase-basic", "bakeronline", "bol", "bol-form", "oauth2", "sandbox", "shopware"];
    expect(catalog.list().map(({ id }) => id)).toEqual(ids);
    expect(catalog.list().filter(({ usable }) => !usable)).toEqual([catalog.get("oauth2")]);
  });

  test("each file passes the check of the command line", () => {
    for (const { id } of loadCatalog({ builtinFolder, extraFolder: null, sandbox: sandboxAddress }).list()) {
      expect(checkProviderFile(join(builtinFolder, `${id}.yaml`), { builtinFolder, extraFolder: null })).toEqual([]);
    }
  });

  test("the sandbox is at this broker's own addresses, and is not there when it is off", () => {
    const sandbox = builtin("sandbox");
    expect(sandbox.isSandbox).toBe(true);
    expect(sandbox.authorization?.url).toBe("https://broker.example/sandbox/authorize");
    expect(sandbox.exchanges.authorization_code?.url).toBe("http://127.0.0.1:8080/sandbox/token");
    expect(sandbox.revocation?.url).toBe("http://127.0.0.1:8080/sandbox/revoke");
    expect(loadCatalog({ builtinFolder, extraFolder: null, sandbox: null }).get("sandbox")).toBeUndefined();
  });

  test("a definition cannot be changed once it is loaded", () => {
    const definition = builtin("bakeronline");
    expect(() => Object.assign(definition.refresh, { reuse: "safe" })).toThrow(TypeError);
    expect(() => Object.assign(definition.exchanges.authorization_code?.fields ?? {}, { x: "y" })).toThrow(TypeError);
  });
});

describe("what a file leaves out", () => {
  test("has the strict default", () => {
    const definition = catalogWith({ "own.yaml": own }).get("own");
    expect(definition?.grants).toEqual(["authorization_code"]);
    expect(definition?.authorization).toMatchObject({ pkce: "required", pkceMethod: "S256", manualCode: false });
    expect(definition?.refresh).toEqual({
      rotation: "auto",
      reuse: "kills_family",
      graceSeconds: 0,
      oldAccessTokenDies: true,
      aheadFraction: 0.25,
      minAgeSeconds: 0,
      idleLifeSeconds: null,
      absoluteLifeSeconds: null,
    });
    expect(definition?.response.expires).toEqual({
      from: "expires_in",
      pointer: "/expires_in",
      unit: "s",
      fallbackSeconds: 3600,
    });
  });
});

describe("extends", () => {
  test("maps merge, everything else replaces", () => {
    const catalog = catalogWith({
      "mine.yaml": "id: mine\nextends: bakeronline\ngrants: [import]\ntoken: { headers: { x-version: '2.0.0' } }",
    });
    const mine = catalog.get("mine");
    expect(mine?.grants).toEqual(["import"]);
    expect(mine?.refreshes.import?.headers).toEqual({ accept: "application/json", "x-version": "2.0.0" });
    expect(mine?.refreshes.import?.url).toBe("https://accounts.bakeronline.be/api/token");
    expect(mine?.name).toBe("Bakeronline");
    expect(mine?.isSandbox).toBe(false);
  });

  test("a file may take the place of the built-in that it extends, for those that extend it too", () => {
    const catalog = catalogWith({
      "apicbase.yaml": "id: apicbase\nextends: apicbase\nname: Mine\ntoken: { url: https://other.example/token/ }",
    });
    expect(catalog.get("apicbase")?.exchanges.authorization_code).toMatchObject({
      url: "https://other.example/token/",
      clientAuth: "body",
    });
    expect(catalog.get("apicbase-basic")?.exchanges.authorization_code).toMatchObject({
      url: "https://other.example/token/",
      clientAuth: "basic",
    });
  });

  test("null takes out a header and a field that the extended definition has", () => {
    const yaml = `id: mine
extends: bakeronline
token: { headers: { x-version: null }, grants: { authorization_code: { fields: { device_name: null } } } }`;
    const exchange = catalogWith({ "mine.yaml": yaml }).get("mine")?.exchanges.authorization_code;
    expect(exchange?.headers).toEqual({ accept: "application/json" });
    expect(Object.keys(exchange?.fields ?? {})).toEqual(["client_id", "code", "code_verifier", "device_id"]);
  });

  test("a circle, an unknown id and two files with one id are named", () => {
    const a = "id: a\nextends: b\n";
    const b = "id: b\nextends: a\n";
    expect(() => catalogWith({ "a.yaml": a, "b.yaml": b })).toThrow(/a\.yaml:2:1|b\.yaml:2:1/);
    expect(() => catalogWith({ "a.yaml": a, "b.yaml": b })).toThrow(/goes round in a circle/);
    expect(() => catalogWith({ "a.yaml": "id: a\nextends: a\n" })).toThrow(
      /a\.yaml:2:1: extends a, which is no provider/,
    );
    expect(() => catalogWith({ "a.yaml": "id: a\nextends: oauth\n" })).toThrow(/there are apicbase, .*oauth2/);
    expect(() => catalogWith({ "a.yaml": own, "b.yaml": own })).toThrow(
      /b\.yaml:1:1: the id own is that of .*a\.yaml too/,
    );
    const bol = "id: bol\ntoken: { url: https://x.example }\n";
    expect(() => catalogWith({ "bol.yaml": bol })).toThrow(/add "extends: bol"/);
  });

  test("what extends the sandbox is told when the sandbox is off", () => {
    const extraFolder = folderOf({ "a.yaml": "id: a\nextends: sandbox\n" });
    const load = () => loadCatalog({ builtinFolder, extraFolder, sandbox: null });
    expect(load).toThrow(/a\.yaml:2:1: extends sandbox, which there is none of while the sandbox is off/);
  });

  test("a fault is told at the line of the file that holds it", () => {
    const folder = folderOf({
      "base.yaml": "id: base\ntoken:\n  headers: { x: '{inputs.nope}' }\n",
      "top.yaml": "id: top\nextends: base\n",
    });
    const load = () => loadCatalog({ builtinFolder, extraFolder: folder, sandbox: null });
    expect(load).toThrow(/base\.yaml:3:14: token\.headers\.x: \{inputs\.nope\} is not declared in `inputs`/);
  });
});

describe("a wrong file stops the start with its line and what was expected", () => {
  const cases: [string, string | Uint8Array, RegExp][] = [
    ["an empty file", "", /^1:1: the file is empty/],
    ["a file of comments", "# nothing\n", /^1:1: the file is empty/],
    ["a list", "- id: x\n", /^1:1: a map of knobs was expected/],
    [
      "a tab for indentation",
      "id: own\ntoken:\n\turl: https://x.example\n",
      /^3:1: Tabs are not allowed as indentation/,
    ],
    ["a key that stands twice", "id: own\nname: a\nname: b\n", /^3:1: this key stands twice/],
    ["bytes that are not UTF-8", Buffer.from("id: own\nname: caf\xe9\n", "latin1"), /^2:1: the file is not UTF-8/],
    ["an alias", "id: own\nname: &a x\ndocs: *a\n", /^3:7: aliases/],
    ["broken YAML", "id: [own\n", /^\d+:\d+: /],
    ["two documents", "id: own\n---\nid: two\n", /^\d+:\d+: .*document/i],
    ["a file without an id", "name: x\n", /`id` is missing/],
    ["an id that no path can hold", "id: Own/1\n", /^1:1: id: must match/],
    [
      "a misspelt knob",
      `${own}refresh:\n  rotaton: auto\n`,
      /^5:3: refresh\.rotaton: unknown knob `rotaton`; did you mean `rotation`\?/,
    ],
    [
      "a misspelt knob of the top",
      `${own}respons: {}\n`,
      /^4:1: respons: unknown knob `respons`; did you mean `response`\?/,
    ],
    ["a knob that is like no other", `${own}refresh: { zzz: 1 }\n`, /known here: rotation, reuse/],
    ["a knob that is yet to come", `${own}introspection: { url: https://x.example }\n`, /unknown knob `introspection`/],
    [
      "a word that is not allowed",
      `${own}refresh: { reuse: maybe }\n`,
      /must be one of: safe, grace, until_successor_used, dead, kills_family/,
    ],
    [
      "a grant of another time",
      `id: own\n${token}\ngrants: [implicit]\n`,
      /^3:10: grants\.0: must be one of: authorization_code/,
    ],
    ["a number for a text", `id: own\nname: 5\n`, /^2:1: name: must be a text/],
    ["a text for a number", `${own}refresh: { grace_s: "5" }\n`, /refresh\.grace_s: must be a whole number/],
    ["a number out of range", `${own}refresh: { ahead: 2 }\n`, /refresh\.ahead: .*0\.9/],
    ["a name that no template can hold", `${own}inputs: { "a-b": {} }\n`, /inputs\.a-b: `a-b` is not a name/],
    ["a pointer without its slash", `${own}response: { access_token: token }\n`, /response\.access_token: must match/],
    [
      "an authorization code grant without its address",
      `id: own\n${token}\ngrants: [authorization_code]\n`,
      /^3:1: grants: .*`authorization\.url` is missing/,
    ],
    [
      "an unknown template",
      `${own}api: { headers: { x: "{nope}" } }\n`,
      /api\.headers\.x: \{nope\} is not known here; allowed: \{client\.id\}, \{inputs\.X\}/,
    ],
    [
      "the client's secret in what callers get",
      `${own}api: { headers: { x: "{client.secret}" } }\n`,
      /\{client\.secret\} is not known here/,
    ],
    [
      "a sandbox template in another file",
      `${own}docs: x\napi: { base_url: "{sandbox.public_url}" }\n`,
      /\{sandbox\.public_url\} is not known here/,
    ],
    [
      "a refresh token in a code exchange",
      `id: own\nauthorization: { url: https://x.example }\ntoken: { url: https://x.example, grants: { authorization_code: { fields: { a: "{refresh_token}" } } } }`,
      /token\.grants\.authorization_code\.fields\.a: \{refresh_token\} is not known here/,
    ],
    [
      "an input that is not declared",
      `${own}api: { base_url: "https://x.example/{inputs.shop}" }\n`,
      /\{inputs\.shop\} is not declared/,
    ],
    [
      "a captured value that nothing captures",
      `${own}api: { base_url: "https://x.example/{response.shop}" }\n`,
      /\{response\.shop\} is not in `response\.capture`/,
    ],
    ["a brace alone", `${own}api: { headers: { x: "a{b" } }\n`, /has a brace outside a template/],
    [
      "a host without a pattern",
      `${own}inputs: { shop: {} }\napi: { base_url: "https://{inputs.shop}.example" }\n`,
      /stands where the host is decided: its input needs a `pattern`/,
    ],
    [
      "a host with an open pattern",
      `${own}inputs: { shop: { pattern: "[a-z]+" } }\napi: { base_url: "https://{inputs.shop}.example" }\n`,
      /must be anchored/,
    ],
    [
      "a host with a pattern open on one side",
      `${own}inputs: { shop: { pattern: "^a|b$" } }\napi: { base_url: "https://{inputs.shop}.example" }\n`,
      /must be anchored/,
    ],
    [
      "a host from an answer",
      `${own}response: { capture: { host: /host } }\napi: { base_url: "https://{response.host}" }\n`,
      /only an input may stand there/,
    ],
    [
      "an address whose input has no scheme",
      `${own}inputs: { shop: { pattern: "^[a-z.]+$" } }\napi: { base_url: "{inputs.shop}/api" }\n`,
      /api\.base_url: the input that it starts with must begin with https/,
    ],
    [
      "a URL that is not https",
      `id: own\ngrants: [import]\ntoken: { url: ftp://x.example }\n`,
      /token\.url: must be an https URL/,
    ],
    [
      "a URL with a password",
      `id: own\ngrants: [import]\ntoken: { url: "https://a:b@x.example" }\n`,
      /user name or password/,
    ],
    ["a URL with a fragment", `id: own\ngrants: [import]\ntoken: { url: "https://x.example/#a" }\n`, /fragment/],
    [
      "a pattern that is none",
      `${own}inputs: { shop: { pattern: "[" } }\n`,
      /inputs\.shop\.pattern: is not a regular expression/,
    ],
    [
      "a default that its own pattern refuses",
      `${own}inputs: { shop: { pattern: "^a$", default: b } }\n`,
      /does not fit/,
    ],
    ["a default that is not of its list", `${own}inputs: { shop: { enum: [a], default: b } }\n`, /does not fit/],
    ["a rule for every answer", `${own}errors: [{ endpoint: token, means: blocked }]\n`, /errors\.0: a rule needs/],
    [
      "a pointer without its value",
      `${own}errors: [{ endpoint: token, pointer: /a, means: blocked }]\n`,
      /goes with `equals` or `regex`/,
    ],
    [
      "a token rule with an API meaning",
      `${own}errors: [{ endpoint: token, status: 401, means: access_token_expired }]\n`,
      /is for `endpoint: api`/,
    ],
    [
      "an API rule with a token meaning",
      `${own}errors: [{ endpoint: api, status: 401, means: blocked }]\n`,
      /goes with `means: access_token_expired`/,
    ],
    [
      "an API rule by pointer",
      `${own}errors: [{ endpoint: api, pointer: /a, equals: b, means: access_token_expired }]\n`,
      /told by `status` and `body`/,
    ],
    [
      "a rule's expression that is none",
      `${own}errors: [{ endpoint: token, body: "(", means: blocked }]\n`,
      /errors\.0\.body: is not a regular expression/,
    ],
    ["a grace of no length", `${own}refresh: { reuse: grace }\n`, /needs a `grace_s`/],
    ["a fixed life of no length", `${own}response: { expires: { from: fixed } }\n`, /needs the life in `fallback`/],
    [
      "a state left out",
      `id: own\nauthorization: { url: https://x.example, params: { state: null } }\n${token}\n`,
      /state cannot be left out/,
    ],
    [
      "a header that is none",
      `id: own\ngrants: [import]\ntoken: { url: https://x.example, headers: { "a b": x } }\n`,
      /is not a header name/,
    ],
    [
      "a header of the broker's own",
      `id: own\ngrants: [import]\ntoken: { url: https://x.example, headers: { Host: x } }\n`,
      /set by the broker itself/,
    ],
    [
      "a header of two lines",
      `id: own\ngrants: [import]\ntoken: { url: https://x.example, headers: { x: "a\\nb" } }\n`,
      /control characters/,
    ],
    [
      "the secret in the URL",
      `id: own\ngrants: [client_credentials]\ntoken: { url: https://x.example, encoding: query, client_auth: body }\n`,
      /would put the secret in the URL/,
    ],
    [
      "a refresh token in the URL",
      `id: own\ngrants: [import]\ntoken: { url: https://x.example, encoding: query }\n`,
      /`refresh_token` is a secret, and secrets are refused in `encoding: query`/,
    ],
    [
      "a password in the URL",
      `id: own\ngrants: [password]\ntoken: { url: https://x.example, encoding: query }\n`,
      /`password` is a secret/,
    ],
    [
      "a GET with a body",
      `id: own\ngrants: [client_credentials]\ntoken: { url: https://x.example, method: GET }\n`,
      /goes with `encoding: query`/,
    ],
  ];

  test.each(cases)("%s", (_name, yaml, expected) => {
    const problems = problemsOf(yaml);
    expect(problems.join("\n")).toMatch(new RegExp(expected.source, "m"));
    const folder = folderOf({ "own.yaml": yaml });
    const load = () => loadCatalog({ builtinFolder: folder, extraFolder: null, sandbox: null });
    expect(load).toThrow(StartupError);
    expect(load).toThrow(/^[^\n]+$/);
  });

  test("the check lists every problem, the start the first and how many more", () => {
    const yaml = `${own}refresh: { reuse: maybe, ahead: 7 }\nnme: x\n`;
    expect(problemsOf(yaml)).toHaveLength(3);
    expect(() => catalogWith({ "own.yaml": yaml })).toThrow(/\(and 2 more/);
  });

  test("a folder that is not there is named", () => {
    const extraFolder = "/nowhere/at/all";
    expect(() => loadCatalog({ builtinFolder, extraFolder, sandbox: null })).toThrow(
      /\/nowhere\/at\/all cannot be read \(ENOENT\)/,
    );
  });

  test("a file that is not there is named", () => {
    expect(checkProviderFile("/nowhere.yaml", { builtinFolder, extraFolder: null })).toEqual([
      "/nowhere.yaml: cannot be read (ENOENT)",
    ]);
  });
});
