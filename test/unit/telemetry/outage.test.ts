import { beforeEach, describe, expect, it } from "vitest";
import { createOutage } from "../../../src/telemetry/outage.ts";

let nowMs = 0;
let lines: string[] = [];
const say = (fields: unknown, text?: unknown) => void lines.push(`${JSON.stringify(fields)} ${String(text)}`);
const start = () =>
  createOutage({
    log: { warn: say, info: say },
    monotonicMs: () => nowMs,
    name: "Redis",
    meanwhile: "Freshet serves without it",
  });

beforeEach(() => {
  [nowMs, lines] = [0, []];
});

type Failing = { seconds: number; doubtMs?: number; why?: string };

/** Reports the trouble every second. */
function fail(outage: ReturnType<typeof start>, { seconds, doubtMs = 0, why = "it is full" }: Failing): void {
  for (let second = 0; second < seconds; second++) {
    outage.trouble(why, doubtMs);
    nowMs += 1000;
  }
}

const away = '{"redis":"unavailable"} Redis is away: it is full. Freshet serves without it';

const back = (seconds: number) => `{"redis":"ok","seconds":${seconds}} Redis is back after ${seconds} s`;

describe("what is away", () => {
  it("is told once, then at most once a minute, and once when it is back", () => {
    const outage = start();
    outage.well();
    expect(lines).toEqual([]);
    fail(outage, { seconds: 59 });
    expect(lines).toEqual([away]);
    fail(outage, { seconds: 120 });
    expect(lines).toEqual([away, away, away]);
    outage.well();
    outage.well();
    expect(lines.slice(3)).toEqual([back(179)]);
  });

  it("is told at most once a minute while it comes and goes", () => {
    const outage = start();
    for (let times = 0; times < 25; times++) {
      fail(outage, { seconds: 1 });
      outage.well();
      nowMs += 1000;
    }
    expect(lines).toEqual([away, back(1)]);
    nowMs += 60_000;
    fail(outage, { seconds: 1 });
    expect(lines).toHaveLength(3);
  });

  it("is told at once for another cause, in a second outage as in the same one, and each cause at most once a minute", () => {
    const outage = start();
    fail(outage, { seconds: 2 });
    outage.well();
    fail(outage, { seconds: 57, why: "it refuses the password" });
    outage.well();
    const other = away.replace("it is full", "it refuses the password");
    expect(lines).toEqual([away, back(2), other, back(57)]);
    for (let second = 0; second < 60; second++) {
      fail(outage, { seconds: 1 });
      outage.trouble("it refuses the password");
    }
    expect(lines.slice(4)).toEqual([away, other]);
  });

  it("is told once for what follows from the same fault within seconds", () => {
    const outage = start();
    fail(outage, { seconds: 1 });
    fail(outage, { seconds: 4, why: "it refuses the password" });
    expect(lines).toEqual([away]);
    fail(outage, { seconds: 1, why: "it refuses the password" });
    expect(lines).toHaveLength(2);
  });

  it("is not told for what may be a slow moment of this process, but when that goes on", () => {
    const outage = start();
    fail(outage, { seconds: 1, doubtMs: 1000 });
    outage.well();
    expect(lines).toEqual([]);
    fail(outage, { seconds: 2, doubtMs: 1000 });
    expect(lines).toEqual([away]);
  });
});
