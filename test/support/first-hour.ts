import { expect } from "vitest";
import { StartupError } from "../../src/errors.ts";
import { type FirstHourRow, isLine, readFirstHour } from "./error-table.ts";

/** Every secret of the cases holds this text. No line may hold it. */
export const canary = "canary-5b1c";

/** What a case has come to: the lines that tell of the trouble, and whether the start is over. */
export type Told = { lines: string[]; exit: 2 | null };

export type Cases = Readonly<Record<string, () => Told | Promise<Told>>>;

/** The rows of a section, each with its case. @throws where one lacks the other */
export function rowsOf(section: string, cases: Cases): (FirstHourRow & { play: () => Promise<Told> })[] {
  const rows = readFirstHour().filter((row) => row.section === section);
  expect(Object.keys(cases)).toEqual(rows.map(({ wrong }) => wrong));
  return rows.map((row) => Object.assign(row, { play: async () => await (cases[row.wrong] as Cases[string])() }));
}

/** Exactly the line of the row, once; no stack, no secret. */
export function expectTold({ line, exit }: FirstHourRow, told: Told): void {
  expect(told.lines).toHaveLength(1);
  const [said = ""] = told.lines;
  expect(isLine(line, said), said).toBe(true);
  expect(said).not.toMatch(/\n|^ {4}at |\.ts:\d/);
  expect(said).not.toContain(canary);
  expect(told.exit).toBe(exit);
}

/** What a start in this process ends with. */
export async function refusalOf(start: () => unknown): Promise<Told> {
  try {
    await start();
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    return { lines: error.lines.map((line) => line.replaceAll(/\s+/g, " ")), exit: 2 }; // as src/main.ts writes it
  }
  throw new Error("it started");
}
