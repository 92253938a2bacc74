import { describe, expect, it } from "vitest";
import { graceSeconds, type ReuseKind } from "../support/simulation/grant-model.ts";
import type { Scheduler } from "../support/simulation/scheduler.ts";
import type { SimRow } from "../support/simulation/sim-row.ts";
import { openStage, type Stage } from "../support/simulation/stage.ts";
import type { Send, SendFault } from "../support/simulation/sends.ts";

/**
 * One row: a refresh ahead of need whose answer is lost, at a provider that takes a second use of the token as `reuse`
 * says. The provider's window, for `grace`, is 600 s.
 */
type Row = {
  reuse: ReuseKind;
  /** The other circumstances. */
  when: string;
  /** What was lost. If it is the answer, the provider has done the refresh; if it is the request, it has not. */
  fault: Extract<SendFault, "lost_answer" | "lost_request">;
  /** From which second after the loss on callers ask, each second, for a token that lives longer; null: nobody does. */
  askedFrom: number | null;
  /** For how many seconds the only replica is dead after the loss; 0: it lives. */
  downFor: number;
  /** When the token is sent again: so many seconds after the permit of the lost send, or when the access token ends. */
  sentAgain: number | "token's end";
  /** What stands afterwards: a usable connection, or one that needs a person. */
  ends: "connected" | "lost";
  /** Whether the provider took it for theft. */
  detected: boolean;
};

/** Lease and quiet period (docs/refresh-protocol.md, "Replay and takeover"); inside a grace window the quiet period is 2 s. */
const leaseAndQuiet = 40;
const leaseAndGraceQuiet = 32;
/** A replica that starts takes no permit over until Postgres has answered it for 10 s. */
const uninterrupted = 10;
/** The sweeper looks each second, a caller asks each second, and a request has to connect. */
const slack = 3;
/** If the sweeper comes to a row too early, it leaves the row alone for 10 s. */
const slackAtEnd = 12;

const alive = { downFor: 0, fault: "lost_answer" } as const;
const unasked = { ...alive, askedFrom: null } as const;
const promptly = {
  ...unasked,
  when: "nobody asks",
  sentAgain: leaseAndQuiet,
  ends: "connected",
  detected: false,
} as const;
const pastWindow = graceSeconds + 100;
const lastReplay = graceSeconds - 30;

const table: readonly Row[] = [
  { ...promptly, reuse: "safe" },
  { ...promptly, reuse: "safe", when: "a caller needs a new token at once", askedFrom: 1 },
  { ...promptly, reuse: "until_successor_used" },
  { ...promptly, reuse: "dead", ends: "lost" },
  { ...promptly, reuse: "dead", when: "the request was lost", fault: "lost_request" },

  { ...promptly, reuse: "grace", when: "inside the window", sentAgain: leaseAndGraceQuiet },
  {
    ...promptly,
    reuse: "grace",
    when: "a replay would just end inside the window",
    downFor: lastReplay - uninterrupted - 7,
    sentAgain: lastReplay - 7,
  },
  {
    ...promptly,
    reuse: "grace",
    when: "a replay might end after the window",
    downFor: lastReplay - uninterrupted + 1,
    sentAgain: "token's end",
    ends: "lost",
    detected: true,
  },
  {
    ...promptly,
    reuse: "grace",
    when: "after the window, nobody asks",
    downFor: pastWindow,
    sentAgain: "token's end",
    ends: "lost",
    detected: true,
  },
  {
    ...promptly,
    reuse: "grace",
    when: "after the window, a caller needs a new token",
    downFor: pastWindow,
    askedFrom: pastWindow + 100,
    sentAgain: pastWindow + 100,
    ends: "lost",
    detected: true,
  },

  { ...promptly, reuse: "kills_family", sentAgain: "token's end", ends: "lost", detected: true },
  {
    ...promptly,
    reuse: "kills_family",
    when: "nobody asks, the request was lost",
    fault: "lost_request",
    sentAgain: "token's end",
  },
  {
    ...promptly,
    reuse: "kills_family",
    when: "a caller needs a new token at once",
    askedFrom: 1,
    sentAgain: leaseAndQuiet,
    ends: "lost",
    detected: true,
  },
  {
    ...promptly,
    reuse: "kills_family",
    when: "a caller needs a new token later",
    askedFrom: 300,
    sentAgain: 300,
    ends: "lost",
    detected: true,
  },
];

/** The broker refreshes a token when a quarter of this life is left. That is longer than the replica is dead in any row of the table. */
const accessLifeSeconds = 7200;
const connection = "acme";
const seeds = [1, 2, 3];

/** What the provider saw, and what stands at the end. */
type Played = { first: Send; before: SimRow; sends: Send[]; after: SimRow; stage: Stage };

