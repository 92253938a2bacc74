/** Lets so many in at once; the others wait for their turn, in order. */
export type Gate = {
  /** False when the turn did not come within `waitMs`; then nobody has entered. */
  enter(waitMs?: number): Promise<boolean>;
  leave(): void;
};

export function createGate(places: number): Gate {
  const waiting: ((mayEnter: boolean) => void)[] = [];
  let free = places;
  return {
    async enter(waitMs) {
      if (free > 0) {
        free -= 1;
        return true;
      }
      const { promise, resolve } = Promise.withResolvers<boolean>();
      waiting.push(resolve);
      if (waitMs === undefined) return await promise;
      const timer = setTimeout(() => {
        const place = waiting.indexOf(resolve);
        if (place >= 0) waiting.splice(place, 1);
        resolve(false);
      }, waitMs);
      return await promise.finally(() => clearTimeout(timer));
    },
    leave() {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next(true);
    },
  };
}
