import type { ApiDefinition, ClientAuth, Lookup, ProviderDefinition } from "./definition.ts";
import { templateNames } from "./template.ts";
import type { Problem } from "./yaml-source.ts";

/** A template that is filled for a lookup, where it stands, and what to do about a value that is not there yet. */
type Need = { path: string[]; template: string; advice: string };

/** A lookup can use what those before it have captured: nothing of its own answer, nor of a later one. */
export function checkLookupOrder({ lookups, api }: ProviderDefinition): Problem[] {
  return lookups.flatMap((lookup, index) => {
    const before = namesCaptured(lookups.slice(0, index));
    // A name that no lookup captures is told as unknown already.
    const late = new Set(namesCaptured(lookups.slice(index)).filter((name) => !before.includes(name)));
    return needsOf(lookup, api, ["after_connect", String(index)]).flatMap(({ path, template, advice }) => {
      const names = templateNames(template).filter((name) => late.has(name));
      return names.map((name) => ({
        path,
        text: `{${name}} is captured by this lookup or a later one, and is not there yet${advice}`,
      }));
    });
  });
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
