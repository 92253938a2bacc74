const keepMs = 1000;

/**
 * What `compute` gives, worked out once a second at most, however many ask: who comes within the second, or while it is
 * still being worked out, shares the answer, or the error.
 */
export function shareAnswer<Answer>(
  compute: () => Promise<Answer>,
  clock: { monotonicMs(): number },
): () => Promise<Answer> {
  let shared: { answer: Promise<Answer>; isDone: boolean; startedMs: number } | null = null;
  return async () => {
    const isFresh = shared !== null && (!shared.isDone || clock.monotonicMs() - shared.startedMs < keepMs);
    if (shared === null || !isFresh) {
      const started = { answer: compute(), isDone: false, startedMs: clock.monotonicMs() };
      void started.answer.catch(() => null).then(() => (started.isDone = true));
      shared = started;
    }
    return await shared.answer;
  };
}
