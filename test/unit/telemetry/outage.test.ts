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

/** Says the trouble every second. */
function fail(outage: ReturnType<typeof start>, { seconds, doubtMs = 0 }: { seconds: number; doubtMs?: number }): void {
  for (let second = 0; second < seconds; second++) {
    outage.trouble("it is full", doubtMs);
    nowMs += 1000;
  }
}

const away = '{"redis":"unavailable"} Redis is away: it is full. Freshet serves without it';

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
    expect(lines.slice(3)).toEqual(['{"redis":"ok","seconds":179} Redis is back after 179 s']);
  });

  it("is told at most once a minute while it comes and goes", () => {
    const outage = start();
    for (let times = 0; times < 25; times++) {
      fail(outage, { seconds: 1 });
      outage.well();
      nowMs += 1000;
    }
    expect(lines).toEqual([away, '{"redis":"ok","seconds":1} Redis is back after 1 s']);
    nowMs += 60_000;
    fail(outage, { seconds: 1 });
    expect(lines).toHaveLength(3);
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
