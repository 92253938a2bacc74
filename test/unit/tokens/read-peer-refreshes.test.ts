import { expect, it } from "vitest";
import { createMemoryLeases, type RefreshNews } from "../../../src/coordination/leases.ts";
import { watchPeerRefreshes } from "../../../src/tokens/read.ts";
import { fakeClock } from "./fake-clock.ts";

function watch() {
  const clock = fakeClock();
  const leases = createMemoryLeases(clock);
  const ended: string[] = [];
  const peers = watchPeerRefreshes({ leases, clock }, (id, generation) => ended.push(`${id}:${generation}`));
  const tell = (outcome: RefreshNews["outcome"], generation = 3) =>
    leases.announce({ connection: "a", generation, attempt: "x", outcome });
  return { clock, ended, peers, tell };
}

it("a peer's refresh counts as running from its announcement to its end, for its generation only", () => {
  const { peers, tell, ended } = watch();
  tell("started");
  expect([peers.isRunning("a", 3), peers.isRunning("a", 4), peers.isRunning("b", 3)]).toEqual([true, false, false]);
  tell("stored");
  expect(peers.isRunning("a", 3)).toBe(false);
  expect(ended).toEqual(["a:3"]);
});

it("a failure ends it too", () => {
  const { peers, tell, ended } = watch();
  tell("started");
  tell("failed");
  expect([peers.isRunning("a", 3), ended]).toEqual([false, ["a:3"]]);
});

it("an end that is never heard of ends with the permit", () => {
  const { peers, tell, clock } = watch();
  tell("started");
  clock.monotonic += 29_999;
  expect(peers.isRunning("a", 3)).toBe(true);
  clock.monotonic += 1;
  expect(peers.isRunning("a", 3)).toBe(false);
});

it("what is remembered does not grow without bound", () => {
  const { peers, tell } = watch();
  for (let generation = 0; generation <= 10_000; generation++) tell("started", generation);
  expect([peers.isRunning("a", 0), peers.isRunning("a", 1), peers.isRunning("a", 10_000)]).toEqual([false, true, true]);
});
