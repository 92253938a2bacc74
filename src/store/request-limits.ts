import { Prisma as Sql } from "../generated/prisma/client.ts";
import { refreshTimes } from "../time.ts";
import type { Database } from "./database.ts";
import { seconds } from "./row-sql.ts";

/** How many requests a key of the table allows. Null, or 0: no limit. */
export type LimitRules = {
  /** Requests at a time. */
  concurrency: number | null;
  /** Between one request and the next. */
  spacingMs: number;
  maxPerWindow: { requests: number; seconds: number } | null;
};

/** A request that wants to be sent now. */
export type LimitedRequest = {
  key: string;
  rules: LimitRules;
  /** Which of the clients that share the key asks. */
  client: string;
  /** All clients with a connected connection of this provider share the key; null: only those that ask do. */
  provider: string | null;
  /**
   * - `refresh`: it continues a grant that the provider has given.
   * - `first`: nobody knows yet whether it will ever work. It gets at most half of what the rules allow, and no turns.
   * - `person`: a person waits for it, but anybody may have made it up. It gets what a refresh of its client gets, except a quarter of the
   *   window, which stays for refreshes if no other client has a claim to it.
   */
  kind: "refresh" | "first" | "person";
  /** The latest time after its admission at which the provider has received it. */
  travelSeconds: number;
  /** How long after its admission it counts as running, if nobody closes it. */
  leaseSeconds: number;
};

/** An admitted request, as `closeAdmission` finds it. */
export type Admitted = { key: string; client: string; at: Date; travelSeconds: number };

export type Admission = { admitted: Admitted } | { admitted: null; waitSeconds: number };

export type RequestLimits = ReturnType<typeof createRequestLimits>;

/** How many clients a row remembers: those that asked last. Only keys with `admin` can make clients. */
const mostClients = 64;

/**
 * The limits of token endpoints, by the lock of one row for each key and by Postgres's clock. A request counts from the latest moment at
 * which the provider has received it, so that the provider never sees more than the rules allow.
 * How clients share a key: docs/decisions/0023-a-share-for-each-client.md.
 */
export function createRequestLimits({ prisma }: Pick<Database, "prisma">) {
  return {
    /** Admits and counts the request, or says in how many seconds to ask again. */
    async admit(request: LimitedRequest): Promise<Admission> {
      const { key, client, travelSeconds } = request;
      const [asked] = await prisma.$queryRaw<{ at: Date; waitSeconds: number }[]>(admission(request));
      if (asked === undefined) throw new Error("an upsert has returned no row");
      const { at, waitSeconds } = asked;
      return waitSeconds === 0 ? { admitted: { key, client, at, travelSeconds } } : { admitted: null, waitSeconds };
    },

    /**
     * Closes an admission. `sent` false: the request never left, and does not count. `closeSeconds`: for how long no request is admitted; an
     * earlier such time is not shortened.
     */
    async closeAdmission(admitted: Admitted, given: { sent: boolean; closeSeconds: number }): Promise<void> {
      const { key, client, at, travelSeconds } = admitted;
      // The provider has answered, so it has received the request.
      const [seen, whose] = given.sent
        ? [Sql.sql`ARRAY[LEAST(l.seen_by[i], clock_timestamp())]`, Sql.sql`ARRAY[${client}::text]`]
        : [Sql.sql`'{}'::timestamptz[]`, Sql.sql`'{}'::text[]`];
      // Two clients may have been admitted in the same millisecond.
      const place = Sql.sql`(SELECT min(i) AS i FROM generate_subscripts(l.seen_by, 1) i
        WHERE l.seen_by[i] = ${at}::timestamptz + ${seconds(travelSeconds)} AND l.seen_of[i] = ${client})`;
      await prisma.$executeRaw`UPDATE request_limits l SET
        running = COALESCE((SELECT l.running[:i - 1] || l.running[i + 1:]
          FROM array_position(l.running, ${at}::timestamptz) AS i WHERE i IS NOT NULL), l.running),
        (seen_by, seen_of) = (SELECT
          CASE WHEN i IS NULL THEN l.seen_by ELSE l.seen_by[:i - 1] || ${seen} || l.seen_by[i + 1:] END,
          CASE WHEN i IS NULL THEN l.seen_of ELSE l.seen_of[:i - 1] || ${whose} || l.seen_of[i + 1:] END FROM ${place} p),
        closed_until = GREATEST(l.closed_until, CASE WHEN ${given.closeSeconds}::double precision > 0
          THEN clock_timestamp() + ${seconds(given.closeSeconds)} END)
        WHERE l.key = ${key}`;
    },
  };
}

