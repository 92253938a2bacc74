import { parse } from "yaml";
import { bases, lay } from "./base.ts";
import { grantLabels } from "./observe-requests.ts";
import type { Row } from "./row.ts";

type File = { after_connect?: unknown };

/** A row of a lookup, with the lookup under each grant in turn: it does there what it does at the top, for that grant alone. */
export function underGrants(row: Row): Row[] {
  return Object.entries(grantLabels).map(([grant, label]) => ({
    setting: `token.grants.${grant}.${row.setting}`,
    file: under(grant, row, row.file),
    instead: under(grant, row, row.instead ?? "{}"),
    shows: Object.fromEntries(
      Object.entries(row.shows).map(([name, change]) => [
        name.replace(/^(lookup|account)/, `$1 after ${label}`),
        change,
      ]),
    ),
  }));
}

function under(grant: string, { base = "full" }: Row, piece: string): string {
  const { after_connect: mine = [], ...rest } = parse(piece) as File;
  const { after_connect: usual = [] } = parse(bases[base]) as File;
  return JSON.stringify({ ...rest, token: { grants: { [grant]: { after_connect: lay(usual, mine) } } } });
}
