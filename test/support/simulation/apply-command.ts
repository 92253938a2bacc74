import type { Blow, Command } from "./commands.ts";
import type { Replica } from "./replica.ts";
import type { Stage } from "./stage.ts";
import type { World } from "./world.ts";

/** Begins what the command says; how it ends is up to the schedule. */
export function applyCommand(stage: Stage, command: Command): void {
  const { world } = stage;
  switch (command.kind) {
    case "read":
    case "reconnect":
    case "import":
    case "delete":
    case "disable":
    case "enable":
      return void ask(stage, command);
    case "postgres":
      return postgresAway(world, command.state, command.ms);
    case "redis":
      return redisAway(world, command.state, command.ms);
    case "flush":
      world.note("Redis is flushed");
      return world.flushRedis();
    case "deaf":
      return world.during(command.ms, "messages are dropped", (isOn) => void (world.redis.dropsMessages = isOn));
    case "lose":
      return loseReplies(world, world.replica(command.replica), command);
    case "provider":
      return world.failProvider(command.fault, command.ms);
    case "wall":
      world.note(`${world.replica(command.replica).name}'s wall clock moves by ${command.byMs} ms`);
      return void (world.replica(command.replica).wallOffsetMs += command.byMs);
    case "trap":
      return setTrap(world, command);
    case "pass":
      return;
    default:
      return strike(world, world.replica(command.replica), command);
  }
}

type Asking = Extract<Command, { connection: number }>;

async function ask(stage: Stage, command: Asking): Promise<void> {
  const { world, people, subjects } = stage;
  const replica = world.replica(command.replica);
  const subject = subjects[command.connection % subjects.length];
  if (subject === undefined) return;
  switch (command.kind) {
    case "read":
      return void (await people.read(replica, subject.name, { rejected: command.rejected }));
    case "disable":
    case "enable":
      return await people.setDisabled(replica, subject, command.kind === "disable");
    case "delete":
      await people.delete(replica, subject);
      // Names are used again.
      return void world.scheduler.after(world.scheduler.magnitude(10, 10_000), null, () => void again(stage, command));
    default:
      return await people[command.kind](replica, subject);
  }
}

async function again({ world, people, subjects }: Stage, { replica, connection }: Asking): Promise<void> {
  const subject = subjects[connection % subjects.length];
  if (subject === undefined) return;
  await people.create(world.replica(replica), subject);
  await people.reconnect(world.replica(replica + 1), subject);
}

function postgresAway(world: World, state: "down" | "read_only" | "slow", ms: number): void {
  const { storeFaults } = world;
  world.during(ms, `Postgres is ${state}`, (isOn) => {
    if (state === "down") storeFaults.isUp = !isOn;
    if (state === "read_only") storeFaults.isReadOnly = isOn;
    if (state === "slow") Object.assign(storeFaults, { isSlow: isOn, slowMs: world.scheduler.nowMs });
  });
}

function redisAway(world: World, state: "stopped" | "silent", ms: number): void {
  const endTrouble = world.troubles.begin("redis", "", world.scheduler.nowMs);
  world.during(ms, `Redis is ${state}`, (isOn) => {
    world.redis.state = isOn ? state : "up";
    if (isOn) return;
    endTrouble(world.scheduler.nowMs);
    if (state === "stopped") world.redis.epoch += 1;
  });
}

function loseReplies(world: World, replica: Replica, { of, count }: { of: "store" | "redis"; count: number }): void {
  world.note(`${replica.name} loses ${count} replies of ${of}`);
  const { repliesToLose } = of === "store" ? world.storeFaults : world.redis;
  repliesToLose.set(replica.name, count);
  if (of === "redis") world.redisFailed();
}

function setTrap(world: World, { moment, blow, ms }: Extract<Command, { kind: "trap" }>): void {
  world.traps.push({
    moment,
    spring(replica) {
      if (blow === "postgres") postgresAway(world, "down", ms);
      else if (blow === "redis") redisAway(world, "stopped", ms);
      else if (blow === "lose") loseReplies(world, replica, { of: "store", count: 1 });
      else strike(world, replica, { kind: blow, ms });
    },
  });
}

function strike(world: World, replica: Replica, { kind, ms }: { kind: Blow; ms: number }): void {
  switch (kind) {
    case "crash":
      return world.crash(replica, ms);
    case "freeze":
    case "suspend":
      return world.freeze(replica, { ms, isSuspended: kind === "suspend" });
    case "drain":
      return world.drain(replica, ms);
    case "cut":
      return world.cut(replica, ms);
    default:
      return world.during(ms, `${replica.name}'s disk is full`, (isOn) => void (replica.folder.isFull = isOn));
  }
}
