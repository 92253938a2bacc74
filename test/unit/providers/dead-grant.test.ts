import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { StatedAnswer } from "../../../src/providers/format/definition.ts";
import { checkProviderFile, loadCatalog } from "../../../src/providers/load/catalog.ts";
import { hintsOn, readingOf } from "../../../src/providers/load/check-definition.ts";
import { builtinFolder } from "../../support/built-ins.ts";
import { fewBuiltins, folderOf } from "./definitions.ts";

const usable = "id: own\ngrants: [import]\ntoken: { url: https://login.example/token }\n";

function problemsIn(yaml: string, { builtin } = { builtin: false }): string[] {
  const folder = folderOf({ "own.yaml": yaml });
  const folders = { builtinFolder: builtin ? folder : fewBuiltins, extraFolder: null };
  const problems = checkProviderFile(join(folder, "own.yaml"), folders);
  return problems.map((problem) => problem.replace(`${folder}/`, ""));
}

function hintsIn(files: Record<string, string>): string[] {
  const catalog = loadCatalog({ builtinFolder: fewBuiltins, extraFolder: folderOf(files), sandbox: null });
  const definition = catalog.get("own");
  if (definition === undefined) throw new Error("no file defines own");
  return hintsOn(definition);
}

const states = (...answers: string[]) => `refresh: { dead_grant: [${answers.join(", ")}] }\n`;

describe("the answer that ends a grant", () => {
  test("an answer that the file's rules do not read as the end is refused with what it is read as", () => {
    const answers = [
      "{ status: 400, body: { error: invalid_grant } }",
      "{ status: 401, body: Unknown account }",
      "{ status: 400, body: { error: invalid_client } }",
      "{ status: 200, body: { access_token: at-1 } }",
      "{ status: 200, body: { ok: false } }",
    ];
    const readings = [
      [1, "a refusal for now"],
      [2, "a refused client"],
      [3, "a new token"],
      [4, "an answer that says nothing"],
    ];
    expect(problemsIn(`${usable}${states(...answers)}`)).toEqual(
      readings.map(([index, reading]) =>
        expect.stringMatching(
          new RegExp(
            `^own.yaml:4:\\d+: refresh.dead_grant.${index}: is read as ${reading}, not as the end of the grant`,
          ),
        ),
      ),
    );
  });

  test("a rule for it makes it right", () => {
    const rule = "errors: [{ endpoint: token, status: 401, body: Unknown account, means: needs_reauthorization }]\n";
    expect(problemsIn(`${usable}${states("{ status: 401, body: Unknown account }")}${rule}`)).toEqual([]);
  });

  test("a faulty rule is told as such, and alone", () => {
    const rule = "errors: [{ endpoint: token, body: '(', means: needs_reauthorization }]\n";
    expect(problemsIn(`${usable}${states("{ status: 401, body: Unknown account }")}${rule}`)).toEqual([
      expect.stringContaining("is not a regular expression"),
    ]);
  });

  test("a built-in file must state it, save where there is no refresh token", () => {
    expect(problemsIn(usable, { builtin: true })).toEqual([
      expect.stringContaining("refresh.dead_grant: is missing: list each answer (`status`, `body`)"),
    ]);
    const machine = usable.replace("import", "client_credentials");
    expect(problemsIn(machine, { builtin: true })).toEqual([]);
    expect(problemsIn(`${usable}${states()}`, { builtin: true })).toEqual([]);
  });
});

const inWords = (status: number, words: string): StatedAnswer => ({
  status,
  body: { error: "invalid_request", error_description: words },
});

/** What widespread servers answered to a dead refresh token before they kept to RFC 6749, section 5.2. */
const beforeTheRfc = {
  "league/oauth2-server 8": {
    status: 401,
    body: { error: "invalid_request", error_description: "The refresh token is invalid." },
  },
  "league/oauth2-server 7": {
    status: 401,
    body: { error: "invalid_request", message: "The refresh token is invalid." },
  },
  "an expiry in words": { status: 400, body: { error: "invalid_request", error_description: "Refresh token expired" } },
  "an invalid one in words": {
    status: 400,
    body: { error: "invalid_request", error_description: "Invalid refresh_token" },
  },
  Authlib: {
    status: 400,
    body: { error: "invalid_request", error_description: 'Invalid "refresh_token" in request.' },
  },
};

