import { keepReading } from "./callers.ts";
import type { Send } from "./sends.ts";
import { openStage } from "./stage.ts";
import { valueOf } from "./holdings.ts";
import { isCurrent } from "./grant-model.ts";
import type { World } from "./world.ts";

type Given = { seed: number; connections: number; awayMs: number };

export type AbsenceResult = {
  /** Refresh tokens that were out when every replica was killed, and those of them that reached the provider. */
  out: number;
  used: number;
  /** Sent again after the return: while the access token lived, and later. */
  promptly: number;
  /** When the last prompt replay was, in seconds after the return. */
  lastPromptSeconds: number;
  later: number;
  /** Connections that hold the newest refresh token in the end. */
  usable: number;
  violations: readonly string[];
};

const lifeSeconds = 3600;
/** Requests take longer than the brokers live. */
const wayMs = 2000;
const liveMs = 1500;

/** Every replica is killed when it has sent refresh tokens to a provider with a grace of ten minutes, and comes back later. */
export async function playAbsence({ seed, connections, awayMs }: Given): Promise<AbsenceResult> {
  const subjects = Array.from({ length: connections }, (_, index) => ({
    name: `c${index + 1}`,
    kind: "grace" as const,
    accessLifeSeconds: lifeSeconds,
  }));
  const stage = await openStage({ seed, replicas: 4, subjects });
  const { world, people } = stage;
  const { scheduler, provider } = world;
  await scheduler.pass(60_000);
  const accessEndMs = Math.min(...rowsOf(world).map(({ expiresAt }) => expiresAt?.getTime() ?? 0));
  provider.latencyMs = () => wayMs;
  provider.faultOf = () => (scheduler.chance(0.3) ? "lost_request" : "none");
  for (const { name } of subjects) void people.read(scheduler.pick(world.replicas), name, { rejected: true });
  await scheduler.pass(liveMs);
  const out = provider.sends.filter(({ token, read }) => token !== null && read === null);
  for (const replica of world.replicas) world.crash(replica, awayMs);
  await scheduler.pass(awayMs);
  provider.latencyMs = () => scheduler.magnitude(5, 200);
  provider.faultOf = () => "none";
  const backMs = scheduler.nowMs;
  keepReading(stage, { lowMs: 5000, highMs: 30_000 });
  await scheduler.pass(accessEndMs - scheduler.nowMs);
  const prompt = replaysOf(world, out);
  await scheduler.pass(120_000);
  return {
    out: out.length,
    used: out.filter(({ doneMs }) => doneMs !== null).length,
    promptly: prompt.length,
    lastPromptSeconds: Math.round((Math.max(backMs, ...prompt.map(({ beganMs }) => beganMs)) - backMs) / 1000),
    later: replaysOf(world, out).length - prompt.length,
    usable: rowsOf(world).filter((row) => {
      const token = provider.grants.tokens.get(valueOf(row) ?? "");
      return row.status === "connected" && token !== undefined && isCurrent(token);
    }).length,
    violations: world.violations,
  };
}

function rowsOf({ database }: World) {
  return [...database.tables.rows.values()];
}

function replaysOf({ provider }: World, out: readonly Send[]): Send[] {
  return out.flatMap(({ token }) => (token === null ? [] : (provider.sendsOf.get(token) ?? []).slice(1)));
}
