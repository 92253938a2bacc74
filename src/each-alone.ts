/**
 * Does `work` for each item, `atOnce` of them at a time: what fails is told, and the others go on. Only an error that `isForAll`
 * says concerns all of them, such as an absent database, ends it.
 */
export async function eachAlone<Item>(
  items: readonly Item[],
  work: (item: Item) => Promise<unknown>,
  {
    onError,
    isForAll = () => false,
    atOnce = 1,
  }: { onError: (error: unknown) => void; isForAll?: (error: unknown) => boolean; atOnce?: number },
): Promise<void> {
  const waiting = items.toReversed();
  const takeTurns = async (): Promise<void> => {
    for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) {
      try {
        await work(item);
      } catch (error) {
        if (!isForAll(error)) {
          onError(error);
          continue;
        }
        waiting.length = 0;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, takeTurns));
}
