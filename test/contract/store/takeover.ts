import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TokenRow } from "../../../src/store/token-row.ts";
import {
  mayTakeOver,
  abandonedRule,
  refreshableStatuses,
  type ReuseRules,
  takeoverOf,
} from "../../../src/tokens/row-rules.ts";
import { refreshTimes } from "../../../src/time.ts";
import type { StoreStage } from "./stage.ts";

/** Half seconds, since every bound is a whole second: so the time between reading and the statement seldom matters. */
const offset = (min: number, max: number) => fc.integer({ min, max }).map((seconds) => seconds + 0.5);

/** A row with an attempt in it, its times relative to now, in seconds. */
const attempts = fc.record({
  lease: offset(-45, 5),
  started: offset(-120, -1),
  expires: fc.option(offset(-5, 5)),
  backoff: fc.option(offset(-5, 2), { freq: 3 }),
  outcome: fc.constantFrom(null, "unknown"),
  status: fc.constantFrom<TokenRow["status"][]>("connected", "connected", "connected", "pending", "disabled"),
  grant: fc.constantFrom("authorization_code", "client_credentials", "password"),
  hasRefreshToken: fc.boolean(),
});

const recoverers = fc.record({
  need: fc.constantFrom("required" as const, "ahead" as const),
  uninterruptedMs: fc.constantFrom(9999, 10_000, 10_000, 10_000),
});

const rules: fc.Arbitrary<ReuseRules> = fc.record({
  reuse: fc.constantFrom("safe", "grace", "until_successor_used", "dead", "kills_family", "kills_family"),
  graceSeconds: fc.integer({ min: 1, max: 150 }),
});

type Attempt = typeof attempts extends fc.Arbitrary<infer Value> ? Value : never;

function at(seconds: number | null): string {
  return seconds === null ? "NULL" : `clock_timestamp() + make_interval(secs => ${seconds}::double precision)`;
}

async function put(stage: StoreStage, id: string, attempt: Attempt): Promise<TokenRow> {
  const outcome = attempt.outcome === null ? "NULL" : `'${attempt.outcome}'`;
  await stage.set(
    id,
    `attempt_id = gen_random_uuid(), attempt_started_at = ${at(attempt.started)}, lease_until = ${at(attempt.lease)},
     attempt_outcome = ${outcome}, expires_at = ${at(attempt.expires)}, backoff_until = ${at(attempt.backoff)},
     status = '${attempt.status}', grant_type = '${attempt.grant}',
     refresh_token_sealed = ${attempt.hasRefreshToken ? "'\\x01'" : "NULL"}`,
  );
  return await stage.row(id);
}

/** The takeover rule stands twice, in TypeScript and in SQL. */
export function takeover(stage: () => StoreStage): void {
  describe("the two halves of the takeover rule", () => {
    it("mayTakeOver says of a row what the permit statement does with it", async () => {
      const { id, generation } = await stage().connect();
      const seen = { true: 0, false: 0 };
      const given = fc.record({ attempt: attempts, reuse: rules, recoverer: recoverers });
      const property = fc.asyncProperty(given, async ({ attempt, reuse, recoverer }) => {
        const row = await put(stage(), id, attempt);
        const permitted = await stage().rows.takePermit({
          connectionId: id,
          generation,
          attemptId: randomUUID(),
          leaseSeconds: refreshTimes.leaseSeconds,
          statuses: refreshableStatuses(row.grant),
          ifAbandoned: abandonedRule(row, reuse),
          exclusive: true,
          takeover: takeoverOf(row, reuse, recoverer),
        });
        // The rule for the row as it was read, and with the time after the statement. If the time between them has decided, either is right.
        const { now } = permitted ?? (await stage().row(id));
        const foretold = [mayTakeOver(row, reuse, recoverer), mayTakeOver({ ...row, now }, reuse, recoverer)];
        expect(foretold).toContain(permitted !== null);
        seen[`${permitted !== null}`]++;
      });
      await fc.assert(property, { numRuns: 100 * stage().share });
      // Both answers occur often enough for the comparison to mean something. In a part of the runs they may not.
      if (stage().share === 1) expect(Math.min(seen.true, seen.false)).toBeGreaterThan(10);
    });
  });
}
