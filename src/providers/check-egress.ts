import type net from "node:net";
import { rulesOfValue } from "./check-templates.ts";
import type { ProviderDefinition } from "./definition.ts";
import { parseNetworks, whyNeverReached } from "./egress.ts";
import type { ProviderFile } from "./provider-file.ts";
import { templatePlaces } from "./template-places.ts";
import { splitUrl, templateNames } from "./template.ts";
import type { Problem } from "./yaml-source.ts";

/** Addresses that browsers and callers go to, and this broker does not. */
const notAsked = new Set([
  "authorization.url",
  "authorization.issuer",
  "authorization.manual_redirect_uri",
  "api.base_url",
]);
/** Those that it goes to only where addresses come from metadata. */
const askedForMetadata = new Set(["issuer", "discovery.metadata_url"]);

/**
 * The URLs of a definition that the egress rules refuse whatever is given and whatever a name resolves to. `shared`: the networks of
 * PROVIDER_NETWORKS, which count where the definition names none.
 */
export function checkEgress(definition: ProviderDefinition, shared: net.BlockList | null): Problem[] {
  const { file, isDiscovered } = definition;
  const networks = definition.networks === null ? shared : parseNetworks(definition.networks.join(","));
  const isAsked = (place: string) => !notAsked.has(place) && (isDiscovered || !askedForMetadata.has(place));
  return templatePlaces(file)
    .filter(({ path, isUrl }) => isUrl && isAsked(path.join(".")))
    .flatMap(({ path, text }) => {
      const urls = samplesOf(file, text).map((sample) => URL.parse(sample));
      const fault = urls.map((url) => url && whyNeverReached(url, networks)).find((why) => why !== null);
      return fault === undefined ? [] : [{ path, text: fault }];
    });
}

/** A URL for each value that the file allows in its host; of a value that may be anything, its name alone is unknown. */
function samplesOf(file: ProviderFile, text: string): string[] {
  const { authority, rest } = splitUrl(text);
  const [name] = templateNames(authority);
  if (name === undefined) return [authority + rest.replaceAll(/\{[^{}]*\}/g, "x")];
  const allowed = rulesOfValue(file, name).flatMap((rule) => rule.enum ?? []);
  const values = allowed.length > 0 ? allowed : ["x"];
  return values.flatMap((value) => samplesOf(file, authority.replaceAll(`{${name}}`, value) + rest));
}
