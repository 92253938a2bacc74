import { sendRandomRequests } from "../../integration/random-input.ts";
import { useDatabase } from "../../support/services/index.ts";
import { WrongInputStage } from "../../support/wrong-input-stage.ts";
import type { Row } from "../row.ts";

const sizes = { full: 100_000, short: 2_000 } as const;
/** At a time, each with a seed of its own. */
const senders = 8;

export const row: Row = {
  number: 41,
  title: "requests made up at random from the OpenAPI document",
  promised: "0 answers 500, 0 crashes, each answer as documented",
  onlyFull: "test/integration/wrong-input.test.ts sends 2,000 of them",
  async run({ seed, scale }) {
    const runs = sizes[scale] / senders;
    await using stage = await WrongInputStage.start({ databaseUrl: await useDatabase() });
    const began = performance.now();
    const each = await Promise.allSettled(
      Array.from({ length: senders }, (_, index) => sendRandomRequests(stage, { runs, seed: seed * senders + index })),
    );
    const seconds = Math.round((performance.now() - began) / 1000);
    const faults = each.flatMap((part) => (part.status === "rejected" ? [describe(part.reason)] : []));
    const answered: Record<string, number> = {};
    for (const part of each) {
      if (part.status === "rejected") continue;
      for (const [status, count] of Object.entries(part.value)) answered[status] = (answered[status] ?? 0) + count;
    }
    const errors = (stage.broker.stdout + stage.broker.stderr).match(/unexpected error/g)?.length ?? 0;
    const sent = Object.values(answered).reduce((sum, count) => sum + count, 0);
    return {
      ok: faults.length === 0 && errors === 0 && sent >= sizes[scale] && stage.broker.isRunning,
      figure: `${faults.length} faults in ${sent} requests, ${errors} unexpected errors in the log, ${seconds} s`,
      notes: [...faults, JSON.stringify(answered)],
    };
  },
};

/** The smallest request for which the answer is not as documented, and its answer. */
function describe(error: unknown): string {
  return String((error as { cause?: unknown }).cause ?? error).slice(0, 500);
}
