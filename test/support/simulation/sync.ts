/** The same methods, done at once. */
export type Sync<Methods> = {
  [Name in keyof Methods]: Methods[Name] extends (...given: infer Given) => Promise<infer Result>
    ? (...given: Given) => Result
    : never;
};
