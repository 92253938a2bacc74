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

async function storeIn(kind: "postgres" | "embedded", target: string): Promise<Report> {
  const env = { PATH: process.env["PATH"], TZ: "Europe/Amsterdam", PGTZ: "Europe/Amsterdam" };
  const { stdout } = await promisify(execFile)(process.execPath, [program, kind, target, ...times], { env });
  return JSON.parse(stdout) as Report;
}

function expectRight({ zone, offset, stored, leaseMs, offByMs }: Report): void {
  expect([zone, offset]).toEqual(["Europe/Amsterdam", -60]);
  expect(stored).toEqual(
    times.map((time) => ({
      bySql: [time, time, time, time],
      byAdapter: [time, time, time, time, time],
      isNextInList: true,
    })),
  );
  expect(leaseMs).toBeGreaterThan(0);
  expect(leaseMs).toBeLessThanOrEqual(30_000);
  expect(Math.abs(offByMs)).toBeLessThan(60_000);
}

it("a broker in Amsterdam with an embedded database of Amsterdam stores the times that were meant", async () => {
  const folder = await temporaryFolder("zone");
  expectRight(await storeIn("embedded", folder.path));
  await folder.remove();
});

describeWithServices(["postgres"], "a broker in Amsterdam with a Postgres of Amsterdam", () => {
  it("stores the times that were meant", async () => {
    expectRight(await storeIn("postgres", await useDatabase()));
  });

  it("also where DATABASE_URL brings session options of its own", async () => {
    const url = new URL(await useDatabase());
    url.searchParams.set("options", "-c statement_timeout=60000 -c timezone=Europe/Amsterdam");
    expectRight(await storeIn("postgres", url.href));
  });
});
