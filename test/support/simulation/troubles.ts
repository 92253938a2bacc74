type Kind = "replica" | "redis" | "lost reply";

type Trouble = { kind: Kind; name: string; fromMs: number; toMs: number };

/** When what was away: a replica dead, frozen or cut off from Postgres; Redis down or emptied; its reply to a replica lost. */
export class Troubles {
  readonly #all: Trouble[] = [];

  /** Returns a function that ends it. */
  begin(kind: Kind, name: string, fromMs: number): (nowMs: number) => void {
    const trouble = { kind, name, fromMs, toMs: Infinity };
    this.#all.push(trouble);
    return (nowMs) => void (trouble.toMs = Math.min(trouble.toMs, nowMs));
  }

  /** A trouble that is over at once. */
  strike(kind: Kind, name: string, atMs: number): void {
    this.#all.push({ kind, name, fromMs: atMs, toMs: atMs });
  }

  endAll(nowMs: number): void {
    for (const trouble of this.#all) trouble.toMs = Math.min(trouble.toMs, nowMs);
  }

  within(kind: Kind, name: string, { fromMs, toMs }: { fromMs: number; toMs: number }): boolean {
    return this.#all.some(
      (trouble) => trouble.kind === kind && trouble.name === name && trouble.fromMs <= toMs && trouble.toMs >= fromMs,
    );
  }
}
