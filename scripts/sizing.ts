import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/**
 * The table of sizes in docs/performance.md, computed from the table of inputs there: `node scripts/sizing.ts` writes it anew after an input has
 * changed. A test holds page and formulas together.
 */
const page = fileURLToPath(new URL("../docs/performance.md", import.meta.url));

/** The rows of the table of inputs, by the names in its first column. */
const inputNames = [
  "reads per core second",
  "reads from Postgres per core second",
  "refreshes per core second",
  "rows confirmed per core second",
  "rows per confirming query",
  "seconds between confirmations",
  "connections in memory",
  "memory of a process",
  "memory per connection",
  "disk per connection",
  "seconds between refreshes",
  "statements per refresh",
  "statements per core second of Postgres",
  "Redis commands per refresh",
  "share of a core that is used",
] as const;
type InputName = (typeof inputNames)[number];
export type Inputs = Readonly<Record<InputName, number>>;

export type Size = {
  replicas: number;
  /** Of each replica. */
  megabytes: number;
  refreshesPerSecond: number;
  statementsPerSecond: number;
  postgresCores: number;
  diskGigabytes: number;
  redisCommandsPerSecond: number;
};

/** Every replica may be asked for every connection. Of two, one may be away. */
const fewestReplicas = 2;

export function sizeOf(inputs: Inputs, { connections, readsPerSecond }: Load): Size {
  const used = inputs["share of a core that is used"];
  const refreshesPerSecond = connections / inputs["seconds between refreshes"];
  const inMemory = Math.min(connections, inputs["connections in memory"]);
  const coldPerSecond = readsPerSecond * (1 - inMemory / connections);
  const confirmedPerSecond = inMemory / inputs["seconds between confirmations"];
  const work =
    (readsPerSecond - coldPerSecond) / inputs["reads per core second"] +
    coldPerSecond / inputs["reads from Postgres per core second"] +
    refreshesPerSecond / inputs["refreshes per core second"];
  // A process has one core. A part of it goes to confirmations, which each replica needs for itself.
  const free = used - confirmedPerSecond / inputs["rows confirmed per core second"];
  const replicas = Math.max(fewestReplicas, Math.ceil(work / free));
  const statementsPerSecond =
    coldPerSecond +
    refreshesPerSecond * inputs["statements per refresh"] +
    (replicas * confirmedPerSecond) / inputs["rows per confirming query"];
  return {
    replicas,
    megabytes: inputs["memory of a process"] + (inMemory * inputs["memory per connection"]) / 1e6,
    refreshesPerSecond,
    statementsPerSecond,
    postgresCores: Math.max(
      1,
      Math.ceil(statementsPerSecond / inputs["statements per core second of Postgres"] / used),
    ),
    diskGigabytes: (connections * inputs["disk per connection"]) / 1e9,
    redisCommandsPerSecond: refreshesPerSecond * inputs["Redis commands per refresh"],
  };
}

type Load = { connections: number; readsPerSecond: number };

const loads: readonly Load[] = [1000, 100_000, 1_000_000].flatMap((connections) =>
  [1000, 10_000, 50_000].map((readsPerSecond) => ({ connections, readsPerSecond })),
);

const inputRow = (name: string) => new RegExp(`^\\| ${name} +\\| ([\\d,.]+)(?= )`, "m");

/** @throws Error for an input that the page does not have */
export function readInputs(text: string): Inputs {
  const read = (name: InputName): number => {
    const value = Number(inputRow(name).exec(text)?.[1]?.replaceAll(",", ""));
    if (value > 0) return value;
    throw new Error(`docs/performance.md: the table of inputs has no "${name}"`);
  };
  return Object.fromEntries(inputNames.map((name) => [name, read(name)])) as Inputs;
}

const round = (value: number): string => Number(value.toPrecision(value < 100 ? 2 : 3)).toLocaleString("en-US");

/** The cells of the table, without the padding of the page. */
export function sizeRows(inputs: Inputs): string[][] {
  return loads.map((load) => {
    const size = sizeOf(inputs, load);
    return [
      load.connections.toLocaleString("en-US"),
      load.readsPerSecond.toLocaleString("en-US"),
      String(size.replicas),
      `${round(size.megabytes)} MB`,
      round(size.refreshesPerSecond),
      round(size.statementsPerSecond),
      String(size.postgresCores),
      `${round(size.diskGigabytes)} GB`,
      round(size.redisCommandsPerSecond),
    ];
  });
}

const heading = "| connections | reads/s |";

/** The rows of the table on the page, as they stand there. */
export function rowsOnPage(text: string): string[][] {
  const [, below = ""] = text.split(heading);
  const lines = below.split("\n").slice(2);
  const end = lines.findIndex((line) => !line.startsWith("|"));
  return lines.slice(0, end).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = readFileSync(page, "utf8");
  const [before = "", below = ""] = text.split(heading);
  const [head = "", rule = "", ...lines] = below.split("\n");
  const rest = lines.slice(rowsOnPage(text).length);
  const rows = sizeRows(readInputs(text)).map((cells) => `| ${cells.join(" | ")} |`);
  writeFileSync(page, `${before}${heading}${[head, rule, ...rows, ...rest].join("\n")}`);
}
