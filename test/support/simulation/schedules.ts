import type { Scheduler } from "./scheduler.ts";
import { blows, faults, moments, type Command, type Moment } from "./commands.ts";

type Dice = Pick<Scheduler, "random" | "pick" | "chance" | "between" | "magnitude">;

/** A random sequence of commands. */
export function randomCommands(dice: Dice, count: number): Command[] {
  const mood = randomMood(dice);
  const commands = Array.from({ length: count }, () => randomCommand(dice, mood));
  return mood.isWithoutRedis ? [{ kind: "redis", state: "stopped", ms: 600_000 }, ...commands] : commands;
}

/** A refresh, and people who do something meanwhile; in some, something fails at the same time. */
export function raceCommands(dice: Dice): Command[] {
  const replica = () => Math.floor(dice.random() * 64);
  const deed = (): Command => ({ kind: dice.pick(racingDeeds), replica: replica(), connection: 0 });
  const ms = Math.round(dice.magnitude(50, 5000));
  const blow = dice.pick(["postgres", "redis", "lose", "cut", "freeze", "crash"] as const);
  const trouble: Command[] = dice.chance(0.3) ? [{ kind: "trap", moment: dice.pick(moments), blow, ms }] : [];
  const slowness: Command[] = dice.chance(0.2) ? [{ kind: "postgres", state: "slow", ms }] : [];
  const others = Array.from({ length: Math.floor(dice.random() * 3) }, deed);
  return [
    { kind: "pass", ms: Math.round(dice.between(15_000, 65_000)) },
    ...trouble,
    ...slowness,
    { kind: "read", replica: replica(), connection: 0, rejected: true },
    deed(),
    ...others,
    { kind: "pass", ms: Math.round(dice.magnitude(10, 20_000)) },
  ];
}

const racingDeeds = ["reconnect", "import", "delete", "disable", "reconnect", "delete", "disable", "enable"] as const;

/** What a schedule has more of than others do. If every fault were rare in every schedule, two of them would never meet. */
type Mood = { blows: readonly TrapBlow[]; moments: readonly Moment[]; isWithoutRedis: boolean; longestMs: number };

function randomMood(dice: Dice): Mood {
  const isSingular = dice.chance(0.5);
  return {
    blows: isSingular ? [dice.pick(trapBlows), dice.pick(trapBlows)] : trapBlows,
    moments: isSingular ? [dice.pick(moments), dice.pick(moments), dice.pick(moments)] : moments,
    isWithoutRedis: dice.chance(0.15),
    longestMs: dice.pick([2000, 90_000, 180_000]),
  };
}

type TrapBlow = Extract<Command, { kind: "trap" }>["blow"];

const trapBlows = [...blows, "postgres", "redis", "lose", "crash", "cut", "freeze"] as const;

function randomCommand(dice: Dice, mood: Mood): Command {
  const replica = Math.floor(dice.random() * 64);
  const connection = Math.floor(dice.random() * 64);
  const ms = Math.round(dice.magnitude(20, 90_000));
  const roll = dice.random();
  if (roll < 0.3) return { kind: "pass", ms: Math.round(dice.magnitude(5, 60_000)) };
  if (roll < 0.5) return { kind: "read", replica, connection, rejected: dice.chance(0.4) };
  if (roll < 0.6) return { kind: dice.pick(deeds), replica, connection };
  if (roll < 0.78) {
    const trapMs = Math.round(dice.magnitude(100, mood.longestMs));
    return { kind: "trap", moment: dice.pick(mood.moments), blow: dice.pick(mood.blows), ms: trapMs };
  }
  if (roll < 0.85) return { kind: dice.pick(blows), replica, ms };
  if (roll < 0.92) return { kind: "provider", fault: dice.pick(faults), ms };
  return fault(dice, { replica, ms });
}

const deeds = [
  "reconnect",
  "reconnect",
  "reconnect",
  "import",
  "import",
  "delete",
  "disable",
  "enable",
  "enable",
] as const;

function fault(dice: Dice, { replica, ms }: { replica: number; ms: number }): Command {
  const roll = dice.random();
  if (roll < 0.3) return { kind: "postgres", state: dice.pick(["down", "read_only", "slow"]), ms };
  if (roll < 0.55) return { kind: "redis", state: dice.pick(["stopped", "silent"]), ms };
  if (roll < 0.65) return { kind: "flush" };
  if (roll < 0.75) return { kind: "deaf", ms };
  if (roll < 0.9) {
    return { kind: "lose", of: dice.pick(["store", "redis"]), replica, count: 1 + Math.floor(dice.random() * 3) };
  }
  return { kind: "wall", replica, byMs: Math.round(dice.between(-3_600_000, 3_600_000)) };
}
