import { LRUCache } from "lru-cache";
import { type Clock, withDeadline } from "../clock.ts";
import type { End, Ends } from "../coordination/end-messages.ts";
import { BrokerError } from "../errors.ts";
import type { EndedId, OtherReplica, Replicas, ToldKeys } from "../store/replicas.ts";
import { replicaTimes } from "../time.ts";

/**
 * How replicas learn of each other's ends: revoked keys, deleted workloads, and deleted or disabled connections, which none of them may serve from memory. Each
 * replica asks Postgres for ends once a second, so this works without Redis. With Redis, an end is sent at once, and stored for replicas that
 * have no Postgres: they ask Redis every 4 s.
 */
export type Peers = {
  /** Makes this process known, before it serves anything. @throws BrokerError storage_unavailable */
  start(keys: KeyTalk): Promise<void>;
  /** Call it when this process serves nothing any more. Best effort: never rejects. */
  stop(): Promise<void>;
  /** Calls back for every end, of this replica and of others. */
  listen(listener: (end: End) => void): void;
  /** Sends an end that has just been committed, and waits a little. Returns the names of replicas that have not confirmed. Never rejects. */
  tell(ended: EndedId): Promise<string[]>;
  /** The same without waiting, for what may begin again, such as a disabled connection. Never rejects. */
  announce(ended: EndedId): Promise<void>;
  /**
   * Waits until no replica serves an earlier connection under this name, and returns the id of the last connection that had it; null: none.
   * @throws BrokerError conflict, naming the replicas that have not confirmed
   */
  untilForgotten(name: string): Promise<string | null>;
  /** The same id, without waiting. */
  lastUnder(name: string): Promise<string | null>;
  /** Notes that something is served from memory. While Postgres is away, Redis is asked whether it has ended. */
  uses(kind: End["kind"], id: string): void;
  /** Whether no other replica was seen in the last minute. */
  isAlone(): boolean;
};

/** What replicas tell each other of their encryption keys with each beat. */
type KeyTalk = {
  told(): Promise<ToldKeys>;
  toldNow(): Promise<ToldKeys>;
  heard(beat: { keyLists: string[][]; isNamed: boolean }): void;
};

type Options = {
  self: { id: string; name: string };
  replicas: Replicas;
  ends: Ends;
  /** How long a replica that is not seen any more may still serve callers from memory (`KEY_TRUST_SECONDS`). */
  trustSeconds: number;
  clock: Clock;
};

const maxRemembered = 20_000;
/** Stands for all replicas, if nobody knows which there are. */
const unknown = "unknown";

/** For the embedded database, which only one process uses. */
export function noPeers(): Peers {
  const listeners: ((end: End) => void)[] = [];
  return {
    async start() {},
    async stop() {},
    listen: (listener) => void listeners.push(listener),
    async tell(ended) {
      for (const listener of listeners) listener({ ...ended, atMs: Infinity });
      return [];
    },
    async announce() {},
    untilForgotten: async () => null,
    lastUnder: async () => null,
    uses() {},
    isAlone: () => true,
  };
}

