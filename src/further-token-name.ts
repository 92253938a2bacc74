/** The name of the row that a further token of a connection has. No connection's own name may contain `#`. */
export function furtherTokenName(connection: string, chain: string): string {
  return `${connection}#${chain}`;
}

/** The name that people know a row by: its connection's. */
export function publicName(name: string): string {
  return name.split("#", 1)[0] ?? name;
}
