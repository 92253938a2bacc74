import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { Database } from "./database.ts";
import { seconds } from "./row-sql.ts";

/** How many requests a key bears. Null, or 0: no limit. */
export type LimitRules = {
  /** At a time. */
  concurrency: number | null;
  /** From one to the next. */
  spacingMs: number;
  maxPerWindow: { requests: number; seconds: number } | null;
};

/** A request that wants to be sent now. */
export type LimitedRequest = {
  key: string;
  rules: LimitRules;
  /** Counted, and let through whatever the rules say. */
  isNote: boolean;
  /** By when after its admission the provider will have got it, at the latest. */
  travelSeconds: number;
  /** From its admission; then it counts as come back. */
  leaseSeconds: number;
};

/** Of an admitted request: what `settle` finds it by. */
export type Admitted = { key: string; at: Date; travelSeconds: number };

export type Admission = { admitted: Admitted } | { admitted: null; waitSeconds: number };

export type RequestLimits = ReturnType<typeof createRequestLimits>;

/** A wait for one of those that run is told to be no longer: they come back any moment. */
const comeBackSeconds = 1;

/**
 * The limits of token endpoints, kept by the lock of one row for each key and by Postgres's clock. A request counts from
 * the moment at which the provider has got it at the latest, so that what the provider sees never exceeds the rules.
 */
export function createRequestLimits({ prisma }: Pick<Database, "prisma">) {
  return {
    /** Lets the request through and counts it, or says in how many seconds to ask again. */
    async admit(request: LimitedRequest): Promise<Admission> {
      const { key, travelSeconds } = request;
      const [asked] = await prisma.$queryRaw<{ at: Date; waitSeconds: number }[]>(admission(request));
      if (asked === undefined) throw new Error("an upsert has returned no row");
      const { at, waitSeconds } = asked;
      return waitSeconds === 0 ? { admitted: { key, at, travelSeconds } } : { admitted: null, waitSeconds };
    },

    /**
     * An admitted request is over. `sent` false: it never left, and does not count. `closeSeconds`: for so long nobody is
     * let through; a time that was set before is not made shorter.
     */
    async settle(admitted: Admitted, given: { sent: boolean; closeSeconds: number }): Promise<void> {
      const { key, at, travelSeconds } = admitted;
      // The provider has answered, so it has got the request by now.
      const seen = given.sent ? Sql.sql`ARRAY[LEAST(l.seen_by[i], clock_timestamp())]` : Sql.sql`'{}'::timestamptz[]`;
      await prisma.$executeRaw`UPDATE request_limits l SET
        running = COALESCE((SELECT l.running[:i - 1] || l.running[i + 1:]
          FROM array_position(l.running, ${at}::timestamptz) AS i WHERE i IS NOT NULL), l.running),
        seen_by = COALESCE((SELECT l.seen_by[:i - 1] || ${seen} || l.seen_by[i + 1:]
          FROM array_position(l.seen_by, ${at}::timestamptz + ${seconds(travelSeconds)}) AS i WHERE i IS NOT NULL), l.seen_by),
        closed_until = GREATEST(l.closed_until, CASE WHEN ${given.closeSeconds}::double precision > 0
          THEN clock_timestamp() + ${seconds(given.closeSeconds)} END)
        WHERE l.key = ${key}`;
    },
  };
}

/** The row is locked before its values and the clock are read: in DO UPDATE they are those of after the wait for the lock. */
function admission({ key, rules, isNote, travelSeconds, leaseSeconds }: LimitedRequest): Sql.Sql {
  const { concurrency, spacingMs, maxPerWindow } = rules;
  const keep = Math.max(spacingMs / 1000, maxPerWindow?.seconds ?? 0);
  const spacing = seconds(spacingMs / 1000);
  const window = seconds(maxPerWindow?.seconds ?? 0);
  const travel = seconds(travelSeconds);
  const lease = seconds(leaseSeconds);
  const comeBack = seconds(comeBackSeconds);
  const clock = Sql.sql`(SELECT clock_timestamp()::timestamptz(3) AS now) t`;
  return Sql.sql`
    INSERT INTO request_limits AS l (key, seen_by, running, keep_seconds, asked_at, wait_seconds)
    SELECT ${key}, CASE WHEN ${keep}::double precision > 0 THEN ARRAY[now + ${travel}] ELSE '{}' END, ARRAY[now],
      ${keep}::double precision, now, 0 FROM ${clock}
    ON CONFLICT (key) DO UPDATE SET (seen_by, running, keep_seconds, asked_at, wait_seconds) = (
      SELECT CASE WHEN wait = 0 AND keep > 0 THEN seen_by || (now + ${travel}) ELSE seen_by END,
        CASE WHEN wait = 0 THEN running || now ELSE running END, keep, now, wait
      FROM ${clock}
      CROSS JOIN LATERAL (SELECT GREATEST(l.keep_seconds, ${keep}::double precision) AS keep) k
      CROSS JOIN LATERAL (SELECT COALESCE(array_agg(seen ORDER BY seen), '{}') AS seen_by
        FROM unnest(l.seen_by) AS u(at) CROSS JOIN LATERAL (SELECT LEAST(at, now + ${travel}) AS seen) c
        WHERE seen + make_interval(secs => keep) > now) s
      CROSS JOIN LATERAL (SELECT COALESCE(array_agg(since ORDER BY since), '{}') AS running
        FROM unnest(l.running) AS u(at) CROSS JOIN LATERAL (SELECT LEAST(at, now) AS since) c
        WHERE since + ${lease} > now) r
      CROSS JOIN LATERAL (SELECT CASE WHEN NOT ${isNote}::boolean THEN GREATEST(l.closed_until,
        CASE WHEN ${spacingMs}::double precision > 0 THEN seen_by[cardinality(seen_by)] + ${spacing} END,
        seen_by[cardinality(seen_by) + 1 - ${maxPerWindow?.requests ?? null}::int] + ${window},
        CASE WHEN cardinality(running) >= ${concurrency}::int
          THEN LEAST(running[cardinality(running) + 1 - ${concurrency}::int] + ${lease}, now + ${comeBack}) END
      ) END AS free_at) f
      CROSS JOIN LATERAL (SELECT COALESCE(GREATEST(EXTRACT(EPOCH FROM free_at - now), 0), 0)::double precision AS wait) w)
    RETURNING l.asked_at AS at, l.wait_seconds AS "waitSeconds"`;
}
