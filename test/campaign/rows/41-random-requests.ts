import { sendRandomRequests } from "../../integration/random-input.ts";
import { useDatabase } from "../../support/services/index.ts";
import { WrongInputStage } from "../../support/wrong-input-stage.ts";
import type { Row } from "../row.ts";

const sizes = { full: 100_000, short: 2_000 } as const;

export const row: Row = {
  number: 41,
  title: "requests made up at random from the OpenAPI document",
  promised: "0 answers 500, 0 crashes, each answer as documented",
  onlyFull: "test/integration/wrong-input.test.ts sends 2,000 of them",
  async run({ seed, scale }) {
    const runs = sizes[scale];
    await using stage = await WrongInputStage.start({ databaseUrl: await useDatabase() });
    const began = performance.now();
    const faults: string[] = [];
    const answered = await sendRandomRequests(stage, { runs, seed }).catch((error: unknown) => {
      faults.push(String((error as { cause?: unknown }).cause ?? error).slice(0, 500));
      return {};
    });
    const seconds = Math.round((performance.now() - began) / 1000);
    const errors = (stage.broker.stdout + stage.broker.stderr).match(/unexpected error/g)?.length ?? 0;
    const sent = Object.values(answered).reduce((sum, count) => sum + count, 0);
    return {
      ok: faults.length === 0 && errors === 0 && sent >= runs && stage.broker.isRunning,
      figure: `${faults.length} faults in ${sent} requests, ${errors} unexpected errors in the log, ${seconds} s`,
      notes: [...faults, JSON.stringify(answered)],
    };
  },
};
