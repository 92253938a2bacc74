import * as fc from "fast-check";
import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../support/broker-process.ts";
import type { ConnectedStage } from "../support/connected-stage.ts";
import type { PrivateServer } from "../support/services/private-server.ts";
import { countedLosses } from "./crash-tools.ts";
import type { ServedWatch } from "./served-watch.ts";

const deeds = ["read", "reject", "reconnect", "import", "delete", "create", "disable", "enable"] as const;
const troubles = ["kill", "lose"] as const;

type Deed = { kind: (typeof deeds)[number]; replica: number; connection: number };

/** Replicas and connections are numbers, taken modulo how many there are. */
export type Command =
  | Deed
  | { kind: "kill"; replica: number }
  | { kind: "lose" }
  | { kind: "postgres" | "redis"; isUp: boolean }
  | { kind: "delay"; beforeMs: number; afterMs: number }
  | { kind: "pass"; ms: number };

/** The state that a sequence has reached, as far as it decides which commands make sense. */
type Model = { deleted: Set<number>; disabled: Set<number>; postgres: boolean; redis: boolean };

/** More than are used, since many make no sense at their place. */
const drawnPerTaken = 8;

/** A sequence, the same for the same seed. Only with `hasPermitsLeft` does it have commands that leave a permit behind. */
export function drawCommands(seed: number, size: number, hasPermitsLeft: boolean): Command[] {
  const replica = fc.nat(1);
  const isUp = fc.constantFrom(false, true, true);
  const delayMs = fc.nat(2000);
  const one = fc.oneof(
    { weight: 12, arbitrary: fc.record({ kind: fc.constantFrom(...deeds), replica, connection: fc.nat(5) }) },
    { weight: hasPermitsLeft ? 2 : 0, arbitrary: fc.constantFrom(...troubles).chain((kind) => troubleOf(kind)) },
    { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom("postgres", "redis"), isUp }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("delay"), beforeMs: delayMs, afterMs: delayMs }) },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant("pass"), ms: fc.nat(4000) }) },
  ) as fc.Arbitrary<Command>;
  const count = size * drawnPerTaken;
  const sequence = fc.noBias(fc.array(one, { minLength: count, maxLength: count, size: "max" }));
  const model: Model = { deleted: new Set(), disabled: new Set(), postgres: true, redis: true };
  const drawn = fc.sample(sequence, { seed, numRuns: 1 })[0] ?? [];
  return drawn.filter((command) => follow(model, command)).slice(0, size);
}

/** Whether the command makes sense now; if so, the model has moved on. */
function follow(model: Model, command: Command): boolean {
  if ("isUp" in command) {
    if (model[command.kind] === command.isUp) return false;
    model[command.kind] = command.isUp;
  } else if (command.kind === "kill") model.postgres = true;
  else if ("connection" in command) return followDeed(model, command);
  return true;
}

function followDeed({ deleted, disabled, postgres }: Model, { kind, connection }: Deed): boolean {
  if (kind === "read" || kind === "reject") return true;
  if (!postgres) return false;
  if (kind === "create") return deleted.delete(connection);
  if (deleted.has(connection)) return false;
  if (kind === "enable") return disabled.delete(connection);
  if (kind === "delete") disabled.delete(connection);
  if (kind === "delete") deleted.add(connection);
  if (kind === "disable" && disabled.has(connection)) return false;
  if (kind === "disable") disabled.add(connection);
  return true;
}

function troubleOf(kind: (typeof troubles)[number]): fc.Arbitrary<Command> {
  return kind === "lose" ? fc.constant({ kind }) : fc.record({ kind: fc.constant(kind), replica: fc.nat(1) });
}

type Parts = {
  stage: ConnectedStage;
  postgres: PrivateServer;
  redis: PrivateServer;
  names: readonly string[];
  watch: ServedWatch;
};

/** Does the commands to replicas and to their servers. The result of a person's call does not matter while a server is down. */
export class CommandStage {
  kills = 0;
  lostAnswers = 0;
  /** Losses that ended processes had counted. */
  countedBefore = 0;
  readonly #parts: Parts;
  readonly #isUp = { postgres: true, redis: true };

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Resolves when it is done, or has failed as a call may while things are down. */
  async apply(command: Command): Promise<void> {
    const { provider } = this.#parts.stage;
    if ("connection" in command) await this.#deed(command).catch(() => {});
    else if ("isUp" in command) await this.#turn(command.kind, command.isUp);
    else if (command.kind === "kill") await this.#kill(this.#broker(command.replica));
    else if (command.kind === "lose") this.#lose();
    else if (command.kind === "delay") {
      Object.assign(provider.switches, { delayMs: command.beforeMs, answerDelayMs: command.afterMs });
    } else await sleep(command.ms);
  }

  /** Everything is up and quick again. */
  async restore(): Promise<void> {
    const { provider } = this.#parts.stage;
    provider.behave();
    Object.assign(provider.switches, { delayMs: 0, answerDelayMs: 0 });
    await this.#turn("redis", true);
    await this.#turn("postgres", true);
  }

  #broker(replica: number): BrokerProcess {
    const { brokers } = this.#parts.stage;
    return brokers[replica % brokers.length] as BrokerProcess;
  }

  /** Postgres is brought back first: a broker does not start without. */
  async #kill(broker: BrokerProcess): Promise<void> {
    this.kills++;
    this.countedBefore += (await countedLosses(this.#parts.stage, [broker]))[0];
    await broker.kill();
    await this.#turn("postgres", true);
    await broker.start();
  }

  #lose(): void {
    this.lostAnswers++;
    this.#parts.stage.provider.resetNext({ afterCommit: true });
  }

  async #turn(server: "postgres" | "redis", isUp: boolean): Promise<void> {
    if (this.#isUp[server] === isUp) return;
    this.#isUp[server] = isUp;
    const { watch } = this.#parts;
    if (server === "postgres" && !isUp) watch.postgresGoes();
    if (isUp) await this.#parts[server].restart();
    else await this.#parts[server].stop();
    if (server === "postgres" && isUp) watch.postgresIsBack();
  }

  async #deed({ kind, replica, connection }: Deed): Promise<void> {
    const { stage, names, watch } = this.#parts;
    const broker = this.#broker(replica);
    const { api } = broker;
    const name = names[connection % names.length] as string;
    if (kind === "read") await Promise.all(Array.from({ length: 5 }, () => watch.read(broker, name)));
    else if (kind === "reject") await watch.read(broker, name, { rejected: watch.newest(name) });
    else if (kind === "reconnect") await stage.reconnect(name);
    else if (kind === "import") await this.#import(broker, name);
    else if (kind === "delete") {
      await api.deleteConnection(name);
      watch.closed(name);
    } else if (kind === "create") {
      watch.opens(name);
      await api.createConnection({ name, provider: stage.provider.id, client: stage.client });
      await this.#import(broker, name);
    } else if (kind === "disable") {
      await api.changeConnection(name, { disabled: true });
      watch.closed(name);
    } else {
      watch.opens(name);
      await api.changeConnection(name, { disabled: false });
    }
  }

  /** A good refresh token, and an access token that has run out. */
  async #import({ api }: BrokerProcess, name: string): Promise<void> {
    const { accessToken, refreshToken = "" } = this.#parts.stage.provider.issueTokenSet();
    await api.importTokens(name, { access_token: accessToken, refresh_token: refreshToken, expires_in: 0 });
  }
}
