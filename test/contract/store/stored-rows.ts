import { randomUUID } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nextGeneration, type TokenRow } from "../../../src/store/token-row.ts";
import { asStored } from "../../../src/tokens/persist.ts";
import { type AnswerRecord, grantDestination } from "../../../src/tokens/seal.ts";
import { sealedBytes, sealedGrant, type StoreStage } from "./stage.ts";

/** What a row may hold when an answer to it comes; times in seconds from now. */
const rows = fc.record({
  hasAttempt: fc.boolean(),
  replays: fc.nat(2),
  version: fc.nat(3),
  floorAhead: fc.nat(2),
  status: fc.constantFrom<TokenRow["status"][]>(
    "connected",
    "connected",
    "pending",
    "disabled",
    "needs_reauthorization",
  ),
  authorizedAgo: fc.option(fc.constantFrom(-100, 100)),
  goneBackBy: fc.option(fc.constantFrom(1, 3), { freq: 4 }),
  refusals: fc.nat(2),
  isUntried: fc.boolean(),
  backoff: fc.option(fc.constantFrom(-5, 60)),
});

/** The parts of an answer that decide what is stored beside its tokens. */
const answers = fc.record({
  kind: fc.constantFrom("refresh" as const, "grant" as const),
  lifeSeconds: fc.option(fc.constantFrom(-1, 0, 1, 3600)),
  hasAccessToken: fc.boolean(),
  keepsRefreshToken: fc.boolean(),
  grantedScopes: fc.option(fc.constantFrom<string[][]>(["read"], ["read", "write"])),
  isUnusable: fc.boolean(),
  isUnreadable: fc.boolean(),
  isLacking: fc.boolean(),
  isExclusive: fc.boolean(),
  clientId: fc.option(fc.constant("app")),
  account: fc.option(fc.constantFrom({ account: "a2", label: "Ada" }, { account: null, label: null }), {
    nil: undefined,
  }),
});

type State = typeof rows extends fc.Arbitrary<infer Value> ? Value : never;
type Answered = typeof answers extends fc.Arbitrary<infer Value> ? Value : never;

const at = (seconds: number | null) =>
  seconds === null ? "NULL" : `clock_timestamp() + make_interval(secs => ${seconds})`;

async function put(stage: StoreStage, id: string, state: State): Promise<TokenRow> {
  const { version, floorAhead, goneBackBy, refusals } = state;
  await stage.set(
    id,
    `attempt_id = ${state.hasAttempt ? "gen_random_uuid()" : "NULL"}, attempt_replays = ${state.replays}, version = ${version},
     attempt_started_at = ${at(state.hasAttempt ? -3 : null)}, lease_until = ${at(state.hasAttempt ? 27 : null)},
     version_floor = ${version + floorAhead}, status = '${state.status}', enabled_status = 'connected',
     authorized_at = ${at(state.authorizedAgo === null ? null : -state.authorizedAgo)},
     gone_back_from = ${goneBackBy === null ? "NULL" : `generation + ${goneBackBy}`}, refusals = ${refusals},
     probably_dead_since = ${at(refusals > 1 ? -1 : null)}, untried = ${state.isUntried}, backoff_until = ${at(state.backoff)},
     consecutive_failures = ${refusals}, last_error_code = 'provider_error', account = 'a1', account_label = 'Al',
     looked_up = authorization_seq, in_use = true, refresh_token_expires_at = ${at(86_400)}`,
  );
  return await stage.row(id);
}

function recordOf(row: TokenRow, answered: Answered): AnswerRecord {
  const { kind, lifeSeconds, account } = answered;
  const issuedAt = row.now;
  const grant = sealedGrant({
    accessToken: answered.hasAccessToken ? sealedBytes() : null,
    grantedScopes: answered.grantedScopes,
    captured: { shop: "north" },
    redirectUri: "https://broker.example/callback/own",
    issuedAt,
    expiresAt: lifeSeconds === null ? null : new Date(issuedAt.getTime() + lifeSeconds * 1000),
    refreshTokenExpiresAt: new Date(issuedAt.getTime() + 7_200_000),
    keepsRefreshToken: answered.keepsRefreshToken,
    noRefreshTokenSince: answered.isLacking ? issuedAt : null,
    unreadableLifetime: answered.isUnreadable,
    lastError: answered.isUnusable ? { code: "unusable_token", detail: "odd" } : null,
    keepAliveAt: new Date(issuedAt.getTime() + 3_000_000),
  });
  const isGrant = kind === "grant";
  return {
    kind,
    connectionId: row.id,
    generation: row.generation,
    authorization: row.authorization,
    destination: grantDestination(row, []),
    attemptId: isGrant ? randomUUID() : (row.attemptId ?? ""),
    event: isGrant ? "reconnected" : "refreshed",
    sealedFor: nextGeneration(row),
    grant,
    ...(isGrant && { clientId: answered.clientId, exclusive: answered.isExclusive }),
    ...(isGrant && account && { account }),
  };
}

async function store(stage: StoreStage, row: TokenRow, record: AnswerRecord): Promise<TokenRow | null> {
  if (record.kind === "refresh") return await stage.rows.commitRefresh(record, record.grant, {});
  const { attemptId, grant, clientId, account, exclusive = false } = record;
  const event = { type: record.event, detail: {} };
  return await stage.rows.replaceGrant({ ...row, attemptId }, grant, { event, exclusive, clientId, account });
}

/** Bytes as text, so that two rows can be compared, whichever type holds the bytes. */
const comparable = (row: TokenRow) =>
  Object.fromEntries(
    Object.entries(row).map(([name, value]) => [
      name,
      value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value,
    ]),
  );

/** While Postgres is away, a caller gets the row as it will be stored: TypeScript must foretell what the statements store. */
export function storedRows(stage: () => StoreStage): void {
  describe("the row that a spooled answer foretells", () => {
    it("is the one that the statement stores, in every column but the clock's", async () => {
      const { id } = await stage().connect();
      const seen = { refresh: 0, grant: 0, over: 0 };
      const given = fc.record({ state: rows, answered: answers });
      const property = fc.asyncProperty(given, async ({ state, answered }) => {
        const isRefresh = answered.kind === "refresh";
        // Only a row that is not suspended can have a permit.
        const row = await put(stage(), id, isRefresh ? { ...state, hasAttempt: true, goneBackBy: null } : state);
        const record = recordOf(row, answered);
        const foretold = asStored(row, record);
        const stored = await store(stage(), row, record);
        if (stored === null) throw new Error("the statement has found another row");
        // Only Postgres knows its clock. A foretold back-off counts from when the token was issued, so it ends no later than the stored one.
        const { now: _then, backoffUntil: foretoldUntil, ...foretoldColumns } = comparable(foretold);
        const { now: _now, backoffUntil: storedUntil, ...storedColumns } = comparable(stored);
        expect(foretoldColumns).toEqual(storedColumns);
        expect(foretoldUntil === null).toBe(storedUntil === null);
        expect(Number(foretoldUntil)).toBeLessThanOrEqual(Number(storedUntil));
        seen[answered.kind]++;
        if (isRefresh && storedUntil !== null) seen.over++;
      });
      await fc.assert(property, { numRuns: 200 * stage().share });
      // Of a part of them nobody can say how many are of which kind.
      if (stage().share === 1) expect(Math.min(seen.refresh, seen.grant, seen.over)).toBeGreaterThan(20);
    });
  });
}
