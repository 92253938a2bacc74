import type { Mutation } from "../support/faults/mutations.ts";

/** A guard of the protocol, and the tests that must fail without it. */
export type Guard = Mutation & { caughtBy: { project: "unit" | "contract"; files: readonly string[] } };

const unit = (...names: string[]) => ({
  project: "unit" as const,
  files: names.map((name) => `test/unit/${name}.test.ts`),
});
const contract = (...names: string[]) => ({
  project: "contract" as const,
  files: names.map((name) => `test/contract/${name}.test.ts`),
});

/** What holds the protocol up, one by one: without any of them the suite must fail (row 30). */
export const guards: readonly Guard[] = [
  {
    name: "CAS: the permit's owner",
    file: "src/store/row-sql.ts",
    find: "AND c.generation = ${generation} AND c.attempt_id = ${attemptId}::uuid",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "CAS: the authorization of a late answer",
    file: "src/store/grant-rows.ts",
    find: "AND c.authorization_seq = ${place.authorization}",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "lock: its owner is compared before it is deleted",
    file: "src/leases/redis-lease.ts",
    find: 'if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0',
    replace: 'return redis.call("del", KEYS[1])',
    caughtBy: contract("leases"),
  },
  {
    name: "pre-send check: before connecting",
    file: "src/providers/oauth-client.ts",
    find: 'if (!mayStillSend()) return { kind: "window_passed" };',
    replace: "",
    caughtBy: unit("providers/oauth-client"),
  },
  {
    name: "pre-send check: as the request is written",
    file: "src/providers/http-exchange.ts",
    find: "if (!this.#mayStillSend()) {",
    replace: "if (this.#settled) {",
    caughtBy: unit("providers/oauth-client"),
  },
  {
    name: "pre-send check: monotonic time",
    file: "src/tokens/permit.ts",
    find: "clock.monotonicMs() - monotonicMs < budgets.sendWindowMs &&",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "pre-send check: wall time",
    file: "src/tokens/permit.ts",
    find: "&&\n    Math.abs(clock.wallMs() - wallMs) < budgets.sendWindowMs",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "permit: one at a time",
    file: "src/store/permit-rows.ts",
    find: "AND (c.attempt_id IS NULL OR ${takeover === null ? Sql.sql`false` : abandoned(takeover)})",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "permit: not while the connection backs off",
    file: "src/store/permit-rows.ts",
    find: "AND (c.backoff_until IS NULL OR c.backoff_until <= clock_timestamp())",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "permit: not for a row that has gone back in time",
    file: "src/store/permit-rows.ts",
    find: "AND c.gone_back_from IS NULL\n          AND (c.backoff",
    replace: "AND (c.backoff",
    caughtBy: contract("databases"),
  },
  {
    name: "takeover: lease and quiet period are over",
    file: "src/store/permit-rows.ts",
    find: "AND c.lease_until + CASE WHEN ${inGrace} THEN ${seconds(takeover.graceQuietSeconds)}\n      ELSE ${seconds(takeover.quietSeconds)} END <= clock_timestamp()",
    replace: "",
    caughtBy: contract("databases"),
  },
  {
    name: "takeover: the attempt that was seen",
    file: "src/store/permit-rows.ts",
    find: "(c.attempt_id = ${takeover.seenAttemptId}::uuid\n    AND",
    replace: "(",
    caughtBy: contract("databases"),
  },
  {
    name: "takeover: ten seconds of uninterrupted Postgres",
    file: "src/tokens/takeover.ts",
    find: " || recoverer.uninterruptedMs < budgets.uninterruptedMs",
    replace: "",
    caughtBy: unit("tokens/takeover"),
  },
  {
    name: "takeover: what `reuse` allows",
    file: "src/tokens/takeover.ts",
    find: 'promptly: recoverer.need === "required" || promptReuse.has(rules.reuse),',
    replace: "promptly: true,",
    caughtBy: unit("tokens/takeover"),
  },
  {
    name: "takeover: the replay ends inside the grace window",
    file: "src/store/permit-rows.ts",
    find: "(clock_timestamp() + interval '30 seconds'\n    < c.attempt_started_at + ${seconds(takeover.graceSeconds)})",
    replace: "(${takeover.graceSeconds} > 0)",
    caughtBy: contract("databases"),
  },
  {
    name: "takeover: spools are asked first",
    file: "src/tokens/refresh.ts",
    find: "const isBarred = takesOver && !(await isCleared(flight, sendable));",
    replace: "const isBarred = false;",
    caughtBy: contract("databases"),
  },
  {
    name: "takeover: with a silent Redis only what loses nothing",
    file: "src/tokens/refresh.ts",
    find: 'cleared === "silent" && !mustHearSpools(row, definition.refresh)',
    replace: 'cleared === "silent"',
    caughtBy: contract("databases"),
  },
  {
    name: "persist first: no token is handed out before its first durable copy",
    file: "src/tokens/keeping.ts",
    find: "const kept: Kept = soon ?? (await Promise.race([storing, spooled]));",
    replace: "const kept: Kept = asSpooled(answer);",
    caughtBy: unit("tokens/keeping"),
  },
  {
    name: "persist first: the spool after 200 ms",
    file: "src/tokens/keeping.ts",
    find: "spoolPatiently(one).then(asKept)",
    replace: "storing",
    caughtBy: unit("tokens/keeping"),
  },
  {
    name: "spool: nothing is deleted before the row has it",
    file: "src/tokens/recovery.ts",
    find: "const fate = await placeAnswer(parts, record);\n    await spools.remove(entry);",
    replace: "await spools.remove(entry);\n    const fate = await placeAnswer({ rows, vault }, record);",
    caughtBy: unit("tokens/recovery"),
  },
  {
    name: "late answers: promotion",
    file: "src/tokens/late-answers.ts",
    find: "return row.generation <= generation || hasEnded;",
    replace: "return false;",
    caughtBy: unit("tokens/late-answers"),
  },
  {
    name: "late answers: what was stored once does not come back",
    file: "src/tokens/late-answers.ts",
    find: 'if (row.lastAttemptId === record.attemptId || (await rows.wasStored(record))) return { kind: "stored", row };\n  if (isPromotable',
    replace: "if (isPromotable",
    caughtBy: unit("tokens/late-answers"),
  },
  {
    name: "candidates: tried before the grant ends",
    file: "src/tokens/attempt.ts",
    find: "if (candidate === null) return null;",
    replace: "if (candidate !== null || true) return null;",
    caughtBy: contract("databases"),
  },
  {
    name: "restored database: rows behind their marks are held",
    file: "src/tokens/refresh.ts",
    find: "return mark === null || mark.generation <= row.generation ? null : await hold(parts, row, mark);",
    replace: "return mark === undefined ? await hold(parts, row, row) : null;",
    caughtBy: contract("databases"),
  },
  {
    name: "versions: an attempt has one of its own",
    file: "src/store/row-sql.ts",
    find: "GREATEST(c.version, c.version_floor) + 1 + c.attempt_replays",
    replace: "GREATEST(c.version, c.version_floor) + 1",
    caughtBy: contract("databases"),
  },
];
