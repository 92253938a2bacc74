import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parseNetworks } from "../../../src/providers/http/egress.ts";
import { checkProviderFile } from "../../../src/providers/load/catalog.ts";
import { fewBuiltins, folderOf } from "./definitions.ts";

const usable = `id: own\ngrants: [import]\ntoken: { url: https://x.example }\n`;

/** The problems of `own.yaml` in a folder with these files, without the folder's name. */
function problemsOf(files: Record<string, string>, { isExtraFolder } = { isExtraFolder: false }): string[] {
  const folder = folderOf(files);
  const folders = { builtinFolder: fewBuiltins, extraFolder: isExtraFolder ? folder : null };
  return checkProviderFile(join(folder, "own.yaml"), folders).map((problem) => problem.replaceAll(folder, "HERE"));
}

const problemsIn = (yaml: string) => problemsOf({ "own.yaml": yaml });

test("an answer that is posted is asked for by the setting, so that it is taken", () => {
  const authorization = "authorization: { url: https://x.example/a, params: { response_mode: form_post } }\n";
  expect(problemsIn(`id: own\n${authorization}token: { url: https://x.example }\n`)).toEqual([
    expect.stringContaining("taken with `authorization.response_mode: form_post` only"),
  ]);
});

describe("client_auth", () => {
  test("a word that is none of those allowed is refused with the words, and the maps in their place", () => {
    expect(problemsIn(usable.replace("x.example", "x.example, client_auth: bazic"))).toEqual([
      'HERE/own.yaml:3:34: token.client_auth: must be one of: none, basic, body, private_key_jwt, tls; or a map: { header: NAME, value: "{client.secret}" } or { basic: "{client.id}:{client.secret}" }',
    ]);
  });

  test.each([
    ["token", `token: { url: https://x.example, client_auth: AUTH }`],
    ["token.grants.password", `token: { url: https://x.example, grants: { password: { client_auth: AUTH } } }`],
    [
      "token.grants.password.refresh",
      `token: { url: https://x.example, grants: { password: { refresh: { client_auth: AUTH } } } }`,
    ],
    ["authorization.pushed", `authorization: { pushed: { url: https://x.example, client_auth: AUTH } }`],
    ["device", `device: { url: https://x.example, client_auth: AUTH }`],
    ["revocation", `revocation: { url: https://x.example, client_auth: AUTH }`],
    ["introspection", `introspection: { url: https://x.example, client_auth: AUTH }`],
    [
      "token.grants.password.after_connect.0.request",
      `token: { url: https://x.example, grants: { password: { after_connect: [{ request: { url: https://x.example, client_auth: AUTH } }] } } }`,
    ],
    ["after_connect.0.request", `after_connect: [{ request: { url: https://x.example, client_auth: AUTH } }]`],
    [
      "response.extra_tokens.0.exchange",
      `response: { extra_tokens: [{ name: a, exchange: { url: https://x.example, client_auth: AUTH } }] }`,
    ],
  ])("a map of it in %s that names no way, or two, is refused where it stands", (path, setting) => {
    const problems = (auth: string) => problemsIn(`id: own\ngrants: [import]\n${setting.replace("AUTH", auth)}\n`);
    const at = new RegExp(String.raw`^HERE/own\.yaml:3:\d+: ${path.replaceAll(".", String.raw`\.`)}\.client_auth: `);
    const [none, ...afterNone] = problems("{ value: x }");
    const [both, ...afterBoth] = problems("{ header: x, basic: y }");
    expect([none, both]).toEqual([expect.stringMatching(at), expect.stringMatching(at)]);
    expect(none).toContain("needs `header`, or `basic`");
    expect(both).toContain("has both `header` and `basic`");
    expect([...afterNone, ...afterBoth, ...problems("{ header: x }"), ...problems("{ basic: y }")]).toEqual([]);
  });
});

describe("facts", () => {
  test.each([
    ["token.ul: docs", "token.ul: `token.ul` is no setting; did you mean `token.url`?"],
    ["tokn: docs", "tokn: `tokn` is no setting; did you mean `token`?"],
    ["refresh.qqqqqq: docs", "refresh.qqqqqq: `refresh.qqqqqq` is no setting; known here: rotation, reuse, grace_s, "],
    ["token.url: dosc", "token.url: `dosc` is not in `sources`; did you mean `docs`?"],
    ["token.url: [docs, qqqqqq]", "token.url: `qqqqqq` is not in `sources`; known here: docs, client"],
  ])("%s is refused with what may have been meant, or all there is", (fact, said) => {
    const problems = problemsIn(`${usable}sources: { docs: a, client: b }\nfacts: { ${fact} }\n`);
    expect(problems).toEqual([expect.stringContaining(`HERE/own.yaml:5:10: facts.${said}`)]);
  });

  test("without any source it is said that there is none", () => {
    expect(problemsIn(`${usable}facts: { token: docs }\n`)).toEqual([
      "HERE/own.yaml:4:10: facts.token: `docs` is not in `sources`; there are none",
    ]);
  });
});

