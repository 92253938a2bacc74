import { expect, it } from "vitest";
import { createDatabaseClock } from "../../../src/tokens/cache.ts";
import { fakeClock } from "./fake-clock.ts";

const observed = Date.UTC(2030, 0, 1);

function observing() {
  const clock = fakeClock();
  const databaseClock = createDatabaseClock(clock);
  databaseClock.observe(new Date(observed), databaseClock.ask());
  return { clock, databaseClock, passedMs: () => databaseClock.nowMs() - observed };
}

it("before Postgres has answered this machine's own time counts", () => {
  const clock = fakeClock();
  const databaseClock = createDatabaseClock(clock);
  clock.advance(500);
  expect(databaseClock.nowMs()).toBe(clock.wallMs());
});

it("between two answers Postgres's time goes on, however far this machine's clock is off", () => {
  const { clock, passedMs } = observing();
  clock.advance(4000);
  expect(passedMs()).toBe(4000);
});

it("time passes while the machine is suspended, which its monotonic clock does not see", () => {
  const { clock, passedMs } = observing();
  clock.wall += 3_600_000;
  expect(passedMs()).toBe(3_600_000);
});

it("a wall clock that is set back does not make tokens live longer", () => {
  const { clock, passedMs } = observing();
  clock.wall -= 3_600_000;
  clock.advance(5000);
  expect(passedMs()).toBe(5000);
});

it("Postgres's next answer replaces what was guessed", () => {
  const { clock, databaseClock, passedMs } = observing();
  clock.wall += 3_600_000;
  databaseClock.observe(new Date(observed + 10), databaseClock.ask());
  expect(passedMs()).toBe(10);
});

it("an answer that comes late does not set the clock back: no token is taken for fresh after its end", () => {
  const { clock, databaseClock, passedMs } = observing();
  const asked = databaseClock.ask();
  const answered = observed + 5;
  clock.advance(2500);
  databaseClock.observe(new Date(answered), asked);
  expect(passedMs()).toBeGreaterThanOrEqual(2500);
});

it("is in doubt before Postgres has answered, and whenever this machine's clocks disagree since it did", () => {
  const clock = fakeClock();
  const databaseClock = createDatabaseClock(clock);
  const doubts = [databaseClock.isDoubtful()];
  const observe = () => databaseClock.observe(new Date(observed), databaseClock.ask());
  for (const change of [() => clock.advance(3_600_000), () => (clock.wall += 2000), () => (clock.wall -= 2000)]) {
    observe();
    change();
    doubts.push(databaseClock.isDoubtful());
  }
  observe();
  doubts.push(databaseClock.isDoubtful());
  expect(doubts).toEqual([true, false, true, true, false]);
});
