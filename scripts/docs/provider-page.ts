import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { accessSections } from "./access.ts";
import { deadGrantSection } from "./dead-grants.ts";
import { endpointSections } from "./endpoints.ts";
import { examples } from "./example.ts";
import { knownSections } from "./known.ts";
import { list, page, plain, section } from "./markdown.ts";
import { refreshSections } from "./refreshing.ts";

/** The page of one provider, all of it from its definition. */
export function providerPage(definition: ProviderDefinition): string {
  const { id, name, docs, file } = definition;
  const where = docs === null ? "" : ` Documented at ${plain(docs)}.`;
  return page([
    `# ${plain(name)}`,
    `The provider \`${id}\`, as [providers/${id}.yaml](../../providers/${id}.yaml) describes it.${where} All providers: [overview](README.md).`,
    ...accessSections(definition),
    ...section("## To begin", examples(definition)),
    ...refreshSections(definition),
    ...deadGrantSection(definition),
    ...endpointSections(definition),
    ...section("## What surprises", list((file.guide?.quirks ?? []).map(plain))),
    ...knownSections(definition),
  ]);
}
