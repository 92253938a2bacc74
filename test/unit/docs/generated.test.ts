import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { generateDocs } from "../../../scripts/docs/generate.ts";
import { readRefusals } from "../../../scripts/docs/refusals.ts";
import { builtinFolder, builtins } from "../../support/built-ins.ts";

const root = resolve(import.meta.dirname, "../../..");
const definitions = (await builtins().list()).filter(({ isSandbox }) => !isSandbox);
const files = generateDocs(definitions, readRefusals(join(root, "test/providers/transcripts")));
/** Definitions that are only extended, and the broker's own provider. */
const generic = new Set(["oauth2.yaml", "oidc.yaml", "sandbox.yaml"]);
const read = (path: string) => (existsSync(join(root, path)) ? readFileSync(join(root, path), "utf8") : "");
const pages = Object.keys(files).filter((path) => path.endsWith(".md"));

describe("the generated files", () => {
  test("are what `npm run docs` would write now", () => {
    const old = pages.filter((path) => read(path) !== files[path]);
    expect(old, "run npm run docs").toEqual([]);
    expect(JSON.parse(read("providers/schema.json"))).toEqual(JSON.parse(files["providers/schema.json"] ?? ""));
    const others = readdirSync(join(root, "docs/providers")).filter(
      (name) => !pages.includes(`docs/providers/${name}`),
    );
    expect(others).toEqual([]);
  });

  test("have a page for every provider that can be used, and are all in the overview", () => {
    const ids = definitions.flatMap(({ id, usable }) => (usable && !["oauth2", "oidc"].includes(id) ? [id] : []));
    const overviews = ["docs/providers/README.md", "docs/providers/dead-grants.md"];
    expect(pages.sort()).toEqual([...overviews, ...ids.map((id) => `docs/providers/${id}.md`)].sort());
    expect(ids.filter((id) => !files["docs/providers/README.md"]?.includes(`](${id}.md)`))).toEqual([]);
  });

  test("link to files and headings that are there", () => {
    const broken = pages.flatMap((path) =>
      linksIn(files[path] ?? "")
        .filter((link) => !leadsSomewhere(path, link))
        .map((link) => `${path}: ${link}`),
    );
    expect(broken).toEqual([]);
  });

  test("hold no address that is not https, and none of a template as a link", () => {
    const odd = pages.flatMap((path) =>
      [...(files[path] ?? "").matchAll(/<(https?:[^>]*)>/g)].map(([, url]) => url ?? ""),
    );
    expect(odd.length).toBeGreaterThan(100);
    expect(odd.filter((url) => !URL.canParse(url) || /[{}]/.test(url))).toEqual([]);
  });
});

describe("the commands to paste", () => {
  const rows = read("docs/cli.md")
    .split("\n")
    .filter((line) => line.startsWith("- `"));

  test("are documented ones, with documented options", () => {
    const commands = pages.flatMap((path) => commandsIn(files[path] ?? ""));
    expect(commands.length).toBeGreaterThan(200);
    const unknown = commands.filter(({ name, options }) => {
      const own = rows.filter((line) => line.startsWith(`- \`${name} `)).join("\n");
      return !options.every((option) => new RegExp(`${option}(?![\\w-])`).test(own));
    });
    expect(unknown).toEqual([]);
  });

  test("add every client and every input that their connection needs", () => {
    const lines = (files["docs/providers/shopware.md"] ?? "").split("\n");
    const begin = lines.slice(lines.indexOf("```sh") + 1, lines.lastIndexOf("```"));
    expect(begin.join("\n")).toBe(shopware);
  });
});

/** A provider with an address of its own for each client, and a grant that needs no client. */
const shopware = `freshet connect my-connection --provider shopware --client-id CLIENT_ID --client-secret-file secret.txt --input shop_url=SHOP_URL &&
  freshet token my-connection

# or, with password:
freshet connect my-connection --provider shopware --grant password --username USER --password-file password.txt --input shop_url=SHOP_URL &&
  freshet token my-connection`;

function commandsIn(page: string): { name: string; options: string[] }[] {
  const [, block = ""] = /```sh\n([\s\S]*?)```/.exec(page) ?? [];
  return [...block.matchAll(/freshet ((?:clients add|connections add|[a-z]+)) (.*)/g)].map(
    ([, name = "", rest = ""]) => ({
      name,
      options: rest.split(" ").filter((word) => word.startsWith("--")),
    }),
  );
}

describe("the JSON schema", () => {
  const schema = JSON.parse(files["providers/schema.json"] ?? "{}") as object;
  const ajv = new Ajv2020({ allowUnionTypes: true, strictTypes: false, strictRequired: false });
  const validate = ajv.compile(schema);
  const names = readdirSync(builtinFolder).filter((name) => name.endsWith(".yaml"));

  test.each(names)("takes %s", (name) => {
    expect(validate(parse(readFileSync(join(builtinFolder, name), "utf8"))), ajv.errorsText(validate.errors)).toBe(
      true,
    );
  });

  test("is named in the first line of every provider's file", () => {
    const line = "# yaml-language-server: $schema=./schema.json\n";
    const without = names.filter((name) => !readFileSync(join(builtinFolder, name), "utf8").startsWith(line));
    expect(without.filter((name) => !generic.has(name))).toEqual([]);
  });

  test("refuses what the broker refuses", () => {
    expect(validate({ id: "own", refresh: { rotaton: "auto" } })).toBe(false);
    expect(validate({ id: "own", refresh: { rotation: "sometimes" } })).toBe(false);
    expect(validate({ name: "no id" })).toBe(false);
  });

  test("has a title and a word on every setting", () => {
    const bare = undescribed(schema, []);
    expect(bare).toEqual([]);
  });
});

function linksIn(page: string): string[] {
  return [...page.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link ?? "");
}

function leadsSomewhere(from: string, link: string): boolean {
  const [path = "", anchor] = link.split("#");
  const target = path === "" ? from : join(dirname(from), path);
  if (anchor === undefined) return existsSync(join(root, target));
  return (files[target] ?? read(target)).split("\n").some((line) => /^#+ /.test(line) && slugOf(line) === anchor);
}

const slugOf = (heading: string) =>
  heading
    .replace(/^#+ /, "")
    .toLowerCase()
    .replaceAll(/[^\w\s-]/g, "")
    .replaceAll(" ", "-");

type Schema = {
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  items?: Schema;
  title?: string;
  description?: string;
};

function undescribed({ properties = {}, patternProperties = {}, items }: Schema, path: string[]): string[] {
  const own = Object.entries(properties).flatMap(([name, inner]) => {
    const at = path.concat(name);
    const below = undescribed(inner, at);
    return inner.title && inner.description ? below : below.concat(at.join("."));
  });
  const below = [...Object.values(patternProperties), ...(items ? [items] : [])];
  return [...own, ...below.flatMap((inner) => undescribed(inner, path))];
}
