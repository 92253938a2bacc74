import { beforeAll, expect, it } from "vitest";
import { loadRows } from "../campaign/load-rows.ts";
import type { Row } from "../campaign/row.ts";
import { type Result, startRows } from "../campaign/run-rows.ts";
import { describeWithServices } from "../support/services/index.ts";

/** Beside those that wait for a permit: the others wait too, for tokens to end and for processes to start. */
const parallel = 2;
const seed = 20_261_121;

const rows = (await loadRows()).filter(({ timed, heavy }) => timed !== true && heavy !== true);

function log(line: string): void {
  if (process.env["CAMPAIGN_LOG"]) process.stderr.write(`${line}\n`);
}

describeWithServices(["postgres", "redis"], "the campaign, in its short form", () => {
  let results: Map<Row, Promise<Result>>;

  beforeAll(() => {
    results = startRows(rows, { seed, scale: "short", parallel, log });
  });

  it.for(rows)("row $number: $title: $promised", async (row) => {
    const { outcome } = (await results.get(row)) as Result;
    expect(outcome.ok, [outcome.figure, ...(outcome.notes ?? [])].join("\n")).toBe(true);
  });
});
