import { readdirSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { StartupError } from "../../../src/errors.ts";
import { checkProviderFile, loadCatalog } from "../../../src/providers/load/catalog.ts";
import { fileFrom } from "../../providers/settings/base.ts";
import { at } from "../../providers/settings/row.ts";
import { builtinFolder, builtins, sandboxAddress } from "../../support/built-ins.ts";
import { builtin, catalogWith, fewBuiltins, folderOf } from "./definitions.ts";

const token = "token: { url: https://login.example/token }";
const withKey = `inputs: { key: { secret: true, pattern: "^[a-z]+$" } }\n`;
const own = `id: own\nauthorization: { url: https://login.example/authorize }\n${token}\n`;

function problemsOf(yaml: string | Uint8Array): string[] {
  const folder = folderOf({ "own.yaml": yaml });
  const file = join(folder, "own.yaml");
  return checkProviderFile(file, { builtinFolder: folderOf({}), extraFolder: null }).map((problem) =>
    problem.replace(`${file}:`, ""),
  );
}

describe("the built-in definitions", () => {
  test("all of them load, each under its file's name, and two are there to be extended alone", async () => {
    const catalog = builtins();
    const ids = (await catalog.list()).map(({ id }) => id);
    const names = readdirSync(builtinFolder).filter((name) => name.endsWith(".yaml"));
    expect(ids.map((id) => `${id}.yaml`).toSorted()).toEqual(names.toSorted());
    const promised = [
      "apicbase",
      "apicbase-basic",
      "bakeronline",
      "bol",
      "bol-form",
      "oauth2",
      "oidc",
      "sandbox",
      "shopware",
    ];
    expect(ids).toEqual(expect.arrayContaining(promised));
    const generic = (await catalog.list()).filter(({ usable }) => !usable);
    expect(generic.map(({ id }) => id)).toEqual(["oauth2", "oidc"]);
  });

  test("each file passes the check of the command line", async () => {
    for (const { id } of await builtins().list()) {
      expect(checkProviderFile(join(builtinFolder, `${id}.yaml`), { builtinFolder, extraFolder: null })).toEqual([]);
    }
  });

  test("the sandbox is at this broker's own addresses, and is not there when it is off", () => {
    const definition = builtin("sandbox");
    expect(definition.isSandbox).toBe(true);
    expect(definition.authorization?.url).toBe("https://broker.example/sandbox/authorize");
    expect(definition.exchanges.authorization_code?.url).toBe("http://127.0.0.1:8080/sandbox/token");
    expect(definition.revocation?.url).toBe("http://127.0.0.1:8080/sandbox/revoke");
    const few = { builtinFolder: fewBuiltins, extraFolder: null };
    expect(loadCatalog({ ...few, sandbox: sandboxAddress }).get("sandbox")).toBeDefined();
    expect(loadCatalog({ ...few, sandbox: null }).get("sandbox")).toBeUndefined();
  });

  test("the sandbox is at its broker, however that is reached", () => {
    const sandbox = { publicUrl: "http://broker.internal/sandbox", localUrl: "http://10.0.0.5:8080/sandbox" };
    const catalog = loadCatalog({ builtinFolder: fewBuiltins, extraFolder: null, sandbox });
    expect(catalog.get("sandbox")?.authorization?.url).toBe("http://broker.internal/sandbox/authorize");
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
      deadGrant: null,
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
      clientAuth: { kind: "body" },
    });
    expect(catalog.get("apicbase-basic")?.exchanges.authorization_code).toMatchObject({
      url: "https://other.example/token/",
      clientAuth: { kind: "basic" },
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
    expect(() => catalogWith({ "a.yaml": "id: a\nextends: oauth\n" })).toThrow(/did you mean "oauth2"\?/);
    expect(() => catalogWith({ "a.yaml": "id: a\nextends: zzzzzzzz\n" })).toThrow(/there are .*apicbase, .*oauth2/);
    expect(() => catalogWith({ "a.yaml": own, "b.yaml": own })).toThrow(
      /b\.yaml:1:1: the id own is that of .*a\.yaml too/,
    );
    const bol = "id: bol\ntoken: { url: https://x.example }\n";
    expect(() => catalogWith({ "bol.yaml": bol })).toThrow(/add "extends: bol"/);
  });

  test("what extends the sandbox is told when the sandbox is off", () => {
    const extraFolder = folderOf({ "a.yaml": "id: a\nextends: sandbox\n" });
    const load = () => loadCatalog({ builtinFolder: fewBuiltins, extraFolder, sandbox: null });
    expect(load).toThrow(/a\.yaml:2:1: extends sandbox, which there is none of while the sandbox is off/);
  });

  test("a fault is told at the line of the file that holds it", () => {
    const folder = folderOf({
      "base.yaml": "id: base\ntoken:\n  headers: { x: '{inputs.nope}' }\n",
      "top.yaml": "id: top\nextends: base\n",
    });
    const load = () => loadCatalog({ builtinFolder: fewBuiltins, extraFolder: folder, sandbox: null });
    expect(load).toThrow(/base\.yaml:3:14: token\.headers\.x: \{inputs\.nope\} is not declared in `inputs`/);
  });
});

const capturesOrg = "capture: { org: /org }";
/** A place for a template in a lookup; a lookup with a template there whose value is not known yet; the path in the message. */
const lateLookups: [string, string, string][] = [
  [
    "in its address",
    `after_connect: [{ request: { url: "https://x.example/{account.org}" }, ${capturesOrg} }]`,
    "request\\.url",
  ],
  [
    "in a field",
    `after_connect: [{ request: { url: https://x.example, fields: { o: "{account.org}" } }, ${capturesOrg} }]`,
    "request\\.fields\\.o",
  ],
  [
    "in a header",
    `after_connect: [{ request: { url: https://x.example, headers: { o: "{account.org}" } }, ${capturesOrg} }]`,
    "request\\.headers\\.o",
  ],
  [
    "in the header that authenticates",
    `after_connect: [{ request: { url: https://x.example, client_auth: { header: o, value: "{account.org}" } }, ${capturesOrg} }]`,
    "request",
  ],
  [
    "in the pair of Basic",
    `after_connect: [{ request: { url: https://x.example, client_auth: { basic: "{account.org}:" } }, ${capturesOrg} }]`,
    "request",
  ],
  [
    "in the authorization of api",
    `api: { authorization: "Bearer {account.org}" }\nafter_connect: [{ request: { url: https://x.example }, ${capturesOrg} }]`,
    "request",
  ],
  [
    "as the account's name",
    `after_connect: [{ value: "{account.org}" }, { request: { url: https://x.example }, ${capturesOrg} }]`,
    "value",
  ],
  [
    "in what it selects by",
    `after_connect: [{ request: { url: https://x.example }, select: { where: /id, equals: "{account.org}" }, ${capturesOrg} }]`,
    "select\\.equals",
  ],
];

const underPassword = (lookups: string) =>
  `id: own\ngrants: [password, import]\ntoken: { url: https://x.example, grants: { password: { after_connect: ${lookups} } } }\n`;

/** Faults of a grant's own lookups. */
const lookupFaults: [string, string, string][] = [
  ["a lookup without an address", "[{ request: {}, pointer: /id }]", "\\.0\\.request: `url` is missing"],
  ["a lookup that neither asks nor says", "[{ pointer: /id }]", "\\.0: a lookup has either"],
  [
    "a secret in the URL of a lookup",
    `[{ request: { url: https://x.example, fields: { t: "{access_token}" } } }]`,
    "\\.0\\.request\\.fields\\.t: `t` is a secret",
  ],
  [
    "a lookup that needs what it captures itself",
    `[{ request: { url: "https://x.example/{account.org}" }, ${capturesOrg} }]`,
    "\\.0\\.request\\.url: \\{account\\.org\\} is captured by this lookup or a later one",
  ],
  ["a value that nobody captures", `[{ value: "{account.nope}" }]`, "\\.0\\.value: \\{account\\.nope\\} is not in the"],
];

/** A header of api, and a lookup that captures its value. */
const apiHeader = (headers: string) => `${own}api: { headers: { X-Org: "{account.org}" } }
after_connect:
  - request: { url: https://x.example/me${headers} }
    capture: { org: /org }
  - request: { url: "https://x.example/{account.org}" }
    pointer: /name
`;

const codeFields = (pkce: string, fields: string) =>
  `id: own\nauthorization: { url: https://x.example, pkce: "${pkce}" }\ntoken: { url: https://x.example, grants: { authorization_code: { fields: { ${fields} } } } }`;

/** What the check says about a token endpoint, in a built-in file or in a file of one's own. */
/** What a built-in file has to state. */
const stated = "refresh: { dead_grant: [{ status: 400, body: { error: invalid_grant } }] }\n";

const tokenUrlProblems = (url: string, isBuiltin: boolean) => {
  const folder = folderOf({ "own.yaml": `id: own\ngrants: [import]\ntoken: { url: "${url}" }\n${stated}` });
  const folders = { builtinFolder: isBuiltin ? folder : folderOf({}), extraFolder: null };
  return checkProviderFile(join(folder, "own.yaml"), folders).map((text) => text.replace(`${folder}/`, ""));
};

describe("a wrong file stops the start with its line and what was expected", () => {
  const cases: [string, string | Uint8Array, RegExp][] = [
    ["an empty file", "", /^1:1: the file is empty/],
    ["a file of comments", "# nothing\n", /^1:1: the file is empty/],
    ["a list", "- id: x\n", /^1:1: a map of settings was expected/],
    [
      "a tab for indentation",
      "id: own\ntoken:\n\turl: https://x.example\n",
      /^3:1: this line is indented by a tab: use spaces$/,
    ],
    ["a key that stands twice", "id: own\nname: a\nname: b\n", /^3:1: this key stands twice/],
    ["bytes that are not UTF-8", Buffer.from("id: own\nname: caf\xe9\n", "latin1"), /^2:1: the file is not UTF-8/],
    ["an alias", "id: own\nname: &a x\ndocs: *a\n", /^3:7: aliases/],
    ["broken YAML", "id: [own\n", /^\d+:\d+: /],
    ["two documents", "id: own\n---\nid: two\n", /^\d+:\d+: .*document/i],
    ["a file without an id", "name: x\n", /`id` is missing/],
    ["an id that no path can hold", "id: Own/1\n", /^1:1: id: must match/],
    [
      "a misspelt setting",
      `${own}refresh:\n  rotaton: auto\n`,
      /^5:3: refresh\.rotaton: unknown setting `rotaton`; did you mean `rotation`\?/,
    ],
    [
      "a misspelt setting of the top",
      `${own}respons: {}\n`,
      /^4:1: respons: unknown setting `respons`; did you mean `response`\?/,
    ],
    ["a setting that is like no other", `${own}refresh: { zzz: 1 }\n`, /known here: rotation, reuse/],
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
      /this capture needs a `pattern`/,
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
      "the client's secret in an address",
      `id: own\ngrants: [import]\ntoken: { url: "https://x.example/{client.secret}" }\n`,
      /token\.url: \{client\.secret\} is refused: a secret never stands in a URL; use `client_auth`/,
    ],
    [
      "the token to revoke in an address",
      `${own}revocation: { url: "https://x.example/{access_token}" }\n`,
      /revocation\.url: \{access_token\} is refused: a secret never stands in a URL/,
    ],
    [
      "a secret input in the URL",
      `id: own\ngrants: [client_credentials]\n${withKey}token: { url: https://x.example, encoding: query, grants: { client_credentials: { fields: { k: "{inputs.key}" } } } }`,
      /token\.grants\.client_credentials\.fields\.k: `k` is a secret, and secrets are refused in `encoding: query`/,
    ],
    [
      "a secret input in the URL of a lookup",
      `${own}${withKey}after_connect: [{ request: { url: https://x.example, fields: { k: "{inputs.key}" } }, pointer: /id }]`,
      /after_connect\.0\.request\.fields\.k: `k` is a secret/,
    ],
    [
      "an access token in the URL of a lookup",
      `${own}after_connect: [{ request: { url: https://x.example, fields: { t: "{access_token}" } }, pointer: /id }]`,
      /after_connect\.0\.request\.fields\.t: `t` is a secret/,
    ],
    [
      "a secret input in the address that a browser is sent to",
      `id: own\nauthorization: { url: https://x.example, params: { k: "{inputs.key}" } }\n${withKey}${token}\n`,
      /authorization\.params\.k: \{inputs\.key\} is a secret, and what stands here is shown to browsers or callers/,
    ],
    [
      "a secret input in what callers get",
      `${own}${withKey}api: { headers: { x: "a {inputs.key}" } }\n`,
      /api\.headers\.x: \{inputs\.key\} is a secret, and what stands here is shown/,
    ],
    [
      "a secret input in the authorization that callers get",
      `${own}${withKey}api: { authorization: "Key {inputs.key}" }\n`,
      /api\.authorization: \{inputs\.key\} is a secret, and what stands here is shown/,
    ],
    [
      "a secret input in the header of its own that callers get",
      `${own}${withKey}api: { authorization: { header: x-key, value: "{inputs.key}" } }\n`,
      /api\.authorization: \{inputs\.key\} is a secret, and what stands here is shown/,
    ],
    [
      "a secret input as the account's name",
      `${own}${withKey}after_connect: [{ value: "{inputs.key}" }]\n`,
      /after_connect\.0\.value: \{inputs\.key\} is a secret, and what stands here is shown/,
    ],
    [
      "a code exchange that forgets the verifier of its challenge",
      `id: own\nauthorization: { url: https://x.example }\ntoken: { url: https://x.example, grants: { authorization_code: { fields: { code: "{code}" } } } }`,
      /^3:\d+: token\.grants\.authorization_code\.fields: must hold \{code_verifier\}, since a challenge is sent/,
    ],
    ...lateLookups.map(([where, lookup, said]): [string, string, RegExp] => [
      `a lookup that needs what it captures itself, ${where}`,
      `${own}${lookup}\n`,
      new RegExp(
        `^[45]:\\d+: after_connect\\.0\\.${said}: \\{account\\.org\\} is captured by this lookup or a later one`,
      ),
    ]),
    [
      "a lookup that needs what a later one captures",
      `${own}after_connect: [{ request: { url: "https://x.example/{account.org}" }, pointer: /id }, { request: { url: https://x.example }, capture: { org: /org } }]`,
      /after_connect\.0\.request\.url: \{account\.org\} is captured by this lookup or a later one/,
    ],
    ...lookupFaults.map(([what, lookups, said]): [string, string, RegExp] => [
      `under a grant, ${what}`,
      underPassword(lookups),
      new RegExp(`^3:\\d+: token\\.grants\\.password\\.after_connect${said}`),
    ]),
    [
      "under a grant, a lookup that needs what the usual ones capture",
      `${underPassword('[{ value: "{account.org}" }]')}after_connect: [{ request: { url: https://x.example }, ${capturesOrg} }]\n`,
      /token\.grants\.password\.after_connect\.0\.value: \{account\.org\} is captured for another grant only/,
    ],
    [
      "a value that only the lookups of another grant capture, in a request for all",
      `${underPassword(`[{ request: { url: https://x.example }, ${capturesOrg} }]`)}api: { base_url: "https://x.example/{account.org}" }\n`,
      /after_connect: no lookup here captures \{account\.org\}, which requests of import need/,
    ],
    [
      "a host of two lookups that one of them lets be anything",
      `${underPassword(`[{ request: { url: https://x.example }, capture: { org: { pointer: /org, pattern: "^[a-z]+$" } } }]`)}api: { base_url: "https://{account.org}.x.example" }\nafter_connect: [{ request: { url: https://x.example }, ${capturesOrg} }]\n`,
      /api\.base_url: \{account\.org\} stands where the host is decided: this capture needs a `pattern`/,
    ],
    [
      "a literal secret among the fields of a URL",
      `${own}after_connect: [{ request: { url: https://x.example, fields: { password: hunter2 } }, pointer: /id }]`,
      /after_connect\.0\.request\.fields\.password: `password` is a secret/,
    ],
    [
      "a literal secret among the parameters of the authorize page",
      `id: own\nauthorization: { url: https://x.example, params: { client_secret: abc } }\n${token}\n`,
      /^2:52: authorization\.params\.client_secret: `client_secret` names a secret, and a secret never stands in a URL/,
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
    const load = () => loadCatalog({ builtinFolder: folderOf({}), extraFolder: folder, sandbox: null });
    expect(load).toThrow(StartupError);
    expect(load).toThrow(/^[^\n]+$/);
  });

  const addresses = [
    "issuer",
    "authorization.url",
    "authorization.issuer",
    "authorization.pushed.url",
    "token.url",
    "token.grants.authorization_code.url",
    "token.grants.refresh_token.url",
    "token.grants.password.refresh.url",
    "device.url",
    "revocation.url",
    "introspection.url",
    "response.extra_tokens[1].exchange.url",
    "after_connect[0].request.url",
    "token.grants.password.after_connect[0].request.url",
    "api.base_url",
  ];

  test.each(addresses)("a secret input in %s, in the path and where the host is", (path) => {
    const dotted = path.replaceAll(/\[(\d)\]/g, ".$1").replaceAll(".", "\\.");
    const said = new RegExp(`${dotted}: \\{inputs\\.key\\} is a secret, and secrets never stand in an address`);
    for (const url of ["https://x.example/{inputs.key}", "https://{inputs.key}.x.example/a"]) {
      const file = fileFrom("full", at(path, url));
      const problems = (secret: boolean) =>
        problemsOf(JSON.stringify({ ...file, inputs: { key: { secret, pattern: "^[a-z]+$" } } }));
      expect(problems(true).join("\n")).toMatch(said);
      expect(problems(false)).toEqual([]);
    }
  });

  test("a header of api that a lookup has yet to capture is named with the way to leave it out, which helps", () => {
    expect(problemsOf(apiHeader(""))).toEqual([
      "6:5: after_connect.0.request.headers.x-org: {account.org} is captured by this lookup or a later one, and is not there yet; `headers: { x-org: null }` here leaves this one of api.headers out",
    ]);
    expect(problemsOf(apiHeader(", headers: { x-org: null }"))).toEqual([]);
  });

  test("a lookup may use what one before it has captured, and capture it anew", () => {
    const first = `{ request: { url: https://x.example }, ${capturesOrg} }`;
    const second = `{ request: { url: "https://x.example/{account.org}" }, ${capturesOrg} }`;
    expect(problemsOf(`${own}after_connect: [${first}, ${second}]\n`)).toEqual([]);
    expect(problemsOf(`${own}after_connect: [${second}, ${first}]\n`)).toHaveLength(1);
  });

  test("a code exchange that lists its verifier, or has no challenge, needs no more", () => {
    expect(problemsOf(codeFields("required", 'code: "{code}", verifier: "{code_verifier}"'))).toEqual([]);
    expect(problemsOf(codeFields("off", 'code: "{code}"'))).toEqual([]);
    expect(problemsOf(codeFields("required", 'code: "{code}"'))).toHaveLength(1);
    expect(problemsOf(codeFields("optional", 'code: "{code}"'))).toHaveLength(1);
  });

  test.each(addresses)("a parameter in %s that is named as a secret, whatever its value and spelling", (path) => {
    const dotted = path.replaceAll(/\[(\d)\]/g, ".$1").replaceAll(".", "\\.");
    for (const name of [
      "client_secret",
      "client_assertion",
      "password",
      "refresh_token",
      "access_token",
      "Access%5FToken",
    ]) {
      const problems = problemsOf(JSON.stringify(fileFrom("full", at(path, `https://x.example/a?v=1&${name}=abc`))));
      expect(problems.join("\n")).toMatch(
        new RegExp(`${dotted}: \`${decodeURIComponent(name)}\` names a secret, and a secret never stands in a URL`),
      );
    }
    expect(problemsOf(JSON.stringify(fileFrom("full", at(path, "https://x.example/a?v=1&scope=b"))))).toEqual([]);
  });

  test("http in a built-in file, save to this machine; a file of one's own says what its PROVIDER_NETWORKS allow", () => {
    for (const url of [
      "http://x.example/t",
      "HTTP://x.example",
      "http://localhost.x.example",
      "http://127.0.0.1.x.example",
    ]) {
      expect(tokenUrlProblems(url, true)).toEqual([
        expect.stringMatching(/^own\.yaml:3:10: token\.url: must be an https URL: /),
      ]);
      expect(tokenUrlProblems(url, false)).toEqual([]);
    }
    for (const url of ["https://x.example", "http://localhost:8080/t", "http://127.0.0.1:8080", "http://[::1]/t"]) {
      expect(tokenUrlProblems(url, true)).toEqual([]);
    }
  });

  test("networks: those of a file count for it, are not passed on, and are CIDR blocks", () => {
    const first =
      "id: own\nnetworks: [10.0.0.0/8, 'fd00::/8']\ntoken: { url: https://login.example/token }\ngrants: [import]";
    const catalog = catalogWith({
      "own.yaml": first,
      "heir.yaml": "id: heir\nextends: own",
      "none.yaml": "id: none\nextends: own\nnetworks: []",
    });
    const networksOf = (id: string) => catalog.get(id)?.networks;
    expect(networksOf("own")).toEqual(["10.0.0.0/8", "fd00::/8"]);
    expect([networksOf("heir"), networksOf("none"), networksOf("bol")]).toEqual([null, [], null]);
    expect(catalog.get("heir")?.file).not.toHaveProperty("networks");
    expect(problemsOf(first.replace("10.0.0.0/8", "10.0.0.0"))).toEqual([
      expect.stringMatching(/^2:12: networks\.0: "10\.0\.0\.0" is not a CIDR block such as/),
    ]);
    expect(problemsOf(first.replace("[10.0.0.0/8,", "['10.0.0.0/8, 10.1.0.0/16',"))).toEqual([
      expect.stringMatching(/networks\.0: must be one CIDR block/),
    ]);
  });

  test("formerly: a definition is found by the ids that it had, which no heir gets and an override keeps", async () => {
    const catalog = catalogWith({
      "own.yaml": `${own}formerly: [older, oldest]\n`,
      "heir.yaml": "id: heir\nextends: own\n",
    });
    expect([catalog.get("older"), catalog.get("oldest")]).toEqual([catalog.get("own"), catalog.get("own")]);
    expect([catalog.get("own")?.formerly, catalog.get("heir")?.formerly]).toEqual([["older", "oldest"], []]);
    expect((await catalog.list()).map(({ id }) => id)).not.toContain("older");
    const folders = { builtinFolder: folderOf({ "own.yaml": `${own}${stated}formerly: [older]\n` }), sandbox: null };
    const loaded = (override: string) =>
      loadCatalog({ ...folders, extraFolder: folderOf({ "own.yaml": `id: own\nextends: own\n${override}` }) });
    expect(loadCatalog({ ...folders, extraFolder: null }).get("older")?.id).toBe("own");
    expect(loaded("name: mine").get("older")?.name).toBe("mine");
    expect(loaded("formerly: [other]").get("older")).toBeUndefined();
    expect(loaded("formerly: [other]").get("other")?.id).toBe("own");
  });

  test("formerly: an id that two claim, or that a definition has, is told at its place by the start and by the check", () => {
    const files = (former: string) => ({
      "a.yaml": `${own.replace("own", "a")}formerly: [was]\n`,
      "b.yaml": `${own.replace("own", "b")}formerly: [fine, ${former}]\n`,
    });
    const told: [string, RegExp][] = [
      ["was", /b\.yaml:4:18: formerly: was is a former id of a too/],
      ["a", /b\.yaml:4:18: formerly: a is the id of a definition that is there/],
      ["b", /b\.yaml:4:18: formerly: b is the id of a definition that is there/],
      ["bol", /b\.yaml:4:18: formerly: bol is the id of a definition that is there/],
    ];
    for (const [former, expected] of told) {
      expect(() => catalogWith(files(former))).toThrow(expected);
      const folder = folderOf(files(former));
      const checked = checkProviderFile(join(folder, "b.yaml"), { builtinFolder: fewBuiltins, extraFolder: folder });
      expect(checked).toEqual([expect.stringMatching(expected)]);
    }
    expect(problemsOf(`${own}formerly: [Old]\n`)).toEqual([expect.stringMatching(/^4:12: formerly\.0: /)]);
  });

  test("networks in a built-in file are refused: there exceptions would count for everybody", () => {
    const yaml = "id: own\nnetworks: [10.0.0.0/8]\ntoken: { url: https://login.example/token }\ngrants: [import]";
    const folder = folderOf({ "own.yaml": yaml });
    const path = join(folder, "own.yaml");
    expect(checkProviderFile(path, { builtinFolder: folder, extraFolder: null })).toEqual([
      expect.stringMatching(/own\.yaml:2:1: networks: is for files of PROVIDERS_DIR/),
    ]);
  });

  test("a secret input may stand where nobody sees it: in headers, fields and client_auth of requests", () => {
    const yaml = `id: own
grants: [client_credentials]
${withKey}token:
  url: https://login.example/token
  headers: { x-key: "{inputs.key}" }
  client_auth: { basic: "{inputs.key}:" }
  grants: { client_credentials: { fields: { k: "{inputs.key}" } } }
after_connect: [{ request: { url: https://x.example, method: POST, encoding: form, headers: { x-key: "{inputs.key}" }, fields: { k: "{inputs.key}" } }, pointer: /id }]
`;
    expect(problemsOf(yaml)).toEqual([]);
  });

  test("the check lists every problem, the start the first and how many more", () => {
    const yaml = `${own}refresh: { reuse: maybe, ahead: 7 }\nnme: x\n`;
    expect(problemsOf(yaml)).toHaveLength(3);
    expect(() => catalogWith({ "own.yaml": yaml })).toThrow(/\(and 2 more/);
  });

  test("a folder that is not there is named", () => {
    const extraFolder = "/nowhere/at/all";
    expect(() => loadCatalog({ builtinFolder: fewBuiltins, extraFolder, sandbox: null })).toThrow(
      /\/nowhere\/at\/all cannot be read \(ENOENT\)/,
    );
  });

  test("a file that is not there is named", () => {
    expect(checkProviderFile("/nowhere.yaml", { builtinFolder, extraFolder: null })).toEqual([
      "/nowhere.yaml: cannot be read (ENOENT)",
    ]);
  });
});

const fileOf = (id: string) => `id: ${id}\nname: ${id} as read\n${token}\ngrants: [import]\n${stated}`;

describe("the list", () => {
  const ids = ["a", "b", "c", "d"];

  function catalogOf(content: (id: string) => string) {
    const folder = folderOf(Object.fromEntries(ids.map((id) => [`${id}.yaml`, content(id)])));
    return loadCatalog({ builtinFolder: folder, extraFolder: null, sandbox: null });
  }

  test("gives way to others between two files that nobody has asked for yet, and takes what is known as it is", async () => {
    const catalog = catalogOf(fileOf);
    const known = catalog.get("a");
    const others = { turns: 0, isDone: false };
    const turning = (async () => {
      for (; !others.isDone; others.turns++) await setImmediate();
    })();
    const list = await catalog.list();
    others.isDone = true;
    await turning;
    expect(others.turns).toBeGreaterThanOrEqual(ids.length - 1);
    expect(list.map(({ name }) => name)).toEqual(ids.map((id) => `${id} as read`));
    expect(list[0]).toBe(known);
  });

  test("is the same for two who ask at the same moment", async () => {
    const catalog = catalogOf(fileOf);
    const [first, second] = await Promise.all([catalog.list(), catalog.list()]);
    expect(first.map((each, index) => each === second[index])).toEqual(ids.map(() => true));
  });

  test("fails for a file that is no good", async () => {
    await expect(catalogOf(() => "id: {").list()).rejects.toThrow(StartupError);
  });
});
