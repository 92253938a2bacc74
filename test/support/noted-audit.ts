import type { Audit, Begun, NewEntry, Outcome } from "../../src/audit/entries.ts";

/** `outcome` null: it has not ended. */
type NotedEntry = NewEntry & { mustNotFail: boolean; outcome: Outcome | null };

/** An audit that only notes, in memory, in the order in which entries were begun. */
export class NotedAudit implements Pick<Audit, "begin" | "end" | "countRefused"> {
  readonly entries: NotedEntry[] = [];
  /** How many requests came without a valid key. */
  refused = 0;
  /** Set: neither disk nor database takes an entry. */
  trouble: Error | null = null;

  async begin(entry: NewEntry, { mustNotFail = false } = {}): Promise<Begun> {
    if (this.trouble !== null && !mustNotFail) throw this.trouble;
    const noted: NotedEntry = { ...entry, mustNotFail, outcome: null };
    this.entries.push(noted);
    return noted as unknown as Begun;
  }

  async end(begun: Begun, outcome: Outcome): Promise<void> {
    const noted = begun as unknown as NotedEntry;
    if (noted.outcome !== null) throw new Error("an entry ends once");
    noted.outcome = outcome;
  }

  countRefused(): void {
    this.refused += 1;
  }

  /** Who did what, to what, and what came of it: a line for each. */
  lines(): string[] {
    return this.entries.map(({ actor, action, target, outcome }) => {
      const { name } = outcome?.target ?? target ?? { name: null };
      return `${actor.kind} ${actor.id ?? "-"} ${action} ${name ?? "-"}: ${outcome?.result ?? "open"}`;
    });
  }
}