/** Half of a limit, rounded up: at least one, since a limit of one has no half. */
export function halfOf(rules: LimitRules): LimitRules {
  const { concurrency, maxPerWindow } = rules;
  return {
    ...rules,
    concurrency: concurrency && Math.ceil(concurrency / 2),
    maxPerWindow: maxPerWindow && { ...maxPerWindow, requests: Math.ceil(maxPerWindow.requests / 2) },
  };
}

/** How many requests of a window are reserved, in all, for clients that have had less than their part. */
export function keptForOthers({ maxPerWindow }: LimitRules): number {
  const requests = maxPerWindow?.requests ?? 0;
  return requests < 2 ? 0 : Math.max(1, Math.floor(requests / 4));
}

/** How long a turn is reserved for a client that does not come: the time for one request under the rules. */
export function turnSeconds({ spacingMs, maxPerWindow }: LimitRules): number {
  const { limitTurnMinSeconds, limitTurnMaxSeconds } = refreshTimes;
  const one = maxPerWindow === null ? 0 : maxPerWindow.seconds / maxPerWindow.requests;
  return Math.min(limitTurnMaxSeconds, Math.max(limitTurnMinSeconds, spacingMs / 1000, one));
}

/**
 * The row is locked before its values and the clock are read: in DO UPDATE they are those after the wait for the lock. The arrays form two
 * groups, in which the same index is one entry. If somebody has written arrays of different lengths by hand, an entry without a time counts
 * as absent, and one without a client belongs to nobody.
 */