async function play(row: Row, seed: number): Promise<Played> {
  const subject = { name: connection, kind: row.reuse, accessLifeSeconds };
  const stage = await openStage({ seed, replicas: 1, subjects: [subject] });
  const first = await loseAnAnswer(stage, row.fault);
  const before = { ...rowOf(stage) };
  if (row.downFor > 0) stage.world.crash(stage.world.replica(0), row.downFor * 1000);
  const stopAsking = row.askedFrom === null ? () => {} : keepAsking(stage, row.askedFrom * 1000);
  await passUntil(stage.world.scheduler, () => rowOf(stage).attemptId === null);
  stopAsking();
  // Long enough to see that the token is not sent once more.
  await stage.world.scheduler.pass(600_000);
  const sends = stage.world.provider.sends.filter(({ token }) => token === first.token);
  return { first, before, sends, after: rowOf(stage), stage };
}

/** The sweeper refreshes ahead of the end, since the token has been read. Of this one request, the request or the answer is lost. */
async function loseAnAnswer({ world, people }: Stage, fault: Row["fault"]): Promise<Send> {
  const { provider, scheduler } = world;
  scheduler.chance = () => false; // no request is slow by chance: the test is about exact moments
  void people.read(world.replica(0), connection);
  await scheduler.pass(1000);
  const connected = provider.sends.length;
  provider.faultOf = () => (provider.sends.length === connected ? fault : "none");
  await passUntil(scheduler, () => rowOf({ world }).attemptOutcome === "unknown");
  const send = provider.sends[connected];
  if (send === undefined || send.token === null) throw new Error("nothing was refreshed ahead");
  return send;
}

function rowOf({ world }: Pick<Stage, "world">): SimRow {
  const row = world.database.tables.byName(connection);
  if (row === undefined) throw new Error("the connection is gone");
  return row;
}

/** Callers want a token with half of its life left, and less than that is left. */
function keepAsking({ world, people }: Stage, delayMs: number): () => void {
  const { scheduler } = world;
  let isOver = false;
  const ask = () => {
    if (isOver) return;
    void people.read(world.replica(0), connection, { minTtlSeconds: accessLifeSeconds / 2 });
    scheduler.after(1000, null, ask);
  };
  scheduler.after(delayMs, null, ask);
  return () => void (isOver = true);
}

async function passUntil(scheduler: Scheduler, isSo: () => boolean): Promise<void> {
  const endMs = scheduler.nowMs + accessLifeSeconds * 1000;
  while (!isSo() && scheduler.nowMs < endMs) await scheduler.pass(1000);
}

describe("a refresh whose answer is lost, in virtual time", () => {
  it.each(table)("$reuse, $when: sent again at $sentAgain, ends $ends", async (row) => {
    for (const seed of seeds) {
      const { first, before, sends, after, stage } = await play(row, seed);
      const { world } = stage;
      expect(first.status).toBe(row.fault === "lost_answer" ? 200 : 0);
      expect(before).toMatchObject({ status: "connected", lastErrorCode: "outcome_unknown" });

      // The token was sent once more, at the moment that the rule names, counted from the permit of the lost send.
      const permitMs = before.attemptStartedAt?.getTime() ?? NaN;
      const endSeconds = ((before.expiresAt?.getTime() ?? NaN) - permitMs) / 1000;
      const due = row.sentAgain === "token's end" ? endSeconds : row.sentAgain;
      const sentAfter = sends.map(({ beganMs }) => (beganMs - permitMs) / 1000);
      expect(sentAfter).toHaveLength(2);
      expect(sentAfter[0]).toBeLessThan(slack);
      expect(sentAfter[1]).toBeGreaterThanOrEqual(due);
      expect(sentAfter[1]).toBeLessThan(due + (row.sentAgain === "token's end" ? slackAtEnd : slack));

      expect(first.token?.family.detections).toHaveLength(row.detected ? 1 : 0);
      if (row.ends === "connected") {
        expect(after).toMatchObject({ status: "connected", attemptId: null, lastErrorCode: null });
        expect(after.generation).toBe(before.generation + 1);
        // With these two the provider gives the set of the first send again, which is as old as that send.
        const isFirstSet = row.reuse === "grace" || row.reuse === "until_successor_used";
        const counted = (after.issuedAt?.getTime() ?? NaN) - permitMs;
        if (isFirstSet) expect(counted).toBe(0);
        else expect(counted).toBeGreaterThanOrEqual((due - slack) * 1000);
      } else {
        expect(after).toMatchObject({ status: "needs_reauthorization", lastErrorCode: "refresh_outcome_lost" });
      }
      expect(world.observed.lost).toBe(row.ends === "lost" ? 1 : 0);
      world.watch.atRest(after);
      expect(world.violations).toEqual([]);
    }
  });
});
