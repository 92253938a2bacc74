import {
  lookupsOf,
  type ApiDefinition,
  type ClientAuth,
  type ConnectionGrant,
  type Lookup,
  type ProviderDefinition,
} from "./definition.ts";
import { requiredCaptures } from "./requirements.ts";
import { templateNames } from "./template.ts";
import type { Problem } from "./yaml-source.ts";

/** A template that is filled for a lookup, where it stands, and what to do about a value that is not there yet. */
type Need = { path: string[]; template: string; advice: string };

/** Lookups that follow one another, and where their list stands in the file. */
type PlacedList = { path: string[]; lookups: readonly Lookup[] };

/** Every list of lookups: the one at the top of the file, and those of single grants. */
export function placedLists({ lookups, lookupsByGrant }: ProviderDefinition): PlacedList[] {
  const special = Object.entries(lookupsByGrant).map(([grant, own]) => ({
    path: ["token", "grants", grant, "after_connect"],
    lookups: own,
  }));
  return [{ path: ["after_connect"], lookups }, ...special];
}

/** A lookup can use what those before it in its list have captured; other requests of a grant, what its own list captures. */
export function checkLookupOrder(definition: ProviderDefinition): Problem[] {
  const lists = placedLists(definition);
  // A name that no lookup captures is told as unknown already.
  const known = new Set(lists.flatMap(({ lookups }) => namesCaptured(lookups)));
  return [
    ...lists.flatMap((list) => checkList(list, definition.api, known)),
    ...definition.grants.flatMap((grant) => checkGrant(definition, grant, known)),
  ];
}

function checkList({ path: place, lookups }: PlacedList, api: ApiDefinition, known: ReadonlySet<string>): Problem[] {
  const all = namesCaptured(lookups);
  return lookups.flatMap((lookup, index) => {
    const before = namesCaptured(lookups.slice(0, index));
    return needsOf(lookup, api, [...place, String(index)]).flatMap(({ path, template, advice }) => {
      const names = templateNames(template).filter((name) => known.has(name) && !before.includes(name));
      return names.map((name) => {
        const why = all.includes(name)
          ? "is captured by this lookup or a later one, and is not there yet"
          : "is captured for another grant only, and is not there for this one";
        return { path, text: `{${name}} ${why}${advice}` };
      });
    });
  });
}

/** What a grant's requests need and only the lookups of another grant capture would never be there. */
function checkGrant(definition: ProviderDefinition, grant: ConnectionGrant, known: ReadonlySet<string>): Problem[] {
  const own = definition.lookupsByGrant[grant];
  const captured = namesCaptured(lookupsOf(definition, grant));
  const lacking = requiredCaptures(definition, grant).filter((name) => known.has(name) && !captured.includes(name));
  const path = own ? ["token", "grants", grant, "after_connect"] : ["after_connect"];
  return lacking.map((name) => ({ path, text: `no lookup here captures {${name}}, which requests of ${grant} need` }));
}

function namesCaptured(lookups: readonly Lookup[]): string[] {
  return lookups.flatMap(({ capture }) => Object.keys(capture).map((name) => `account.${name}`));
}

function needsOf({ request, value, select }: Lookup, api: ApiDefinition, path: string[]): Need[] {
  const asked = [...path, "request"];
  return [
    ...(request === null ? [] : requestNeeds(request, api, asked)),
    { path: [...path, "value"], template: value ?? "", advice: "" },
    { path: [...path, "select", "equals"], template: select?.equals ?? "", advice: "" },
  ];
}

function requestNeeds(request: NonNullable<Lookup["request"]>, api: ApiDefinition, path: string[]): Need[] {
  const { url, headers, fields, clientAuth } = request;
  return [
    { path: [...path, "url"], template: url, advice: "" },
    ...Object.entries(fields).map(([name, template]) => ({ path: [...path, "fields", name], template, advice: "" })),
    ...Object.entries(headers).map(([name, template]) => ({
      path: [...path, "headers", name],
      template,
      advice:
        api.headers[name] === template
          ? `; \`headers: { ${name}: null }\` here leaves this one of api.headers out`
          : "",
    })),
    {
      path,
      template: clientAuth === null ? api.authorization.value : templateOf(clientAuth),
      advice: clientAuth === null ? ": it stands in `api.authorization`" : "",
    },
  ];
}

/** What authenticates the client, where that is a template. */
function templateOf(clientAuth: ClientAuth): string {
  if (clientAuth.kind === "header") return clientAuth.value;
  return clientAuth.kind === "basic" ? clientAuth.pair : "";
}