describe.each([
  ["that extends oauth2", "oauth2"],
  ["that extends oidc", "oidc"],
  ["without rules", null],
])("a file %s", (_name, base) => {
  const address = base === "oidc" ? "issuer: https://login.example\n" : "token: { url: https://login.example/token }\n";
  const yaml = `id: own\n${base === null ? "" : `extends: ${base}\n`}grants: [import]\n${address}`;
  const catalog = loadCatalog({ builtinFolder, extraFolder: folderOf({ "own.yaml": yaml }), sandbox: null });
  const read = (answer: StatedAnswer) => readingOf(catalog.get("own")!, answer);

  const known = Object.entries(beforeTheRfc).filter(([, { body }]) => base !== null || !("message" in body));
  test.each(known)("reads what %s answers to a dead refresh token as the end", (_server, answer) => {
    expect(read(answer)).toBe("refused_for_good");
  });

  test.each([
    'Missing "refresh_token" in request.',
    "Refresh token is required",
    "The `refresh_token` parameter was missing.",
    "Invalid client, refresh token not looked at",
    "Invalid refresh_token parameter.",
    "Refresh token invalid or missing",
    "Invalid refresh token request: client_id missing",
    "invalid refresh_token: parameter appears more than once",
    "Refresh token expired or temporarily locked, retry later",
  ])("reads %s as no end", (words) => {
    expect(read(inWords(400, words))).toBe("refused_for_now");
  });

  test.each([404, 407, 408, 409, 425, 429, 500, 503])("reads no words in a %i as the end", (status) => {
    expect(read(inWords(status, "Refresh token revoked"))).not.toBe("refused_for_good");
  });

  test.each(["Token is not linked to client", "Cannot decrypt the refresh token"])(
    "reads the hint %s as no end: it is about the client, or about the server",
    (hint) => {
      const words = "The refresh token is invalid.";
      const bodies = [
        { error: "invalid_request", error_description: words, hint },
        { error: "invalid_request", message: words, hint },
      ];
      expect(bodies.map((body) => read({ status: 401, body }))).toEqual(["refused_for_now", "refused_for_now"]);
    },
  );
});

/** How a file whose only rule is this one reads a status with these words. */
function withRule(rule: string, status: number) {
  const yaml = `${usable}errors: [{ endpoint: token, ${rule}, means: needs_reauthorization }]\n`;
  const extraFolder = folderOf({ "own.yaml": yaml });
  const catalog = loadCatalog({ builtinFolder: fewBuiltins, extraFolder, sandbox: null });
  return readingOf(catalog.get("own")!, { status, body: "Unknown account" });
}

describe("a rule that ends grants", () => {
  test.each([407, 408, 425, 429, 500, 502, 503])("does not look at a %i, unless it names that status", (status) => {
    expect(withRule("body: Unknown account", status)).not.toBe("refused_for_good");
    expect(withRule(`status: ${status}, body: Unknown account`, status)).toBe("refused_for_good");
  });

  test.each([200, 400, 401, 403, 404])("looks at a %i", (status) => {
    expect(withRule("body: Unknown account", status)).toBe("refused_for_good");
  });
});

describe("a file of one's own", () => {
  test("is right without it, and is given a hint", () => {
    expect(problemsIn(usable)).toEqual([]);
    expect(hintsIn({ "own.yaml": usable })).toEqual([expect.stringMatching(/^refresh\.dead_grant: is not stated/)]);
  });

  test("is given none where it states it, has it from the file that it extends, or has no refresh token", () => {
    const stating = `${usable}${states("{ status: 400, body: { error: invalid_grant } }")}`;
    expect(hintsIn({ "own.yaml": stating })).toEqual([]);
    expect(hintsIn({ "own.yaml": "id: own\nextends: bol\n" })).toEqual([]);
    expect(hintsIn({ "own.yaml": "id: own\n" })).toEqual([expect.stringMatching(/^token\.url: is not stated/)]);
    expect(hintsIn({ "own.yaml": usable.replace("import", "client_credentials") })).toEqual([]);
  });

  test("loads with rules of its own that no longer read what it inherits, and is given a hint", () => {
    const rule = "errors: [{ endpoint: token, status: 401, body: Unknown account, means: needs_reauthorization }]\n";
    const base = `${usable.replace("id: own", "id: base")}${states("{ status: 401, body: Unknown account }")}${rule}`;
    const files = { "base.yaml": base, "own.yaml": "id: own\nextends: base\nerrors: []\n" };
    expect(hintsIn(files)).toEqual([expect.stringMatching(/^refresh\.dead_grant\.0: is read as a refusal for now/)]);
  });
});