describe("what a file extends and is not known", () => {
  const own = "id: own\nextends: base\n";
  const base = "id: base\ngrants: [import]\ntoken: { url: https://x.example }\n";

  test("but lies beside it, is found as soon as PROVIDERS_DIR is set as the message says", () => {
    for (const name of ["base.yaml", "base.yml"]) {
      const files = { "own.yaml": own, [name]: base };
      expect(problemsOf(files)).toEqual([
        `HERE/own.yaml:2:1: extends base, which is no provider here; HERE/${name} lies beside it, and counts with PROVIDERS_DIR=HERE`,
      ]);
      expect(problemsOf(files, { isExtraFolder: true })).toEqual([]);
    }
  });

  test("since the file beside it has faults, is said so, wherever PROVIDERS_DIR is", () => {
    for (const isExtraFolder of [true, false]) {
      expect(problemsOf({ "own.yaml": own, "base.yaml": `${base}nonsense: 1\n` }, { isExtraFolder })).toEqual([
        "HERE/own.yaml:2:1: extends base, which is no provider here; HERE/base.yaml lies beside it and has faults of its own: check that one first",
      ]);
    }
  });

  test("and of which the file beside it is not the definition, is told with those that there are", () => {
    const files = { "own.yaml": own, "base.yaml": base.replace("id: base", "id: other") };
    expect(problemsOf(files)).toEqual([
      expect.stringMatching(/extends base, which is no provider; there are apicbase, /),
    ]);
  });
});

