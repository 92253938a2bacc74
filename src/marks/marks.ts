/** The newest generation and version of a connection that are known to have been stored. */
export type Mark = { generation: number; version: number };

/**
 * What Postgres held, remembered outside of it: a row behind its mark has gone back in time with a restored database, and
 * its refresh token has most likely been spent. Never throws: null where the place does not answer.
 */
export type Marks = {
  /** Notes what has been COMMITted. A mark never goes down by this. Does not wait. */
  raise(connectionId: string, mark: Mark): void;
  /** The same for many, and gives those that were higher already. */
  compare(marks: ReadonlyMap<string, Mark>): Promise<Map<string, Mark> | null>;
  read(connectionId: string): Promise<Mark | null>;
  /** The connection was deleted: any row of its id comes from the past. */
  close(connectionId: string, version: number): void;
};

/** No row reaches it by refreshing, and there is room above it. */
export const deletedGeneration = 2_000_000_000;
