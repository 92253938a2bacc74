/** A further token of a connection has a row of its own; `#` stands in no connection's name. */
export function furtherTokenName(connection: string, chain: string): string {
  return `${connection}#${chain}`;
}

/** The name that people know a row by: its connection's. */
export function publicName(name: string): string {
  return name.split("#", 1)[0] ?? name;
}
