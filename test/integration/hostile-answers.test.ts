import { afterAll, beforeAll, expect, it } from "vitest";
import { failureCodes } from "../../src/providers/oauth/token-answer.ts";
import { describeWithServices } from "../support/services/index.ts";
import { hostileAnswers } from "./support/hostile-answers.ts";
import { honest } from "./support/hostile-server.ts";
import { HostileStage, type Played, spellings } from "./support/hostile-stage.ts";
import { accessToken, type HostileAnswer, type Outcome, refreshToken } from "./support/hostile-steps.ts";

const megabyte = 1_048_576;
/** Of the whole process, which has 350 MB or so at its peak. */
const mostBytes = 640 * megabyte;
/** How much time may pass between an answer and a read of its token: far less than the difference between two lives. */
const passedSeconds = 600;
/** A text holds this only if an error was not caught. */
const stackTrace = /\\n\s+at |node_modules|\.ts:\d+|TypeError|RangeError/;

type Case = HostileAnswer & { index: number };
const cases: readonly Case[] = hostileAnswers.map((answer, index) => ({ ...answer, index }));

describeWithServices(["postgres"], "a token endpoint that answers", () => {
  let stage: HostileStage;
  let all: (Played | Error)[];

  beforeAll(async () => {
    stage = await HostileStage.start(hostileAnswers);
    all = await stage.playAll();
  });

  afterAll(async () => {
    await (stage as HostileStage | undefined)?.[Symbol.asyncDispose]();
  });

  it("has at least sixty hostile ways to do so", () => {
    expect(new Set(hostileAnswers.map(({ is }) => is)).size).toBeGreaterThanOrEqual(60);
  });

  it.each(cases)("with $is harms nobody", ({ index, outcome }) => {
    const played = all[index];
    if (played === undefined || played instanceof Error) throw played ?? new Error("it was not played");
    expectHarmless(played);
    if ("takes" in outcome) expectTaken(played, outcome);
    else expectRefused(played, outcome);
  });

  it("leaves the broker running, and what it logs without secrets", () => {
    const { broker } = stage;
    expect(() => process.kill(broker.pid, 0)).not.toThrow();
    const lines = (broker.stdout + broker.stderr).split("\n");
    expect(lines.filter((line) => /unexpected error|could not be stored/.test(line)).slice(0, 3)).toEqual([]);
    const secrets = [...spellings(), accessToken, refreshToken];
    expect(lines.filter((line) => secrets.some((secret) => line.includes(secret))).slice(0, 3)).toEqual([]);
  });

  // Row 34 of the campaign, which plays all of them twice, shows that nothing of them stays in memory.
  it("never makes the broker take what a bomb holds", () => {
    expect(stage.peakBytes).toBeLessThan(mostBytes);
  });
});

function expectHarmless({ token, connection, said, requests, next }: Played): void {
  expect([200, 409, 502, 503], said).toContain(token.status);
  expect(connection.status).toBe(200);
  expect(said).not.toMatch(stackTrace);
  for (const secret of spellings()) expect(said).not.toContain(secret);
  expect(requests).toBeLessThanOrEqual(1);
  expect(next).toMatchObject({ status: 200, token: honest.access_token });
}

/** What mattered was stored: the next refresh is made with the refresh token of this answer. */
function expectTaken({ token, connection, said, next }: Played, outcome: Extract<Outcome, { takes: string }>): void {
  expect(connection.body).toMatchObject({ status: "connected" });
  expect(next.spent).toBe(outcome.refreshToken ?? refreshToken);
  if (outcome.expiresIn === "over") {
    expect(token.status).toBe(503);
    return;
  }
  // Kept, and not handed out.
  if (/[^\x20-\x7e]/.test(outcome.takes)) {
    expect(token.body).toMatchObject({ status: 503, detail: expect.stringContaining("no header can carry") });
    expect(connection.body.last_error).toMatchObject({ code: "unusable_token" });
    expect(said).not.toContain(JSON.stringify(outcome.takes).slice(1, -1));
    return;
  }
  expect(connection.body.last_error).toBeNull();
  expect(token.body).toMatchObject({ access_token: outcome.takes });
  const warned = token.body.warnings.map(({ code }) => code);
  // An odd life is warned of, and nothing else.
  expect(warned.filter((code) => code !== "lifetime_unreadable")).toEqual([]);
  expect(token.body.expires_in).toBeGreaterThan(outcome.expiresIn - passedSeconds);
  expect(token.body.expires_in).toBeLessThanOrEqual(outcome.expiresIn);
}

function expectRefused({ token, connection, next }: Played, outcome: Exclude<Outcome, { takes: string }>): void {
  const { code, says = /./ } = outcome;
  expect(token.status).not.toBe(200);
  const { last_error: error, status } = connection.body;
  expect([code].flat()).toContain(error?.code);
  expect(failureCodes).toContain(error?.code);
  expect(error?.detail).toMatch(says);
  expect(error?.detail.length).toBeLessThanOrEqual(300);
  expect(error?.detail).not.toMatch(/[\p{Cc}\p{Cs}]/u);
  for (const granted of [accessToken, refreshToken]) expect(error?.detail).not.toContain(granted);
  expect(status).toBe(code === "invalid_grant" ? "needs_reauthorization" : "connected");
  expect(next.spent).toBe(next.imported);
}
