import { placedLookups, type ProviderFile } from "./provider-file.ts";
import type { Problem } from "./yaml-source.ts";

type Knobs = { client_auth?: string | { header?: string; basic?: string } };
type Placed = [path: string[], knobs: Knobs | null | undefined];

/** Maps of `client_auth` that say no way to authenticate, or two. Merging with an extended file may have made them so. */
export function checkClientAuth(file: ProviderFile): Problem[] {
  return placesOf(file).flatMap(([path, knobs]) => {
    const auth = knobs?.client_auth;
    if (typeof auth !== "object" || (auth.header === undefined) !== (auth.basic === undefined)) return [];
    const text =
      auth.header === undefined
        ? "needs `header`, or `basic`"
        : "has both `header` and `basic`, of which one counts; a map merges with that of the extended file";
    return [{ path: [...path, "client_auth"], text }];
  });
}

function placesOf(file: ProviderFile): Placed[] {
  const { token, authorization, device, revocation, introspection, response } = file;
  const grants = Object.entries(token?.grants ?? {});
  const extras = response?.extra_tokens ?? [];
  return [
    [["token"], token],
    ...grants.map(([grant, knobs]): Placed => [["token", "grants", grant], knobs]),
    ...grants.map(([grant, knobs]): Placed => [["token", "grants", grant, "refresh"], refreshOf(knobs)]),
    [["authorization", "pushed"], authorization?.pushed],
    [["device"], device],
    [["revocation"], revocation],
    [["introspection"], introspection],
    ...placedLookups(file).map(({ path, lookup: { request } }): Placed => [[...path, "request"], request]),
    ...extras.map(({ exchange }, index): Placed => [["response", "extra_tokens", String(index), "exchange"], exchange]),
  ];
}

function refreshOf(knobs: Knobs & { refresh?: Knobs }): Knobs | undefined {
  return knobs.refresh;
}
