const header = "freshet-unconfirmed";

/** For the OpenAPI document. */
export const unconfirmedHeader = `The header \`${header}\` names the replicas, with commas between, that have not confirmed within some seconds that they have heard of it: one that reaches Postgres does within 4 s, one that reaches neither Postgres nor Redis when it is back. Without the header, all have.`;

/** The header, where there is something to tell. */
export function unconfirmedBy(names: readonly string[]): Record<string, string> {
  return names.length === 0 ? {} : { [header]: names.join(", ") };
}
