import { backoffSeconds } from "./backoff.ts";

/** How many requests the sweeper has with each token host, and which hosts it leaves alone for now. */
export type HostGates = {
  /** Whether another request may go to the host now. */
  isOpen(host: string): boolean;
  enter(host: string): void;
  /** `trouble`: the host itself refused or was away; undefined: it answered. */
  leave(host: string, trouble?: { retryAfterSeconds: number | undefined }): void;
  /** Seconds until the host may be asked again; 0: now, or when another request has come back. */
  waitSeconds(host: string): number;
};

type Gate = { running: number; failures: number; closedUntilMs: number };

type Options = { perHost: number; monotonicMs: () => number; random: () => number };

/** After trouble a host is left alone with full jitter, and then asked by one request before it is asked by many. */
export function createHostGates({ perHost, monotonicMs, random }: Options): HostGates {
  const gates = new Map<string, Gate>();
  const gateOf = (host: string): Gate => gates.get(host) ?? { running: 0, failures: 0, closedUntilMs: 0 };
  const limitOf = ({ failures }: Gate) => (failures > 0 ? 1 : perHost);
  return {
    isOpen(host) {
      const gate = gateOf(host);
      return gate.running < limitOf(gate) && gate.closedUntilMs <= monotonicMs();
    },
    enter(host) {
      const gate = gateOf(host);
      gates.set(host, { ...gate, running: gate.running + 1 });
    },
    leave(host, trouble) {
      const gate = gateOf(host);
      const running = Math.max(gate.running - 1, 0);
      if (trouble === undefined) {
        // What was asked for stands, although a request that was under way has come back well.
        const isClosed = gate.closedUntilMs > monotonicMs();
        if (running === 0 && !isClosed) gates.delete(host);
        else gates.set(host, { ...gate, running, failures: isClosed ? gate.failures : 0 });
        return;
      }
      const waitMs = backoffSeconds(gate.failures, trouble.retryAfterSeconds, random) * 1000;
      const closedUntilMs = Math.max(gate.closedUntilMs, monotonicMs() + waitMs);
      gates.set(host, { running, failures: gate.failures + 1, closedUntilMs });
    },
    waitSeconds: (host) => Math.max(0, gateOf(host).closedUntilMs - monotonicMs()) / 1000,
  };
}
