import { request } from "undici";
import { startSandboxBroker } from "./sandbox-broker.ts";

/**
 * Whether the time of a refusal tells if the connection exists: `node bench/refusals.ts [each] [tokens|connections]`, with DATABASE_URL (an empty database) or on the
 * embedded one. Every case is asked `each` times in two series, all of them interleaved in an order by chance. The medians of two cases may differ
 * by no more than those of two series of the same case do.
 */
const each = Number(process.argv[2] ?? 10_000);
const routes = process.argv[3] === undefined ? ["tokens", "connections"] : [process.argv[3]];
const databaseUrl = process.env["DATABASE_URL"];

await using broker = await startSandboxBroker({
  env: { LOG_LEVEL: "warn" },
  ...(databaseUrl !== undefined && { databaseUrl }),
});
const { api } = broker;

const make = async (name: string, labels: Record<string, string>) => {
  await api.createConnection({ name, provider: "sandbox", client: "sandbox", grant: "import", labels });
  await api.importTokens(name, { access_token: "x".repeat(400), expires_in: 864_000 });
};
for (const name of ["acme-own", "other-cached", "other-uncached"]) await make(name, { customer: "acme" });
for (const name of ["acme-cached", "acme-uncached"]) await make(name, { customer: "beta" });
const abilities = ["tokens", "connections"];
const byNames = await api.createKey({ name: "names", abilities, connections: ["acme-*"] });
const labels = { customer: "acme" };
const byLabels = await api.createKey({ name: "labels", abilities, connections: ["acme-*"], labels });

/** Some are kept in memory all the while: the broker reads them for others. */
const warm = async () => {
  for (const name of ["acme-cached", "other-cached"]) await api.token(name);
};

type Case = { who: string; key: string; route: string; name: string; seriesMs: [number[], number[]] };
const callers = [
  { who: "patterns", key: byNames, names: ["acme-nope", "other-nope", "other-uncached", "other-cached"] },
  {
    who: "labels",
    key: byLabels,
    names: ["acme-nope", "acme-uncached", "acme-cached", "other-nope", "other-cached"],
  },
];
const cases = routes.flatMap((route) =>
  callers.flatMap(({ who, key, names }) => names.map((name): Case => ({ who, key, route, name, seriesMs: [[], []] }))),
);
const turns = cases.flatMap((one) => one.seriesMs.map((series) => ({ one, series })));

const bytes = new Map<string, Set<string>>();
const ask = async ({ key, route, name, who }: Case): Promise<number> => {
  const beganMs = performance.now();
  const { statusCode, body } = await request(`${broker.url}/${route}/${name}`, {
    headers: { authorization: `Bearer ${key}` },
  });
  const text = await body.text();
  const tookMs = performance.now() - beganMs;
  const seen = `${statusCode} ${text.replaceAll(name, "NAME")}`;
  const group = `${who} ${route}`;
  bytes.set(group, (bytes.get(group) ?? new Set()).add(seen));
  return tookMs;
};

const shuffled = <Item>(items: readonly Item[]): Item[] =>
  items
    .map((item) => ({ item, at: Math.random() }))
    .sort((one, other) => one.at - other.at)
    .map(({ item }) => item);

for (let round = -200; round < each; round++) {
  if (round % 1000 === 0 || round === -200) await warm();
  for (const { one, series } of shuffled(turns)) {
    const tookMs = await ask(one);
    if (round >= 0) series.push(tookMs);
  }
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const micros = (ms: number) => `${(ms * 1000).toFixed(1)} µs`;
const lines: string[] = [];
for (const group of new Set(cases.map(({ who, route }) => `${who} ${route}`))) {
  const of = cases.filter(({ who, route }) => `${who} ${route}` === group);
  const medians = of.map(({ name, seriesMs: [one, other] }) => ({
    name,
    ms: median([...one, ...other]),
    betweenSeries: Math.abs(median(one) - median(other)),
  }));
  for (const { name, ms, betweenSeries } of medians) {
    lines.push(`${group} ${name}: median ${micros(ms)}, two series of it differ by ${micros(betweenSeries)}`);
  }
  const all = medians.map(({ ms }) => ms);
  const apart = Math.max(...all) - Math.min(...all);
  const noise = Math.max(...medians.map(({ betweenSeries }) => betweenSeries));
  lines.push(
    `${group}: cases differ by ${micros(apart)}, series of the same case by up to ${micros(noise)}, answers ${bytes.get(group)?.size}`,
  );
}
process.stdout.write(`${lines.join("\n")}\n`);
