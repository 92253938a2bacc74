/**
 * Does `work` for each item, one after the other: what fails is told, and the others go on. Only an error that `isForAll` says
 * concerns all of them, such as an absent database, ends it.
 */
export async function eachAlone<Item>(
  items: readonly Item[],
  work: (item: Item) => Promise<unknown>,
  { onError, isForAll = () => false }: { onError: (error: unknown) => void; isForAll?: (error: unknown) => boolean },
): Promise<void> {
  for (const item of items) {
    try {
      await work(item);
    } catch (error) {
      if (isForAll(error)) throw error;
      onError(error);
    }
  }
}
