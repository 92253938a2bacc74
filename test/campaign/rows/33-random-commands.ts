import type { ConnectedStage } from "../../support/connected-stage.ts";
import { until } from "../../support/patience.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { countedLosses, lostOnes, readUntilSettled, storedRows } from "../crash-tools.ts";
import { openGround } from "../fleets.ts";
import { CommandStage, drawCommands } from "../random-commands.ts";
import type { Given, Row } from "../row.ts";
import { ServedWatch } from "../served-watch.ts";
import { connectMany, inBatches, offences } from "../tools.ts";

/** In the short size no command leaves a permit behind, since the row would have to wait for its end. */
const sizes = { full: { sequences: 5, commands: 40 }, short: { sequences: 1, commands: 20 } } as const;
const connections = 6;
const lifeSeconds = 8;

/** Every other sequence meets a provider that takes no token twice. */
const isStrictFor = (seed: number) => seed % 2 === 0;

type Played = { commands: number; served: number; refreshes: number; lost: number; wrong: string[] };

export const row: Row = {
  number: 33,
  title: "random commands on real replicas: people, kills, outages, lost answers",
  promised: "the protocol's invariants hold; losses only in W1–W3, counted",
  plays: {
    how: "in turn",
    provider: ({ id, seed }) => {
      const reuse = isStrictFor(seed) ? {} : ({ reuse: "grace", graceSeconds: 600 } as const);
      return new GenericProvider({
        id,
        switches: { ...reuse, accessLifeSeconds: lifeSeconds, oldAccessTokenDies: false },
      });
    },
  },
  async run(given) {
    const { sequences } = sizes[given.scale];
    const played = await inBatches(sequences, sequences, (index) => playSequence(index, given));
    const sum = (of: "commands" | "served" | "refreshes" | "lost") => played.reduce((all, one) => all + one[of], 0);
    const wrong = played.flatMap((one) => one.wrong);
    return {
      ok: wrong.length === 0 && sum("served") > 0 && sum("refreshes") > 0,
      figure: `${sum("commands")} commands in ${sequences} sequences, ${sum("refreshes")} refreshes, ${sum("served")} tokens served; ${played.filter((one) => one.wrong.length > 0).length} sequences with an invariant broken, ${sum("lost")} grants lost`,
      notes: wrong,
    };
  },
};

async function playSequence(index: number, given: Given): Promise<Played> {
  const { scale, log } = given;
  const seed = given.seed + index;
  const commands = drawCommands(seed, sizes[scale].commands, scale === "full");
  const isStrict = isStrictFor(seed);
  await using ground = await openGround({ ...given, seed }, row);
  const { stage, postgres, redis, databaseUrl } = ground;
  const names = (await connectMany(stage, connections)).map(({ name }) => name);
  const watch = new ServedWatch();
  const probes = stage.brokers.map((broker) => watch.probe(broker));
  const readers = stage.brokers.flatMap((broker) => names.map((name) => watch.follow(broker, name)));
  const commandStage = new CommandStage({ stage, postgres, redis, names, watch });
  for (const command of commands) await commandStage.apply(command);
  await commandStage.restore();
  log(`sequence ${index}: ${commands.length} commands done, ${watch.served.length} tokens served`);
  const { lost, wrong } = await settle(stage, { databaseUrl, commandStage, watch, isStrict });
  watch.end();
  await Promise.all([...readers, ...probes]);

  const { ledger } = stage.provider;
  const broken = [...wrong, ...watch.check(ledger, lifeSeconds)];
  return {
    commands: commands.length,
    served: watch.served.length,
    refreshes: ledger.refreshes(),
    lost,
    wrong:
      broken.length === 0
        ? []
        : [`sequence ${index}, ${isStrict ? "strict" : "grace"}:`, ...broken.slice(0, 20), JSON.stringify(commands)],
  };
}

type Rest = { databaseUrl: string; commandStage: CommandStage; watch: ServedWatch; isStrict: boolean };

/** Waits until every connection has a token or needs a person, and tries each refresh token that is left. */
async function settle(stage: ConnectedStage, { databaseUrl, commandStage, watch, isStrict }: Rest) {
  const { first, brokers, provider } = stage;
  await until("the brokers to reach Postgres again", () => isBack(stage));
  const rows = [...(await storedRows(stage, databaseUrl)).values()];
  const disabled = rows.filter(({ status }) => status === "disabled");
  for (const { name } of disabled) {
    watch.opens(name);
    await first.api.changeConnection(name, { disabled: false });
  }
  const names = rows.filter(({ status }) => status !== "pending").map(({ name }) => name);
  await readUntilSettled(first, names);
  const lost = await lostOnes(first, names);

  const after = await storedRows(stage, databaseUrl);
  const unexplained = lost.filter((name) => after.get(name)?.errorCode !== "refresh_outcome_lost");
  const counted = commandStage.countedBefore + (await countedLosses(stage, brokers))[0];
  const { reuses, overlaps, sentTwice } = offences(provider.ledger);
  const { kills, lostAnswers } = commandStage;
  // A kill may cost each connection its grant once. A lost answer concerns one connection.
  const mayRepeat = lostAnswers + kills * connections;
  const crashed = brokers.filter(({ isRunning }) => !isRunning).length;
  const checks = {
    "connections ended by something else": unexplained.length,
    "losses not counted": Math.max(0, lost.length - counted),
    "sends at the same time": overlaps,
    "tokens sent twice with nothing to explain it": Math.max(0, sentTwice - mayRepeat),
    "spent tokens sent with nothing to explain it": Math.max(0, reuses - (isStrict ? mayRepeat : 0)),
    "losses at a provider with a grace window": isStrict ? 0 : lost.length,
    "brokers that ended by themselves": crashed,
  };
  const wrong = Object.entries(checks).flatMap(([what, count]) => (count === 0 ? [] : [`${count} ${what}`]));
  return { lost: lost.length, wrong: [...wrong, ...(unexplained.length === 0 ? [] : [unexplained.join()])] };
}

/** Every broker answers what only Postgres knows. @throws with what it wrote, where one has ended by itself */
async function isBack({ brokers }: ConnectedStage): Promise<boolean> {
  const ended = brokers.find(({ isRunning }) => !isRunning);
  if (ended !== undefined) throw new Error(`a broker ended by itself: ${ended.stderr.slice(-3000)}`);
  const replies = await Promise.all(brokers.map(({ api }) => api.api("/connections")));
  return replies.every(({ status }) => status === 200);
}
