import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify } from "fastify";
import { expect, test } from "vitest";
import { shareAnswer } from "../../../src/concurrency.ts";
import { installErrorHandler } from "../../../src/http/error-handler.ts";
import { answerHeaders } from "../../../src/http/headers.ts";
import { createMinuteLimit, networkOf } from "../../../src/http/limits.ts";
import { metricsRoute } from "../../../src/http/routes/health.ts";

function clockAt() {
  const clock = { ms: 5_000, monotonicMs: () => clock.ms };
  return clock;
}

/** How many of these requests are let through. */
function countTaken(limit: ReturnType<typeof createMinuteLimit>, caller: string, times: number): number {
  return Array.from({ length: times }, () => limit.take(caller)).filter((wait) => wait === null).length;
}

test("ten a minute are ten, whenever the minute begins, and the eleventh is told when to come again", () => {
  const clock = clockAt();
  const limit = createMinuteLimit(10, clock);
  expect(countTaken(limit, "a", 4)).toBe(4);
  clock.ms += 59_000;
  expect(countTaken(limit, "a", 10)).toBe(6);
  expect(limit.isSpent("a")).toBe(true);
  expect(limit.take("a")).toBe(1);
  expect(limit.isSpent("b")).toBe(false);
  clock.ms += 1_000;
  expect(limit.isSpent("a")).toBe(false);
  expect(countTaken(limit, "a", 11)).toBe(10);
  expect(limit.take("a")).toBe(60);
});

test("a hundred thousand callers neither push out what was counted of one, nor hold up another", () => {
  const limit = createMinuteLimit(10, clockAt(), new Uint8Array(32)); // a secret that is known, so that nothing here is chance
  countTaken(limit, "spent", 10);
  countTaken(limit, "nine", 9);
  for (let index = 0; index < 100_000; index++) limit.take(`2001:db8:${index.toString(16)}::/64`);
  expect(limit.isSpent("spent")).toBe(true);
  expect(limit.isSpent("nine")).toBe(false);
  expect(countTaken(limit, "nine", 2)).toBe(1);
  expect(countTaken(limit, "newcomer", 5)).toBe(5);
});

const spellings = [
  "2001:db8:0:1::1",
  "2001:db8:0:1:0:0:0:1",
  "2001:0db8:0000:0001:0000:0000:0000:0001",
  "2001:DB8:0:1::FFFF",
  "2001:db8:0:1:ffff:ffff:ffff:ffff",
  "2001:db8:0:1::192.0.2.7",
  "2001:db8:0:1:a::%eth0",
  "2001:db8::1:0:0:0:1",
  "2001:0DB8::0001:9:8:7:6",
  ...Array.from({ length: 31 }, (_, index) => `2001:db8:0:1:${index.toString(16)}::${"0".repeat(index % 4)}1`),
];

test("every spelling of a /64 is one network, and its neighbour is another", () => {
  expect(spellings).toHaveLength(40);
  expect(new Set(spellings.map(networkOf))).toEqual(new Set(["2001:db8:0:1::/64"]));
  expect(networkOf("2001:db8:0:2::1")).toBe("2001:db8:0:2::/64");
  expect(networkOf("::1")).toBe(networkOf("::2"));
});

test("an IPv4 address is itself in every form that IPv6 has for it, and not its neighbour", () => {
  const forms = [
    "198.51.100.7",
    "::ffff:198.51.100.7",
    "::FFFF:c633:6407",
    "198.51.100.7:443",
    "[::ffff:198.51.100.7]:8",
    "0:0:0:0:0:ffff:198.51.100.7",
  ];
  expect(new Set(forms.map(networkOf))).toEqual(new Set(["198.51.100.7"]));
  expect(networkOf("64:ff9b::198.51.100.7")).toBe("198.51.100.7");
  expect(networkOf("::ffff:198.51.100.8")).toBe("198.51.100.8");
});

test("what a proxy passes on that is no address makes one caller, however much is made up", () => {
  const made = ["", "unknown", "1.2.3", "01.2.3.4", "1.2.3:80", "[::1", "::1::", "x".repeat(9000), "a%b"];
  expect(new Set(made.map(networkOf))).toEqual(new Set(["no address"]));
});

test("an answer is worked out once a second, however many ask, and once while it takes longer", async () => {
  const clock = clockAt();
  const work: PromiseWithResolvers<number>[] = [];
  const ask = shareAnswer(async () => await work[work.push(Promise.withResolvers<number>()) - 1]?.promise, clock);
  const many = async () => await Promise.all(Array.from({ length: 110 }, ask));
  const first = many();
  clock.ms += 5_000;
  const late = many();
  work[0]?.resolve(1);
  expect(new Set([...(await first), ...(await late)])).toEqual(new Set([1]));
  expect(work).toHaveLength(1);
  const second = ask();
  work[1]?.resolve(2);
  expect(await second).toBe(2);
  clock.ms += 999;
  expect(await ask()).toBe(2);
  clock.ms += 1;
  const third = ask();
  expect(work).toHaveLength(3);
  work[2]?.reject(new Error("gone"));
  await expect(third).rejects.toThrow("gone");
  await expect(ask()).rejects.toThrow("gone");
  expect(work).toHaveLength(3);
});

test("METRICS_KEY is guessed ten times a minute, and the right one gets its metrics all the while", async () => {
  const app = fastify().withTypeProvider<TypeBoxTypeProvider>();
  installErrorHandler(app, { asker: null, headers: answerHeaders("http://localhost:8080") });
  const wrongKeys = createMinuteLimit(10, clockAt());
  await metricsRoute(app, { render: async () => "figures", metricsKey: "right", wrongKeys });
  const ask = async (key: string) => await app.inject({ url: "/metrics", headers: { authorization: `Bearer ${key}` } });
  const guesses = await Promise.all(Array.from({ length: 12 }, () => ask("wrong")));
  expect(guesses.map(({ statusCode }) => statusCode)).toEqual([...Array<number>(10).fill(401), 429, 429]);
  expect(Number(guesses.at(-1)?.headers["retry-after"])).toBeGreaterThan(0);
  expect((await ask("right")).body).toBe("figures");
});
