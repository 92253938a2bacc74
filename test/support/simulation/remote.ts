import type { Actor, Scheduler } from "./scheduler.ts";

/** Called before each step of each call: faults strike here. */
export type Moments = (actor: Actor, moment: string) => void;

/** A server as its clients see it. */
export type Remote = {
  scheduler: Scheduler;
  moments: Moments;
  /** Milliseconds of one way. */
  latencyMs: () => number;
  /** Why a call of this actor fails, and after how long; null: it does not. */
  refuses: (actor: Actor, call: Call<unknown>) => { afterMs: number; error: Error } | null;
  /** Whether the answer to a call that has been done is lost. */
  losesReply: (actor: Actor) => boolean;
};

export type Call<Result> = { name: string; writes: boolean; effect: () => Result };

/** Calls a server. The call takes effect between request and answer, even if the caller has died meanwhile. */
export function call<Result>(remote: Remote, actor: Actor, given: Call<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const ask = () => {
      remote.moments(actor, `${given.name} asked`);
      if (actor.isAlive && !actor.isFrozen) request(remote, actor, { given, resolve, reject });
      else if (actor.isAlive) actor.held.push(() => request(remote, actor, { given, resolve, reject }));
    };
    if (actor.isFrozen) actor.held.push(ask);
    else if (actor.isAlive) ask();
  });
}

type Asked<Result> = { given: Call<Result>; resolve: (result: Result) => void; reject: (error: unknown) => void };

function request<Result>(remote: Remote, actor: Actor, { given, resolve, reject }: Asked<Result>): void {
  const { scheduler } = remote;
  const fail = (refusal: { afterMs: number; error: Error }) =>
    void scheduler.after(refusal.afterMs, actor, () => reject(refusal.error));
  const refused = remote.refuses(actor, given);
  if (refused !== null) return fail(refused);
  scheduler.after(remote.latencyMs(), null, () => {
    const refusedLater = remote.refuses(actor, given);
    if (refusedLater === null) answer(remote, actor, { given, resolve, reject });
    else fail(refusedLater);
  });
}

/** Does what was asked, and sends back what came of it. */
function answer<Result>(remote: Remote, actor: Actor, { given, resolve, reject }: Asked<Result>): void {
  const settle = outcomeOf(given.effect, resolve, reject);
  const isLost = remote.losesReply(actor);
  remote.moments(actor, `${given.name} done`);
  remote.scheduler.after(remote.latencyMs(), actor, () => {
    const lost = remote.refuses(actor, { ...given, writes: false });
    if (lost !== null) return reject(lost.error);
    if (isLost) return reject(lostReply(remote, actor, given));
    remote.moments(actor, `${given.name} answered`);
    if (!actor.isAlive) return;
    if (actor.isFrozen) actor.held.push(settle);
    else settle();
  });
}

function lostReply(remote: Remote, actor: Actor, given: Call<unknown>): Error {
  return remote.refuses(actor, given)?.error ?? new LostReply();
}

/** The connection broke after the request was sent. The client of each server turns this into an error of its own. */
export class LostReply extends Error {}

function outcomeOf<Result>(effect: () => Result, resolve: (result: Result) => void, reject: (error: unknown) => void) {
  try {
    const result = effect();
    return () => resolve(result);
  } catch (error) {
    return () => reject(error);
  }
}
