import { setTimeout as sleep } from "node:timers/promises";
import type { Reply, TokenBody } from "../support/broker-api.ts";
import type { BrokerProcess } from "../support/broker-process.ts";
import type { Ledger } from "../support/providers/ledger.ts";

/** `reader`: who asks again later; nobody unless named. */
type ReadOptions = { reader?: string; rejected?: number };
type Served = { reader: string; name: string; version: number; token: string; askedAt: number };

/** A name that must not be served: `from` when the answer to who closed it was there, `to` when somebody began to open it. */
type Closing = { name: string; from: number; to: number };

const pauseMs = 300;
/** Shorter than a broker waits for Postgres before it serves what it knows (500 ms). */
const promptMs = 300;
/** How long a connection may be served after it was deleted or disabled, while Postgres answers. */
const staleMs = 5000;

/** What callers were served, and since when names were closed and Postgres was away, by the machine's clock. */
export class ServedWatch {
  readonly served: Served[] = [];
  /** What was wrong with an answer by itself. */
  readonly wrongs: string[] = [];
  readonly #newest = new Map<string, number>();
  readonly #closings: Closing[] = [];
  readonly #outages: { from: number; to: number }[] = [];
  #isOver = false;

  /** The newest version of a name that anybody was served; 1 before. */
  newest(name: string): number {
    return this.#newest.get(name) ?? 1;
  }

  /** From now on the name must not be served. */
  closed(name: string): void {
    this.opens(name);
    this.#closings.push({ name, from: Date.now(), to: Infinity });
  }

  /** Somebody is about to do something that may open the name. */
  opens(name: string): void {
    for (const closing of this.#closings) if (closing.name === name) closing.to = Math.min(closing.to, Date.now());
  }

  postgresGoes(): void {
    this.#outages.push({ from: Date.now(), to: Infinity });
  }

  postgresIsBack(): void {
    for (const outage of this.#outages) outage.to = Math.min(outage.to, Date.now());
  }

  /** A Postgres that a broker has to wait for, on a slow machine, counts as gone: what is known is served meanwhile. */
  async probe({ api }: BrokerProcess): Promise<void> {
    while (!this.#isOver) {
      const from = Date.now();
      const isThere = await api.api("/connections").then(
        ({ status }) => status === 200,
        () => false,
      );
      if (!isThere || Date.now() - from > promptMs) this.#outages.push({ from, to: Date.now() });
      await sleep(pauseMs);
    }
  }

  /** Reads once and notes what is served. A replica that is killed meanwhile gives no answer. */
  async read(broker: BrokerProcess, name: string, { reader, rejected }: ReadOptions = {}): Promise<void> {
    const askedAt = Date.now();
    const query = rejected === undefined ? {} : { rejected_version: rejected };
    const reply = await broker.api.token(name, { wait: 3, ...query }).catch(() => null);
    if (reply?.status !== 200) return this.#refused(reply, name);
    const { version, access_token: token, warnings } = reply.body;
    this.served.push({ reader: reader ?? `call ${this.served.length}`, name, version, token, askedAt });
    this.#newest.set(name, Math.max(version, this.newest(name)));
    const isRecent = warnings.some(({ code }) => code === "recently_refreshed");
    if (version === rejected && !isRecent) this.wrongs.push(`${name}: version ${version} served to who rejected it`);
  }

  /** Somebody reads this name of this replica over and over, until `end`. */
  async follow(broker: BrokerProcess, name: string): Promise<void> {
    while (!this.#isOver) {
      await this.read(broker, name, { reader: `${broker.url} ${name}` });
      await sleep(pauseMs);
    }
  }

  end(): void {
    this.#isOver = true;
  }

  /** All that was served and should not have been. */
  check(ledger: Ledger, lifeSeconds: number): string[] {
    return [...this.wrongs, ...this.#checkVersions(), ...this.#checkTimes(ledger, lifeSeconds * 1000)];
  }

  /** A version names one token for ever. A caller who asks the same replica again gets no older one. */
  #checkVersions(): string[] {
    const [tokens, last] = [new Map<string, string>(), new Map<string, number>()];
    return this.served.flatMap(({ reader, name, version, token }) => {
      const key = `${name}, version ${version}`;
      const [known = token, before = 0] = [tokens.get(key), last.get(reader)];
      tokens.set(key, known);
      last.set(reader, version);
      return [
        ...(known === token ? [] : [`${key} names two tokens`]),
        ...(version >= before ? [] : [`${key} served to ${reader} after ${before}`]),
      ];
    });
  }

  #checkTimes(ledger: Ledger, lifeMs: number): string[] {
    const issuedAt = new Map(ledger.tokens.map((entry) => [entry.value, entry.issuedAt]));
    return this.served.flatMap(({ reader, name, version, token, askedAt }) => {
      const leftMs = (issuedAt.get(token) ?? 0) + lifeMs - askedAt;
      const closedMs = this.#closedMs(name, askedAt);
      return [
        ...(leftMs > 0 ? [] : [`${name}, version ${version} served to ${reader} ${-leftMs} ms after its end`]),
        ...(closedMs <= staleMs ? [] : [`${name} served to ${reader} ${closedMs} ms after it was closed`]),
      ];
    });
  }

  /** For how long it had been closed, counted from the end of the last outage; 0 where it was not. */
  #closedMs(name: string, at: number): number {
    const closing = this.#closings.find((one) => one.name === name && one.from < at && at < one.to);
    if (closing === undefined) return 0;
    const backAt = this.#outages.filter(({ from }) => from < at).map(({ to }) => Math.min(to, at));
    return at - Math.max(closing.from, ...backAt);
  }

  #refused(reply: Reply<TokenBody> | null, name: string): void {
    const { status = 503, body } = reply ?? {};
    if (![404, 409, 503].includes(status)) this.wrongs.push(`${name} was answered with ${status} ${body?.code}`);
  }
}
