import { rulesOfValue } from "./check-templates.ts";
import type { ProviderDefinition } from "./definition.ts";
import { pinnedDomain } from "./host-position.ts";
import type { ProviderFile } from "./provider-file.ts";
import { templatePlaces } from "./template-places.ts";
import { splitUrl, templateNames } from "./template.ts";

/**
 * Whether an address is at a host that the definition's file itself fixes: one that stands there, or one of a registrable domain
 * that a pattern keeps to. Whoever chose another host, by an input, by metadata or by what they answered, may have chosen one
 * that they cannot reach themself: what is there is not to be told to callers.
 */
export function isUsualHost({ file }: Pick<ProviderDefinition, "file">, address: string): boolean {
  const url = URL.parse(address);
  if (url === null) return false;
  const authorities = templatePlaces(file).flatMap(({ isUrl, text }) => (isUrl ? splitUrl(text).authority : []));
  return authorities.some((authority) => isFixedBy(file, authority, url));
}

function isFixedBy(file: ProviderFile, authority: string, url: URL): boolean {
  const [name, ...more] = templateNames(authority);
  if (name === undefined) return URL.parse(authority)?.host === url.host;
  if (more.length > 0) return false;
  return rulesOfValue(file, name).some((input) => {
    if (input.enum) {
      return input.enum.some((value) => URL.parse(authority.replace(`{${name}}`, value))?.host === url.host);
    }
    const domain = pinnedDomain({ authority, name, input });
    const sample = domain === null ? null : URL.parse(`https://x${domain}`);
    return sample !== null && url.hostname.endsWith(sample.hostname.slice(1)) && url.port === sample.port;
  });
}
