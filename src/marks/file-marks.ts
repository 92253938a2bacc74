import { DatabaseSync } from "node:sqlite";
import { deletedGeneration, type Mark, type Marks } from "./marks.ts";

type FileMarks = Marks & { end(): void };

/**
 * Marks in a file of this broker's own folder: they guard a deployment of one replica. Without a working disk they guard nothing.
 * They carry no proof: who can write there has the keys beside it, or could run another broker in its place.
 */
export function createFileMarks(path: string, onError: (error: Error) => void): FileMarks {
  try {
    return openMarks(new DatabaseSync(path), onError);
  } catch (error) {
    onError(error as Error);
    return { raise() {}, compare: async () => null, read: async () => null, close() {}, end() {} };
  }
}

function openMarks(file: DatabaseSync, onError: (error: Error) => void): FileMarks {
  // A mark that a power cut takes away leaves one row unguarded; waiting for the disk at each refresh would cost every one.
  file.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
  file.exec(
    "CREATE TABLE IF NOT EXISTS marks (id TEXT PRIMARY KEY, generation INTEGER, version INTEGER) WITHOUT ROWID",
  );
  const select = file.prepare("SELECT generation, version FROM marks WHERE id = ?");
  const raise = file.prepare(`INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE
    SET generation = excluded.generation, version = excluded.version WHERE excluded.generation > generation`);
  const replace = file.prepare("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)");

  const attempt = <Result>(work: () => Result): Result | null => {
    try {
      return work();
    } catch (error) {
      onError(error as Error);
      return null;
    }
  };
  const read = (id: string): Mark | null => (select.get(id) as Mark | undefined) ?? null;

  return {
    raise: (id, { generation, version }) => void attempt(() => raise.run(id, generation, version)),
    async compare(marks) {
      const higher = new Map<string, Mark>();
      return attempt(() => {
        file.exec("BEGIN IMMEDIATE");
        try {
          for (const [id, { generation, version }] of marks) {
            raise.run(id, generation, version);
            const known = read(id);
            if (known !== null && known.generation > generation) higher.set(id, known);
          }
          file.exec("COMMIT");
        } catch (error) {
          file.exec("ROLLBACK");
          throw error;
        }
        return higher;
      });
    },
    read: async (id) => attempt(() => read(id)),
    close: (id, version) => void attempt(() => replace.run(id, deletedGeneration, version)),
    end: () => file.close(),
  };
}
