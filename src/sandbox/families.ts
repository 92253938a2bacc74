const largestCount = 10_000;

/** The rotation of refresh tokens, with reuse detection (RFC 9700, section 4.14.2). */
export type Families = {
  /** Begins one for a code. False: the code was used before, and what came of it dies. */
  start(family: string): boolean;
  /** Spends a refresh token. False: spent before, and the family dies, or dead already. */
  rotate(family: string, sequence: number): boolean;
  isAlive(family: string): boolean;
  kill(family: string): void;
};

/**
 * Kept in memory. A family that is unknown, or known at a lower sequence, is taken at the sequence of its token: the token is
 * signed, so an earlier run of this broker, or another replica, has made it.
 */
export function createFamilies(): Families {
  const families = new Map<string, { sequence: number; dead: boolean }>();
  const put = (family: string, sequence: number, dead: boolean) => {
    families.delete(family); // so that the map's order is that of last use
    families.set(family, { sequence, dead });
    const [oldest] = families.keys();
    if (families.size > largestCount && oldest !== undefined) families.delete(oldest);
  };
  return {
    start(family) {
      const isNew = !families.has(family);
      put(family, 0, !isNew);
      return isNew;
    },
    rotate(family, sequence) {
      const known = families.get(family);
      const fresh = known === undefined || (!known.dead && sequence >= known.sequence);
      put(family, sequence + 1, !fresh);
      return fresh;
    },
    isAlive: (family) => families.get(family)?.dead !== true,
    kill: (family) => put(family, 0, true),
  };
}
