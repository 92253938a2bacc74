/** Which answer a record holds: the generation whose refresh token was spent for it, and the attempt. */
export type SpoolKey = { connectionId: string; generation: number; attemptId: string };

export type SpoolEntry = SpoolKey & { record: Uint8Array<ArrayBuffer> };

/** Where answers wait that Postgres could not take yet. Records are sealed: a place sees no token. */
export type SpoolPlace = {
  readonly name: "data_dir" | "redis";
  /** Resolves once the record would outlive this process. @throws when the place cannot take it */
  put(entry: SpoolEntry): Promise<void>;
  remove(key: SpoolKey): Promise<void>;
  /** Everything that waits there, in no order. */
  list(): Promise<SpoolEntry[]>;
  /** The records of one generation. @throws when the place does not answer */
  find(wanted: WantedSpool): Promise<SpoolEntry[]>;
};

/** `attemptId`: the attempt that stands in the row, whose answer is looked for first. */
export type WantedSpool = { connectionId: string; generation: number; attemptId: string | null };

const uuid = String.raw`[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`;
const namePattern = new RegExp(`^(${uuid})\\.(\\d{1,10})\\.(${uuid})$`);

/** A key as the name of a file. */
export function nameOf({ connectionId, generation, attemptId }: SpoolKey): string {
  return `${connectionId}.${generation}.${attemptId}`;
}

/** The key that a file is named after; null: it is none of ours, or was never finished. */
export function keyOf(name: string): SpoolKey | null {
  const [, connectionId, generation, attemptId] = namePattern.exec(name) ?? [];
  if (connectionId === undefined || attemptId === undefined) return null;
  return { connectionId, generation: Number(generation), attemptId };
}
