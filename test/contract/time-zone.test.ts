import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";

const program = fileURLToPath(new URL("zone-process.ts", import.meta.url));

/** Winter, summer, an hour that Amsterdam has twice, one that it skips, and half a second. */
const times = [
  "2026-01-15T12:00:00.000Z",
  "2026-07-15T12:00:00.500Z",
  "2026-10-25T00:30:00.000Z",
  "2026-10-25T01:30:00.000Z",
  "2026-03-29T01:30:00.000Z",
];

type Report = {
  zone: string;
  offset: number;
  stored: { bySql: string[]; byAdapter: (string | null)[]; isNextInList: boolean }[];
  leaseMs: number;
  offByMs: number;
};

/** One process in Amsterdam, which stores the times in each of these databases. */
async function storeIn(targets: Record<string, { kind: "postgres" | "embedded"; target: string }>) {
  const env = { PATH: process.env["PATH"], TZ: "Europe/Amsterdam", PGTZ: "Europe/Amsterdam" };
  const given = JSON.stringify({ targets, times });
  const { stdout } = await promisify(execFile)(process.execPath, ["--liftoff-only", program, given], { env });
  return JSON.parse(stdout) as Record<string, Report>;
}

/** A wrong zone moves a time by an hour or more. The process itself takes less than half an hour. */
const halfAnHourMs = 1_800_000;

function expectRight(report: Report | undefined): void {
  const { zone, offset, stored, leaseMs = NaN, offByMs = NaN } = report ?? {};
  expect([zone, offset]).toEqual(["Europe/Amsterdam", -60]);
  expect(stored).toEqual(
    times.map((time) => ({
      bySql: [time, time, time, time],
      byAdapter: [time, time, time, time, time],
      isNextInList: true,
    })),
  );
  expect(Math.abs(leaseMs - 30_000)).toBeLessThan(halfAnHourMs);
  expect(Math.abs(offByMs)).toBeLessThan(halfAnHourMs);
}

it("a broker in Amsterdam with an embedded database of Amsterdam stores the times that were meant", async () => {
  const folder = await temporaryFolder("zone");
  const { embedded } = await storeIn({ embedded: { kind: "embedded", target: folder.path } });
  expectRight(embedded);
  await folder.remove();
});

describeWithServices(["postgres"], "a broker in Amsterdam with a Postgres of Amsterdam", () => {
  it("stores the times that were meant, also where DATABASE_URL brings session options of its own", async () => {
    const url = new URL(await useDatabase());
    url.searchParams.set("options", "-c statement_timeout=600000 -c timezone=Europe/Amsterdam");
    const { plain, withOptions } = await storeIn({
      plain: { kind: "postgres", target: await useDatabase() },
      withOptions: { kind: "postgres", target: url.href },
    });
    expectRight(plain);
    expectRight(withOptions);
  });
});
