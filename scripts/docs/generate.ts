import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { deadGrantsPage } from "./dead-grants.ts";
import { providerJsonSchema } from "./json-schema.ts";
import { overviewPage, type Refusal } from "./overview.ts";
import { providerPage } from "./provider-page.ts";

/** Only to be extended, or this broker's own: no provider's. */
const generic = new Set(["oauth2", "oidc", "sandbox"]);

/** Every generated file, by its path in the repository. */
export function generateDocs(
  definitions: readonly ProviderDefinition[],
  refusals: Readonly<Record<string, Refusal>>,
): Record<string, string> {
  const shown = definitions
    .filter(({ id, usable }) => usable && !generic.has(id))
    .sort((a, b) => a.name.localeCompare(b.name, "en"));
  const pages = shown.map((definition) => [`docs/providers/${definition.id}.md`, providerPage(definition)] as const);
  return {
    "providers/schema.json": `${JSON.stringify(providerJsonSchema(), null, 2)}\n`,
    "docs/providers/README.md": overviewPage(shown, refusals),
    "docs/providers/dead-grants.md": deadGrantsPage(shown),
    ...Object.fromEntries(pages),
  };
}
