import type { Scheduler } from "./scheduler.ts";
import { blows, faults, moments, type Command } from "./commands.ts";

type Dice = Pick<Scheduler, "random" | "pick" | "chance" | "between" | "magnitude">;

/** A sequence of commands as chance will have it. */
export function randomCommands(dice: Dice, count: number): Command[] {
  return Array.from({ length: count }, () => randomCommand(dice));
}

function randomCommand(dice: Dice): Command {
  const replica = Math.floor(dice.random() * 64);
  const connection = Math.floor(dice.random() * 64);
  const ms = Math.round(dice.magnitude(20, 90_000));
  const roll = dice.random();
  if (roll < 0.3) return { kind: "pass", ms: Math.round(dice.magnitude(5, 60_000)) };
  if (roll < 0.5) return { kind: "read", replica, connection, rejected: dice.chance(0.4) };
  if (roll < 0.6) return { kind: dice.pick(deeds), replica, connection };
  if (roll < 0.78) {
    const blow = dice.pick([...blows, "postgres", "redis", "lose", "crash", "cut", "freeze"] as const);
    return { kind: "trap", moment: dice.pick(moments), blow, ms };
  }
  if (roll < 0.85) return { kind: dice.pick(blows), replica, ms };
  if (roll < 0.92) return { kind: "provider", fault: dice.pick(faults), ms };
  return fault(dice, { replica, ms });
}

const deeds = ["reconnect", "reconnect", "reconnect", "import", "import", "delete", "disable", "enable", "enable"] as const;

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