function admission(request: LimitedRequest): Sql.Sql {
  const { key, client, rules, kind } = request;
  const { spacingMs, maxPerWindow } = rules;
  const own = kind === "first" ? halfOf(rules) : rules;
  const { concurrency } = own;
  const keep = Math.max(spacingMs / 1000, maxPerWindow?.seconds ?? 0);
  const spacing = seconds(spacingMs / 1000);
  const window = seconds(maxPerWindow?.seconds ?? 0);
  const travel = seconds(request.travelSeconds);
  const lease = seconds(request.leaseSeconds);
  const turn = seconds(turnSeconds(rules));
  const comeBack = seconds(refreshTimes.limitComeBackSeconds);
  const soon = seconds(refreshTimes.limitComeBackSeconds + request.travelSeconds);
  const requests = Sql.sql`${own.maxPerWindow?.requests ?? null}::int`;
  const kept = Sql.sql`${keptForOthers(rules)}::int`;
  const registered = Sql.sql`${registeredBeside(request)} LIMIT ${keptForOthers(rules) > 0 ? mostClients : 0}::int`;
  const isKnown = Sql.sql`${kind !== "first"}::boolean`;
  const leftByPeople = Sql.sql`${kind === "person" ? keptForOthers(rules) : 0}::int`;
  const me = Sql.sql`${client}::text`;
  return Sql.sql`
    INSERT INTO request_limits AS l (key, seen_by, seen_of, running, keep_seconds, asked_at, wait_seconds,
      clients, clients_asked, waits_since, waits_due)
    SELECT ${key}, CASE WHEN ${keep}::double precision > 0 THEN ARRAY[now + ${travel}] ELSE '{}' END,
      CASE WHEN ${keep}::double precision > 0 THEN ARRAY[${me}] ELSE '{}' END, ARRAY[now], ${keep}::double precision, now, 0,
      CASE WHEN ${isKnown} THEN ARRAY[${me}] ELSE '{}' END, CASE WHEN ${isKnown} THEN ARRAY[now] ELSE '{}' END,
      CASE WHEN ${isKnown} THEN ARRAY[NULL::timestamptz] ELSE '{}' END, CASE WHEN ${isKnown} THEN ARRAY[NULL::timestamptz] ELSE '{}' END
    FROM (SELECT clock_timestamp()::timestamptz(3) AS now) t
    ON CONFLICT (key) DO UPDATE SET (seen_by, seen_of, running, keep_seconds, asked_at, wait_seconds,
      clients, clients_asked, waits_since, waits_due) = (
    WITH t AS MATERIALIZED (SELECT now, GREATEST(l.keep_seconds, ${keep}::double precision) AS keep
      FROM (SELECT clock_timestamp()::timestamptz(3) AS now) c),
    seen AS (SELECT at, client, at + ${window} > now AS in_window,
        row_number() OVER (ORDER BY at DESC) AS place, row_number() OVER (PARTITION BY client ORDER BY at DESC) AS own_place
      FROM t CROSS JOIN LATERAL (SELECT LEAST(u.at, now + ${travel}) AS at, u.client
        FROM unnest(l.seen_by, l.seen_of) AS u(at, client) WHERE u.at IS NOT NULL) s
      WHERE at + make_interval(secs => keep) > now),
    running AS (SELECT since, row_number() OVER (ORDER BY since DESC) AS place
      FROM t CROSS JOIN LATERAL (SELECT LEAST(u.since, now) AS since FROM unnest(l.running) AS u(since) WHERE u.since IS NOT NULL) r
      WHERE since + ${lease} > now),
    known AS (SELECT u.client, max(LEAST(u.asked, now)) AS asked, min(u.since) AS since, min(u.due) AS due
      FROM t CROSS JOIN unnest(l.clients, l.clients_asked, l.waits_since, l.waits_due) AS u(client, asked, since, due)
      WHERE u.client IS NOT NULL AND u.asked IS NOT NULL
        AND u.asked + make_interval(secs => GREATEST(keep, ${refreshTimes.limitRememberSeconds}::double precision)) > now
      GROUP BY u.client),
    -- Whom something is kept for, those that hold least first.
    others AS (SELECT client, held, row_number() OVER (ORDER BY held, client COLLATE "C") AS place
      FROM (SELECT client FROM known WHERE client <> ${me} UNION (${registered})) o
      CROSS JOIN LATERAL (SELECT count(*) AS held FROM seen WHERE seen.client = o.client AND in_window) h),
    shares AS (SELECT LEAST(count(*), ${kept})::int AS number,
        CASE WHEN count(*) > 0 AND ${kept} > 0 THEN ${kept} / LEAST(count(*), ${kept})::int ELSE 0 END AS part FROM others),
    mine AS (SELECT part, held < part AND ${isKnown} AS is_below,
        CASE WHEN held >= part AND ${isKnown} THEN number ELSE 0 END AS leaves,
        (SELECT since FROM known CROSS JOIN t WHERE client = ${me} AND due + ${turn} > now AND ${isKnown}) AS since
      FROM shares CROSS JOIN (SELECT count(*) AS held FROM seen WHERE client = ${me} AND in_window) h),
    -- What counts for this client. Of the requests of those that it leaves a part to, only what they had beyond it does, and their
    -- parts are as good as taken.
    counted AS (SELECT at, in_window, row_number() OVER (ORDER BY at DESC) AS place FROM seen CROSS JOIN mine
      WHERE NOT EXISTS (SELECT FROM others WHERE others.client = seen.client AND others.place <= leaves AND own_place <= part)),
    -- Whose turn it is first; of the window, those beside whom a part is kept for. Who was told to wait for a request under way may be
    -- told too long by the time that it travels.
    ahead AS (SELECT count(*) AS number, max(due) + ${turn} AS until,
        count(*) FILTER (WHERE NOT is_kept) AS of_window, max(due) FILTER (WHERE NOT is_kept) + ${turn} AS of_window_until
      FROM t CROSS JOIN mine CROSS JOIN known JOIN others USING (client)
      CROSS JOIN LATERAL (SELECT held < part AND others.place <= leaves AS is_kept) k
      WHERE known.since IS NOT NULL AND due <= now + ${soon} AND due + ${turn} > now
        AND CASE WHEN (held < part) = is_below
          THEN (known.since, client COLLATE "C") < (COALESCE(mine.since, 'infinity'), ${me}) ELSE held < part END),
    free AS (SELECT GREATEST(l.closed_until,
          CASE WHEN ${spacingMs}::double precision > 0 THEN (SELECT at FROM seen WHERE place = 1) + ${spacing} END,
          (SELECT at FROM counted WHERE place = bears) + ${window},
          CASE WHEN (SELECT count(*) FROM running) >= ${concurrency}::int
            THEN LEAST((SELECT since FROM running WHERE place = ${concurrency}::int) + ${lease}, now + ${comeBack}) END) AS at,
        -- Where it is another's turn: until that one has come and the next place is free, or has not come.
        CASE WHEN of_window >= bears - (SELECT count(*) FROM counted WHERE in_window)
          THEN LEAST(of_window_until, (SELECT at FROM counted WHERE place = bears - of_window) + ${window}) END AS turn_of_window_at,
        CASE WHEN number >= LEAST(CASE WHEN ${spacingMs}::double precision > 0 THEN 1 END,
          ${concurrency}::int - (SELECT count(*) FROM running)) THEN until END AS turn_at
      FROM t CROSS JOIN ahead CROSS JOIN (SELECT ${requests} - GREATEST(leaves * part, CASE WHEN is_below THEN 0 ELSE ${leftByPeople} END) AS bears FROM mine) m),
    waits AS (SELECT COALESCE(GREATEST(0,
          EXTRACT(EPOCH FROM GREATEST(free.at, turn_of_window_at, turn_at) - now)), 0)::double precision AS wait
      FROM t CROSS JOIN free),
    asking AS (SELECT * FROM (SELECT client, asked, since, due FROM known WHERE client <> ${me} OR NOT ${isKnown}
      UNION ALL SELECT ${me}, now, CASE WHEN wait > 0 THEN COALESCE(mine.since, now) END,
        CASE WHEN wait > 0 THEN (now + make_interval(secs => wait))::timestamptz(3) END
      FROM t CROSS JOIN waits CROSS JOIN mine WHERE ${isKnown}) a
      ORDER BY asked DESC, client COLLATE "C" LIMIT ${mostClients}::int),
    times AS (SELECT at, client FROM seen
      UNION ALL SELECT now + ${travel}, ${me} FROM t CROSS JOIN waits WHERE wait = 0 AND keep > 0)
    SELECT (SELECT COALESCE(array_agg(at ORDER BY at, client COLLATE "C"), '{}') FROM times),
      (SELECT COALESCE(array_agg(client ORDER BY at, client COLLATE "C"), '{}') FROM times),
      (SELECT COALESCE(array_agg(since ORDER BY since), '{}') FROM running) || CASE WHEN wait = 0 THEN ARRAY[now] ELSE '{}' END,
      keep, now, wait,
      (SELECT COALESCE(array_agg(client ORDER BY asked DESC, client COLLATE "C"), '{}') FROM asking),
      (SELECT COALESCE(array_agg(asked ORDER BY asked DESC, client COLLATE "C"), '{}') FROM asking),
      (SELECT COALESCE(array_agg(since ORDER BY asked DESC, client COLLATE "C"), '{}') FROM asking),
      (SELECT COALESCE(array_agg(due ORDER BY asked DESC, client COLLATE "C"), '{}') FROM asking)
    FROM t CROSS JOIN waits)
    RETURNING l.asked_at AS at, l.wait_seconds AS "waitSeconds"`;
}

/** The provider's other clients that have something to refresh, whether they have asked or not. */
function registeredBeside({ provider, client }: LimitedRequest): Sql.Sql {
  return Sql.sql`SELECT c.id::text FROM clients c WHERE c.provider = ${provider} AND c.id::text <> ${client}
    AND EXISTS (SELECT FROM connections n WHERE n.client_ref = c.id AND n.status = 'connected')`;
}
