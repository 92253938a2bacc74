import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkProviderFile } from "../../../src/providers/load/catalog.ts";
import { builtinFolder } from "../../support/built-ins.ts";
import { folderOf } from "./definitions.ts";

const guide = readFileSync(join(import.meta.dirname, "../../../docs/write-a-provider.md"), "utf8");
const examples = [...guide.matchAll(/```yaml\n(.*?)```/gs)].map((match) => match[1] ?? "");

/** The example that holds this line. */
function example(line: string): string {
  const found = examples.filter((text) => text.split("\n").some((each) => each.startsWith(line)));
  expect(found).toHaveLength(1);
  return found[0] ?? "";
}

test("the files of the guide pass the check: the first one, with the recipes added, and the one for a fake", () => {
  const first = example("id: acme ");
  const [lookups = "", headers = ""] = example("  - request: { url: https://api.acme.example").split("api:\n");
  const extraFolder = folderOf({
    "acme.yaml": `${first.trimEnd()}\n${headers}${lookups}${example("sources:")}`,
    "plain.yaml": first.replace("id: acme ", "id: plain "),
    "acme-fake.yaml": example("id: acme-fake"),
  });
  for (const name of ["acme", "plain", "acme-fake"]) {
    expect(checkProviderFile(join(extraFolder, `${name}.yaml`), { builtinFolder, extraFolder })).toEqual([]);
  }
});
