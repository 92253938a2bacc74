/** One guard of the protocol taken out of the source, in the process that loads it and nowhere else. */
export type Mutation = {
  name: string;
  /** From the project's root. */
  file: string;
  /** Stands exactly once in the file. */
  find: string;
  replace: string;
};

/** @throws when the text is not there, or more than once: the guard has moved, and nothing would be proved. */
export function mutate(source: string, { name, file, find, replace }: Mutation): string {
  const count = source.split(find).length - 1;
  if (count === 1) return source.replace(find, () => replace);
  throw new Error(`mutation "${name}": its text stands ${count} times in ${file}, not once`);
}
