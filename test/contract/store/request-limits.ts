import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  createRequestLimits,
  type Admission,
  type Admitted,
  type LimitedRequest,
  type LimitRules,
  type RequestLimits,
} from "../../../src/store/request-limits.ts";
import type { StoreStage } from "./stage.ts";

/** A second of these stories is two minutes in the database. So the time that a test takes is short beside the times of its story, on any machine. */
const second = 120;

/** One key of a limit, and the clients that ask for it. Its times are those of the story. */
class Limited {
  readonly key = `client:${randomUUID()}`;
  readonly limits: RequestLimits;
  readonly #beganMs = performance.now();
  readonly #stage: StoreStage;
  readonly #rules: LimitRules;

  constructor(stage: StoreStage, rules: Partial<LimitRules>) {
    this.#stage = stage;
    this.#rules = inStory(rules);
    this.limits = createRequestLimits(stage.database);
  }

  request(changes: Partial<LimitedRequest> = {}): LimitedRequest {
    const times = { travelSeconds: 5 * second, leaseSeconds: 30 * second };
    const whose = { client: "one", provider: null, kind: "refresh" } as const;
    const given = { key: this.key, rules: this.#rules, ...whose, ...times };
    return { ...given, ...changes };
  }

  async ask(changes?: Partial<LimitedRequest>): Promise<Admission> {
    return await this.limits.admit(this.request(changes));
  }

  async admitted(changes?: Partial<LimitedRequest>): Promise<Admitted> {
    const { admitted } = await this.ask(changes);
    if (admitted === null) throw new Error("the request was held back");
    return admitted;
  }

  /** Asks: it is let through, or told to wait for so long, less what has passed while the test runs. */
  async waits(seconds: number, changes?: Partial<LimitedRequest>): Promise<void> {
    const admission = await this.ask(changes);
    const told = admission.admitted === null ? admission.waitSeconds / second : 0;
    const passedSeconds = (performance.now() - this.#beganMs) / 1000 / second;
    const isAsExpected = seconds === 0 ? told === 0 : told >= seconds - passedSeconds - 0.01 && told <= seconds + 0.01;
    if (!isAsExpected) expect.fail(`the wait is ${told} s, not ${seconds} s`);
  }

  /** Asks: all that may run at a time are under way. The broker tells such callers to come again in a second. */
  async isFull(): Promise<void> {
    expect(await this.ask()).toMatchObject({ admitted: null, waitSeconds: 1 });
  }

  /** A request that was let through so many seconds earlier than the row says. */
  earlier({ at, ...rest }: Admitted, seconds: number): Admitted {
    return { ...rest, at: new Date(at.getTime() - 1000 * seconds * second) };
  }

  async settle(admitted: Admitted, { sent = true, closeSeconds = 0 } = {}): Promise<void> {
    await this.limits.closeAdmission(admitted, { sent, closeSeconds: closeSeconds * second });
  }

  async pass(seconds: number): Promise<void> {
    await passLimit(this.#stage, this.key, seconds * second);
  }

  async row(): Promise<{ seen: number; running: number } | undefined> {
    const [row] = await this.#stage.query<{ seen: number; running: number }>(
      "SELECT cardinality(seen_by)::int AS seen, cardinality(running)::int AS running FROM request_limits WHERE key = $1",
      this.key,
    );
    return row;
  }
}

/** The rules of a story, as the database is told them. */
function inStory({ maxPerWindow = null, spacingMs = 0, concurrency = null }: Partial<LimitRules>): LimitRules {
  const window = maxPerWindow && { ...maxPerWindow, seconds: maxPerWindow.seconds * second };
  return { concurrency, spacingMs: spacingMs * second, maxPerWindow: window };
}

const older = (list: string) => `(SELECT COALESCE(array_agg(at - by), '{}') FROM unnest(${list}) AS u(at))`;

/** Makes everything in the limits whose keys begin like this so many seconds older. */
export async function passLimit(stage: StoreStage, key: string, seconds: number): Promise<void> {
  await stage.database.prisma.$executeRawUnsafe(
    `UPDATE request_limits l SET seen_by = ${older("l.seen_by")}, running = ${older("l.running")},
       closed_until = closed_until - by, asked_at = asked_at - by, clients_asked = ${older("l.clients_asked")},
       waits_since = ${older("l.waits_since")}, waits_due = ${older("l.waits_due")}
     FROM (SELECT make_interval(secs => $2::double precision) AS by) b WHERE starts_with(key, $1)`,
    key,
    seconds,
  );
}

/** How many of a client are let through and answered. */
async function takes(host: Limited, changes: Partial<LimitedRequest>): Promise<number> {
  for (let taken = 0; ; taken++) {
    const { admitted } = await host.ask(changes);
    if (admitted === null) return taken;
    await host.settle(admitted);
  }
}

/** The limits that replicas keep together. */
export function requestLimits(stage: () => StoreStage): void {
  const limited = (rules: Partial<LimitRules>) => new Limited(stage(), rules);

  describe("a limit of requests in a window", () => {
    it("lets so many through, and tells the next when the first is out of it", async () => {
      const host = limited({ maxPerWindow: { requests: 3, seconds: 600 } });
      for (const passed of [0, 100, 100]) {
        await host.pass(passed);
        await host.settle(await host.admitted());
      }
      await host.waits(400);
      await host.pass(390);
      await host.waits(10);
      await host.pass(11);
      await host.waits(0);
      await host.waits(99);
    });

    it("counts a request from when the provider has got it at the latest: with the answer, or after it has travelled", async () => {
      const host = limited({ maxPerWindow: { requests: 1, seconds: 60 } });
      const first = await host.admitted();
      await host.waits(65);
      await host.pass(2);
      await host.settle(host.earlier(first, 2));
      await host.waits(60);
      await host.pass(61);
      const slow = await host.admitted();
      await host.pass(20);
      await host.settle(host.earlier(slow, 20));
      await host.waits(45);
    });

    it("does not count what never left", async () => {
      const host = limited({ maxPerWindow: { requests: 2, seconds: 60 } });
      const [stays, leaves] = [await host.admitted(), await host.admitted()];
      await host.settle(leaves, { sent: false });
      expect(await host.row()).toEqual({ seen: 1, running: 1 });
      await host.waits(0);
      await host.waits(65);
      await host.settle(stays);
    });

    it("is not changed by what comes of a request that counts no more", async () => {
      const host = limited({ maxPerWindow: { requests: 2, seconds: 60 } });
      const old = await host.admitted();
      await host.pass(70);
      const young = await host.admitted();
      await host.settle(host.earlier(old, 70));
      await host.settle(host.earlier(old, 70), { sent: false });
      expect(await host.row()).toEqual({ seen: 1, running: 1 });
      await host.settle(young);
    });

    it("keeps no more than counts", async () => {
      const host = limited({ maxPerWindow: { requests: 2, seconds: 60 } });
      for (let turn = 0; turn < 5; turn++) {
        await host.waits(0);
        await host.waits(0);
        await host.pass(66);
      }
      await host.waits(0);
      expect(await host.row()).toEqual({ seen: 1, running: 1 });
    });

    it("is not forgotten for one who asks with a shorter window", async () => {
      const host = limited({ maxPerWindow: { requests: 1, seconds: 600 } });
      await host.settle(await host.admitted());
      await host.pass(100);
      await host.waits(0, { rules: inStory({ maxPerWindow: { requests: 5, seconds: 10 } }) });
      await host.waits(500, { rules: inStory({ maxPerWindow: { requests: 2, seconds: 600 } }) });
    });

    it("is kept when the clock goes back, and no longer than from then on", async () => {
      const host = limited({ maxPerWindow: { requests: 1, seconds: 600 } });
      await host.settle(await host.admitted());
      await host.pass(-7200);
      await host.waits(605);
    });
  });

  describe("a distance between requests", () => {
    it("counts from the answer to the last one, and without one from when the provider must have got it", async () => {
      const host = limited({ spacingMs: 10_000 });
      const first = await host.admitted();
      await host.waits(15);
      await host.settle(first);
      await host.waits(10);
      await host.pass(5);
      await host.waits(5);
      await host.pass(6);
      await host.waits(0);
    });
  });

  describe("a number of requests at a time", () => {
    it("lets the next through when one comes back, whether it had been sent or not", async () => {
      const host = limited({ concurrency: 2 });
      const [one, other] = [await host.admitted(), await host.admitted()];
      await host.isFull();
      await host.settle(one);
      await host.waits(0);
      await host.isFull();
      await host.settle(other, { sent: false });
      await host.waits(0);
      await host.isFull();
    });

    it("counts a request whose replica has died for 30 s", async () => {
      const host = limited({ concurrency: 1 });
      const dead = await host.admitted();
      await host.pass(25);
      await host.isFull();
      await host.pass(6);
      const next = await host.admitted();
      await host.settle(dead);
      await host.isFull();
      await host.settle(next);
      await host.waits(0);
    });
  });

  describe("a limit that was closed", () => {
    it("lets nobody through until then, and is never made shorter", async () => {
      const host = limited({});
      const [one, other] = [await host.admitted(), await host.admitted()];
      await host.settle(one, { closeSeconds: 900 });
      await host.settle(other, { closeSeconds: 10 });
      await host.pass(100);
      await host.waits(800);
      await host.pass(801);
      await host.waits(0);
    });

    it("is not closed by an answer that asks for nothing", async () => {
      const host = limited({});
      await host.settle(await host.admitted(), { closeSeconds: 0 });
      await host.waits(0);
    });
  });

  describe("what several clients share", () => {
    const rules = { maxPerWindow: { requests: 8, seconds: 600 } };
    const modest = { client: "modest" };

    it("is all of one that is alone, and a quarter of it is kept for another that has asked within a day", async () => {
      const host = limited(rules);
      expect(await takes(host, {})).toBe(8);
      await host.pass(601);
      await host.settle(await host.admitted(modest));
      await host.pass(601);
      expect([await takes(host, {}), await takes(host, modest), await takes(host, {})]).toEqual([6, 2, 0]);
    });

    it("counts for those who have something to refresh with the provider, whether they have asked or not", async () => {
      const [host, provider] = [limited(rules), `provider-${randomUUID().slice(0, 8)}`];
      const make = async (of = provider) => {
        const [id, fields] = [
          randomUUID(),
          { clientId: "app", secretRevision: 0, secret: null, scopes: [], patterns: [] },
        ];
        return await stage().clients.insert({
          id,
          name: `app-${id}`,
          provider: of,
          ...fields,
          inputs: {},
          ownRedirectUri: false,
        });
      };
      const [greedy, other, elsewhere] = [await make(), await make(), await make("another")];
      await stage().insert({ provider, clientRef: greedy.id, grant: "import" });
      await stage().insert({ provider: "another", clientRef: elsewhere.id, grant: "import" });
      const { id } = await stage().insert({ provider, clientRef: other.id, grant: "import" });
      const of = (client: string) => ({ client, provider });
      await stage().query(
        "UPDATE connections SET status = 'connected' WHERE client_ref IS NOT NULL AND id <> $1::uuid",
        id,
      );
      expect(await takes(host, of(greedy.id))).toBe(8);
      await host.pass(601);
      await stage().set(id, "status = 'connected'");
      expect([await takes(host, of(greedy.id)), await takes(host, of(other.id))]).toEqual([6, 2]);
    });

    it("is read as far as it makes sense where somebody has written the row by hand, and holds 64 clients at most", async () => {
      const host = limited(rules);
      await host.settle(await host.admitted());
      await stage().query(
        `UPDATE request_limits SET seen_by = seen_by || NULL::timestamptz || '-infinity'::timestamptz || clock_timestamp(),
           seen_of = ARRAY[NULL, 'one'], running = running || NULL::timestamptz || '-infinity'::timestamptz,
           clients = ARRAY['one', 'one', NULL, 'late'] || ARRAY(SELECT 'c' || i FROM generate_series(1, 1000) i),
           clients_asked = ARRAY['infinity', clock_timestamp(), clock_timestamp(), 'infinity', NULL]::timestamptz[]
             || array_fill(clock_timestamp(), ARRAY[2000]),
           waits_since = array_fill('-infinity'::timestamptz, ARRAY[10]), waits_due = ARRAY['infinity', '-infinity']::timestamptz[]
         WHERE key = $1`,
        host.key,
      );
      expect([await takes(host, {}), await takes(host, modest)]).toEqual([4, 1]);
      const [row] = await stage().query<{ sizes: number[] }>(
        `SELECT ARRAY[cardinality(clients), cardinality(clients_asked), cardinality(waits_since), cardinality(waits_due)]
           AS sizes FROM request_limits WHERE key = $1`,
        host.key,
      );
      expect(row?.sizes).toEqual([64, 64, 64, 64]);
    });

    it("goes in turns where no part can be kept: who has waited comes before who was let through", async () => {
      const host = limited({ maxPerWindow: { requests: 1, seconds: 600 } });
      await host.settle(await host.admitted());
      await host.waits(600, modest);
      await host.waits(600);
      await host.pass(600);
      // A minute of the database's is what a turn lasts.
      expect(await host.ask()).toMatchObject({ admitted: null });
      expect(await host.ask({ client: "new", kind: "first" })).toMatchObject({ admitted: null });
      await host.settle(await host.admitted(modest));
      await host.pass(600);
      await host.settle(await host.admitted());
    });

    it("is told which of two that came in the same millisecond has not left", async () => {
      const host = limited(rules);
      const [one, other] = [await host.admitted(), await host.admitted(modest)];
      await stage().query(
        "UPDATE request_limits SET seen_by = ARRAY[seen_by[1], seen_by[1]], running = ARRAY[running[1], running[1]] WHERE key = $1",
        host.key,
      );
      await host.settle({ ...other, at: one.at }, { sent: false });
      const [row] = await stage().query("SELECT seen_of FROM request_limits WHERE key = $1", host.key);
      expect(row).toEqual({ seen_of: ["one"] });
    });
  });

  it("what a person does counts, is held back like anything else, and leaves a quarter of the window to refreshes", async () => {
    const person = { kind: "person" } as const;
    const host = limited({ maxPerWindow: { requests: 8, seconds: 600 } });
    expect(await takes(host, person)).toBe(6);
    expect(await takes(host, {})).toBe(2);
    const closed = limited({ maxPerWindow: { requests: 1, seconds: 60 } });
    await closed.settle(await closed.admitted(person), { closeSeconds: 3600 });
    await closed.waits(3600, person);
  });

  it("each key has its own", async () => {
    const rules = { maxPerWindow: { requests: 1, seconds: 600 } };
    const [one, other] = [limited(rules), limited(rules)];
    await one.waits(0);
    await other.waits(0);
    await one.waits(605);
  });

  it("a limit that nobody has used for a day is let go of, unless its window or its silence is longer", async () => {
    const day = 86_400 / second;
    const rules = { maxPerWindow: { requests: 1, seconds: 60 } };
    const [unused, used, closed] = [limited(rules), limited(rules), limited(rules)];
    const long = limited({ maxPerWindow: { requests: 1, seconds: 3 * day } });
    for (const one of [unused, used, long]) await one.settle(await one.admitted());
    await closed.settle(await closed.admitted(), { closeSeconds: 3 * day });
    for (const one of [unused, long, closed]) await one.pass(day + 100);
    await used.pass(day - 100);
    await stage().rows.tidy();
    const left = await Promise.all([unused, used, long, closed].map((one) => one.row()));
    expect(left.map((row) => row !== undefined)).toEqual([false, true, true, true]);
  });
}