export function createPeers({ self, replicas, ends, trustSeconds, clock }: Options): Peers {
  const listeners: ((end: End) => void)[] = [];
  const stopped = new AbortController();
  const withinSeconds = Math.max(trustSeconds, replicaTimes.presentSeconds);
  /** The newest end of each key or connection that was sent from here, in milliseconds by Postgres's clock. */
  const toldMs = new LRUCache<string, number>({ maxSize: maxRemembered, sizeCalculation: () => 1 });
  const seenInPostgres = new Set<string>();
  const used = { key: new Set<string>(), workload: new Set<string>(), connection: new Set<string>() };
  let heardAt: Date | null = null;
  let others = 0;
  let isAway = false;
  let loop: Promise<void> | null = null;
  let keys: KeyTalk | null = null;

  /** An end that is stored in Redis is read repeatedly, but reported once. */
  const hear = (end: End): void => {
    const key = `${end.kind} ${end.id}`;
    if ((toldMs.get(key) ?? -Infinity) >= end.atMs) return;
    toldMs.set(key, end.atMs);
    for (const listener of listeners) listener(end);
  };
  ends.listen(hear);

  const beat = async (talk: KeyTalk): Promise<void> => {
    const told = await talk.told();
    const { now, others: count, ...ofKeys } = await replicas.beat({ ...self, heardAt, keys: told });
    others = count;
    talk.heard(ofKeys);
    const ended = heardAt === null ? [] : await replicas.endedSince(heardAt);
    const news = ended.filter(({ kind, id }) => !seenInPostgres.has(`${kind} ${id}`));
    for (const { kind, id } of news) {
      seenInPostgres.add(`${kind} ${id}`);
      if (seenInPostgres.size > maxRemembered) seenInPostgres.delete(seenInPostgres.values().next().value as string);
      for (const listener of listeners) listener({ kind, id, atMs: now.getTime() });
    }
    heardAt = now;
    // Whoever caused the end may wait for the replicas to confirm it.
    if (news.length > 0) await replicas.beat({ ...self, heardAt, keys: await talk.told() });
  };

  const askElsewhere = async (): Promise<void> => {
    for (const kind of ["key", "workload", "connection"] as const) {
      const ids = [...used[kind]];
      used[kind].clear();
      for (const end of await ends.find(kind, ids)) hear(end);
    }
  };

  const run = async (talk: KeyTalk): Promise<void> => {
    let running: Promise<void> | null = null;
    let askedMs = -Infinity;
    const begin = async (): Promise<void> => {
      try {
        await beat(talk);
        isAway = false;
      } catch {
        isAway = true; // an outage is logged by the code that needs Postgres
      } finally {
        running = null;
      }
    };
    while (!stopped.signal.aborted) {
      running ??= begin();
      const done = running.then(() => true);
      if ((await withDeadline(done, replicaTimes.beatPatienceMs, clock)) === null) isAway = true;
      if (isAway && clock.monotonicMs() - askedMs >= replicaTimes.askElsewhereMs) {
        askedMs = clock.monotonicMs();
        await askElsewhere();
      }
      await clock.sleep(replicaTimes.beatMs, stopped.signal);
    }
    await running;
  };

  /** Names of the replicas that have not confirmed in time that they know of everything that had ended at `by`. */
  const confirm = async (ended: EndedId, by: Date, patienceMs: number): Promise<string[]> => {
    const confirmed = new Set<string>();
    const open = (all: OtherReplica[]) =>
      all.filter(({ id, heardAt: at }) => at.getTime() <= by.getTime() + replicaTimes.roundingMs && !confirmed.has(id));
    let waitedFor = open(await replicas.others(self.id, withinSeconds));
    if (waitedFor.length === 0) return [];
    let next = Promise.withResolvers<void>();
    ends.send({ ...ended, atMs: by.getTime() }, (id) => {
      confirmed.add(id);
      next.resolve();
    });
    const startMs = clock.monotonicMs();
    for (;;) {
      const passedMs = clock.monotonicMs() - startMs;
      const seemGone = waitedFor.every(({ silentMs }) => silentMs > replicaTimes.goneAfterMs);
      if (waitedFor.length === 0 || passedMs >= (seemGone ? replicaTimes.gonePatienceMs : patienceMs)) break;
      await withDeadline(next.promise, replicaTimes.gonePatienceMs / 2, clock);
      next = Promise.withResolvers<void>();
      waitedFor = open(waitedFor);
      if (waitedFor.length > 0) waitedFor = open(await replicas.others(self.id, withinSeconds));
    }
    return waitedFor.map(({ name }) => name);
  };

  return {
    async start(talk) {
      keys = talk;
      await beat(talk);
      loop = run(talk);
    },
    async stop() {
      stopped.abort();
      await loop;
      const held = (await keys?.toldNow())?.held ?? [];
      await replicas.leave(self.id, held).catch(() => undefined);
    },
    listen: (listener) => void listeners.push(listener),
    async tell(ended) {
      for (const listener of listeners) listener({ ...ended, atMs: Infinity });
      try {
        return await confirm(ended, await replicas.now(), replicaTimes.tellPatienceMs);
      } catch {
        // The end is committed and Postgres has gone away since. Replicas with Redis learn of it all the same.
        ends.send({ ...ended, atMs: clock.wallMs() }, () => {});
        return [unknown];
      }
    },
    async announce(ended) {
      const atMs = await replicas.now().then(
        (now) => now.getTime(),
        () => clock.wallMs(),
      );
      ends.send({ ...ended, atMs }, () => {});
    },
    async untilForgotten(name) {
      const ended = await replicas.endedUnder(name);
      if (ended === null) return null;
      const names = await confirm({ kind: "connection", id: ended.id }, ended.by, replicaTimes.reusePatienceMs);
      if (names.length === 0) return ended.id;
      const detail = `name: a connection of this name was deleted, and ${names.join(", ")} may still serve its token: there is no word from there. Try again later, or use another name. A replica that never comes back is forgotten ${withinSeconds} s after it was last seen.`;
      throw new BrokerError("conflict", detail);
    },
    lastUnder: async (name) => (await replicas.endedUnder(name))?.id ?? null,
    uses(kind, id) {
      if (isAway && used[kind].size < maxRemembered) used[kind].add(id);
    },
    isAlone: () => others === 0,
  };
}