describe("faults of syntax are told once for a line, in plain words", () => {
  test.each([
    ["a tab", "token:\n\turl: x\n", /^3:1: this line is indented by a tab: use spaces$/],
    ["a line too far right", "token:\n  url: x\n    method: GET\n", /^3:8: a value stands here, and the next line/],
    ["a line too far left", "token:\n    url: x\n  method: GET\n", /^4:1: this line is indented otherwise than those/],
    ["a list item's line too far left", "grants:\n  - a: x\n   b: y\n", /^4:1: .* than the list item/],
    [
      "a colon without its space",
      "token:\n  url:x\n  method: GET\n",
      /^3:3: a colon and a space must follow a setting/,
    ],
    ["a second colon", "name: a: b\n", /^2:7: .*a text that holds `: ` lacks its quotes$/],
    ["a setting without its colon", "name\n", /^2:1: a colon and a value are missing here/],
    ["a brace that is not closed", "token: { url: x\nname: y\n", /^3:1: a \{ or \[ is not closed/],
    ["a list that is not closed", "grants: [import\n", /^3:1: a \{ or \[ is not closed/],
    ["a template without quotes", "name: {inputs.x}/a\n", /^2:17: .*starts with a brace or a quote in quotes/],
    ["a pattern in double quotes", `name: "^\\.x"\n`, /^2:9: .*put patterns in single quotes$/],
    ["a quote that is not closed", `name: "abc\n`, /^3:1: a quote is not closed$/],
    ["a reserved character", "name: @x\n", /^2:7: a text that starts with this character needs quotes$/],
    ["two documents", "---\nid: two\n", /^2:1: the file holds a second document after ---/],
  ])("%s", (_fault, yaml, said) => {
    const problems = problemsIn(`id: own\n${yaml}`).map((problem) => problem.replace("HERE/own.yaml:", ""));
    expect(problems).toEqual([expect.stringMatching(said)]);
  });

  test("the settings of the top, indented", () => {
    expect(problemsIn(" id: own\nname: x\n")).toEqual([
      expect.stringMatching(/:2:1: .*do not indent the settings of the top$/),
    ]);
  });
});

describe("a fault is told in the file whose author can mend it", () => {
  const builtinFolder = fileURLToPath(new URL("../../../providers", import.meta.url));
  const told = (files: Record<string, string>) => {
    const folder = folderOf(files);
    return checkProviderFile(join(folder, "own.yaml"), { builtinFolder, extraFolder: folder }).map((problem) =>
      problem.replaceAll(folder, "HERE").replaceAll(builtinFolder, "BUILTIN"),
    );
  };

  test.each([
    [
      "a value that does not go with one of the built-in file's",
      "id: own\nextends: apicbase\ntoken:\n  encoding: query\n",
      /^HERE\/own\.yaml:3:1: token\.grants\.\w+\.\S+: .*secret.* \(token\.\S+ is that of BUILTIN\/apicbase\.yaml:\d+:\d+\)$/,
    ],
    [
      "a grant that lacks what it needs",
      "id: own\nextends: shopware\ngrants: [authorization_code]\n",
      /^HERE\/own\.yaml:3:1: grants: authorization_code is offered, and `authorization\.url` is missing$/,
    ],
    [
      "a template whose declaration has been changed",
      'id: own\nextends: shopware\ninputs: { shop_url: { pattern: "^.+$" } }\n',
      /^HERE\/own\.yaml:2:1: token\.url: .*must begin with https:\/\/.* \(token\.url is that of BUILTIN\/shopware\.yaml:\d+:\d+\)$/,
    ],
  ])("%s", (_case, yaml, said) => {
    const problems = told({ "own.yaml": yaml });
    expect(problems.length).toBeGreaterThan(0);
    for (const problem of problems) expect(problem).toMatch(/^HERE\/own\.yaml:\d+:\d+: /);
    expect(problems).toContainEqual(expect.stringMatching(said));
  });

  test("a fault that a file of one's own has by itself stays its own, whoever extends it", () => {
    const middle = 'id: middle\nextends: bol\ntoken:\n  url: "https://x.example/{inputs.nope}"\n';
    const own = "id: own\nextends: middle\ntoken: { encoding: form }\n";
    expect(told({ "own.yaml": own, "middle.yaml": middle })).toEqual([
      expect.stringMatching(/^HERE\/middle\.yaml:4:3: token\.url: /),
    ]);
  });
});

/** A file with this token endpoint. */
const at = (url: string, more = "") => `id: own\ngrants: [import]\n${more}token:\n  url: "${url}"\n`;

/** The problems of a file while PROVIDER_NETWORKS is `networks`. */
function check(yaml: string, networks: string | null): string[] {
  const shared = networks === null ? null : parseNetworks(networks);
  const surroundings = { builtinFolder: fewBuiltins, extraFolder: null, networks: shared };
  return checkProviderFile(join(folderOf({ "own.yaml": yaml }), "own.yaml"), surroundings);
}

describe("an address that the egress rules refuse in any case", () => {
  test.each([
    ["https://10.1.2.3/token", "put 10.1.2.3/32 into"],
    ["https://127.0.0.1:8443/token", "put 127.0.0.1/32 into"],
    ["https://2130706433/token", "put 127.0.0.1/32 into"],
    ["https://[::1]/token", "put ::1/128 into"],
    ["https://169.254.169.254/latest", "put 169.254.169.254/32 into"],
    ["http://login.example/token", "login.example may not be reached by http"],
    ["http://{inputs.shop}.example/token", "may not be reached by http"],
    ["https://localhost/token", "localhost may not be reached"],
    ["http://id.localhost:8080/token", "id.localhost may not be reached by http"],
    ["{inputs.place}/token", "put 10.0.0.9/32 into"],
  ])("fails the check, with the place and what allows it: %s", (url, said) => {
    const shop = 'shop: { pattern: "^[a-z]+$" }';
    const place = "place: { enum: [https://id.example, https://10.0.0.9] }";
    const used = url.includes("{") ? `inputs: { ${url.includes("shop") ? shop : place} }\n` : "";
    const problems = check(at(url, used), null);
    expect(problems).toEqual([expect.stringContaining(said)]);
    expect(problems[0]).toMatch(
      /own\.yaml:\d:3: token\.url: .*`networks` of the definition or into PROVIDER_NETWORKS$/,
    );
  });

  test.each([
    ["https to a public name", "https://login.example/token", null, ""],
    ["https to a public address", "https://8.8.8.8/token", null, ""],
    ["an address in PROVIDER_NETWORKS, by http", "http://10.1.2.3/token", "10.0.0.0/8", ""],
    ["an address in the definition's own networks", "http://10.1.2.3/token", null, "networks: [10.0.0.0/8]\n"],
    ["localhost where either loopback is allowed", "http://localhost/token", "::1/128", ""],
    ["a name by http where some network may hold it", "http://login.inside/token", "10.0.0.0/8", ""],
    [
      "an address that browsers go to",
      "https://login.example/token",
      null,
      "authorization: { url: http://localhost:9 }\n",
    ],
  ])("passes: %s", (...[, url, networks, more]) => {
    expect(check(at(url, more), networks)).toEqual([]);
  });

  test("networks of the definition's own count in place of PROVIDER_NETWORKS, and none are none", () => {
    expect(check(at("https://10.1.2.3", "networks: []\n"), "10.0.0.0/8")).toHaveLength(1);
    expect(check(at("https://10.1.2.3", "networks: [fd00::/8]\n"), "10.0.0.0/8")).toHaveLength(1);
  });

  test("every address that the broker itself asks is looked at", () => {
    const yaml = `id: own
issuer: https://login.example
token: { url: https://x.example }
authorization: { url: https://x.example, pushed: { url: https://10.0.0.1 } }
device: { url: https://10.0.0.1 }
grants: [authorization_code, device_code]
revocation: { url: https://10.0.0.1 }
introspection: { url: https://10.0.0.1 }
after_connect: [{ request: { url: https://10.0.0.1 }, pointer: /id }]
`;
    const places = check(yaml, null).map((problem) => /own\.yaml:\d+:\d+: ([\w.]+): 10/.exec(problem)?.[1]);
    expect(new Set(places)).toEqual(
      new Set([
        "after_connect.0.request.url",
        "authorization.pushed.url",
        "device.url",
        "introspection.url",
        "revocation.url",
      ]),
    );
  });
});
