/** Labels of a connection, or labels that a caller is bound to. */
export type Labels = Readonly<Record<string, string>>;

/** Whether each of `wanted` is among the labels, with the same value. With nothing wanted: always. */
export function carries(labels: Labels, wanted: Labels): boolean {
  // A fresh read comes through here, so no list of the names is made. A row that somebody else has written may hold null.
  for (const name in wanted) {
    if (!Object.hasOwn(wanted, name)) continue;
    if (!Object.hasOwn(Object(labels), name) || labels[name] !== wanted[name]) return false;
  }
  return true;
}

/** Whether these labels bind: there is at least one. */
export function binds(labels: Labels): boolean {
  for (const name in labels) if (Object.hasOwn(labels, name)) return true;
  return false;
}
