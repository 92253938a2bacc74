import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import type { Clock } from "../../../src/clock.ts";
import { createMemoryLeases, type Leases, type RefreshNews } from "../../../src/coordination/leases.ts";
import { BrokerError, type UnreadableSecretError } from "../../../src/errors.ts";
import type { Catalog } from "../../../src/providers/load/catalog.ts";
import type { Failure, Grant, TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import type { OAuthClient } from "../../../src/providers/oauth/oauth-client.ts";
import { createAccountRows } from "../../../src/store/accounts.ts";
import { createRequestLimits, type RequestLimits } from "../../../src/store/request-limits.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { createDatabaseClock, createTokenCache } from "../../../src/tokens/cache.ts";
import type { RefreshObserver } from "../../../src/tokens/core.ts";
import { createGrantEnds } from "../../../src/tokens/grant-ends.ts";
import { createRequestLimiter } from "../../../src/tokens/limits.ts";
import { createAnswerStore, type AnswerStore } from "../../../src/tokens/persist.ts";
import { createRecovery, createSpools, type Recovery } from "../../../src/tokens/recovery.ts";
import { createRefresh, createPostponedPlans, type RefreshOutcome } from "../../../src/tokens/refresh.ts";
import { createSender } from "../../../src/tokens/request.ts";
import type { Need } from "../../../src/tokens/row-rules.ts";
import { clientDestination, placeOf, schedulerFor, sealGrant } from "../../../src/tokens/seal.ts";
import { createWaiting } from "../../../src/tokens/waiting.ts";
import { noAccounts, noAlarms, noDiscovery, noOtherKeys } from "../../support/unasked.ts";
import { define } from "../../unit/providers/definitions.ts";
import { fakeClock } from "../../unit/tokens/fake-clock.ts";
import { memoryMarks, type MemoryMarks, memorySpool, type MemorySpool } from "../../unit/tokens/memory-places.ts";
import { type StoreStage, vault } from "../store/stage.ts";

/** What a provider does with one request. */
export type Step = () => Promise<TokenAnswer> | TokenAnswer;

/** A token request as it was sent, and the permit that stood in the row at that moment. */
export type Sent = { url: string; fields: Record<string, string>; permit: string | null };

export { vault };

const outside = {
  discovery: noDiscovery,
  redirectUri: (id: string) => `https://broker.example/callback/${id}`,
  subjectToken: () => Promise.reject(new Error("no further tokens here")),
};
const definitionOf = (
  reuse: string,
  { revocationKills = "all", limits = "{}", response = "{}", perShop = false, refreshesMachines = false } = {},
) =>
  define(
    `${perShop ? "inputs: { shop: { description: the shop, pattern: '^[a-z]+$' } }" : ""}
grants: [authorization_code, client_credentials, password, import]
token:
  url: https://${perShop ? "{inputs.shop}" : "login"}.example/token
  client_auth: body
  grants:
    client_credentials: { fields: {} ${refreshesMachines ? ", refresh: {} " : ""}}
    password: { fields: { username: "{credentials.username}", password: "{credentials.password}" } }
revocation: { url: https://login.example/revoke, kills: ${revocationKills} }
refresh: ${reuse}
response: ${response}
limits: ${limits}`,
    `id: own\nauthorization: { url: https://login.example/authorize }`,
  );

const givingUser = `{ extra_tokens: [{ name: user, access_token: /user/access_token, refresh_token: /user/refresh_token }] }`;

/** As if lease and quiet period of the attempt, and the back-off, were over. */
export const abandoned = `lease_until = clock_timestamp() - interval '11 seconds',
  attempt_started_at = clock_timestamp() - interval '41 seconds', backoff_until = NULL`;

/** Access and refresh token of a row, in the clear; null where one is lacking. */
export function tokensOf(row: TokenRow | null): [string, string] | null {
  const { accessToken = null, refreshToken = null } = row ?? {};
  if (row === null || accessToken === null || refreshToken === null) return null;
  const place = placeOf(row);
  return [vault.openAccessToken(accessToken, place), vault.openRefreshToken(refreshToken, place)];
}

export function granted(changes: Partial<Grant> = {}): TokenAnswer {
  const accessToken = `access ${randomUUID()}`;
  const refreshToken = `refresh ${randomUUID()}`;
  const accessExpiry = { kind: "in", seconds: 3600 } as const;
  const rest = { tokenType: "Bearer", refreshExpiry: { kind: "unstated" } as const, captured: {} };
  return { kind: "granted", grant: { accessToken, refreshToken, accessExpiry, ...rest, ...changes } };
}

export function failed(failure: Pick<Failure, "class" | "code"> & Partial<Failure>): TokenAnswer {
  return { kind: "failed", failure: { detail: "as scripted", ...failure } };
}

export const dead = failed({ class: "refused_for_good", code: "invalid_grant", status: 400 });
export const busy = failed({ class: "refused_for_now", code: "rate_limited", status: 429 });
export const badSecret = failed({ class: "client_rejected", code: "invalid_client", status: 401 });
export const unexplained = failed({
  class: "refused_for_now",
  code: "provider_unavailable",
  status: 400,
  isUnexplained: true,
});
export const silent = failed({ class: "unknown", code: "outcome_unknown" });

type Options = {
  /** The `refresh` rules of the provider, in YAML. */
  rules?: string;
  /** False: the provider's definition is gone. */
  isKnown?: boolean;
  uninterruptedMs?: number;
  /** What a revocation at the provider ends. */
  revocationKills?: "token" | "all";
  /** The `limits` of the provider, in YAML. */
  limits?: string;
  /** The provider also gives a token with the name "user". */
  givesUser?: boolean;
  /** An input of the connection decides the host. */
  perShop?: boolean;
  /** Client credentials have a refresh token, which the definition has a request for. */
  refreshesMachines?: boolean;
  /** Replaces methods of the store of limits. */
  requestLimits?: Partial<RequestLimits>;
  /** Another replica, with which this one shares locks, messages, spool and marks; else it is alone with the store. */
  beside?: RefreshBench;
  isDraining?: () => boolean;
  /** Whether another replica has the keys that this one lacks. */
  othersHaveKeys?: boolean;
  /** Changes to what the store does. */
  rows?: (rows: TokenStatements) => Partial<TokenStatements>;
};

/**
 * One replica's refresh core: real but for its clock, for spool and marks, which are in memory, and for the provider, which
 * does what `script` says. Time is this bench's own, apart from Postgres's.
 */
export class RefreshBench {
  readonly stage: StoreStage;
  readonly clock = fakeClock({ realMs: 5 });
  readonly leases: Leases;
  readonly rows: TokenStatements;
  readonly refresh;
  readonly grantEnds;
  readonly answerStore: AnswerStore;
  readonly recovery: Recovery;
  readonly spool: MemorySpool;
  readonly marks: MemoryMarks;
  readonly script: Step[] = [];
  /** Rows that the broker has noted as locked by others. */
  readonly busyRows: string[] = [];
  readonly sent: Sent[] = [];
  /** Tokens that were revoked. */
  readonly revoked: string[] = [];
  /** What the observer was told. */
  readonly seen: string[] = [];
  /** Rows that the cache got in another way than by a refresh. */
  readonly learnt: TokenRow[] = [];
  /** Generations of sets that were asked about at the provider. */
  readonly followed: number[] = [];
  readonly news: RefreshNews[] = [];
  /** Runs after the permit is given and before the request is sent. */
  beforeSending: () => void = () => {};
  #connection = "";

  constructor(
    stage: StoreStage,
    { rules = "{}", isKnown = true, uninterruptedMs = 10_000, beside, rows, ...options }: Options = {},
  ) {
    this.stage = stage;
    this.leases = beside?.leases ?? createMemoryLeases(this.clock);
    this.spool = beside?.spool ?? memorySpool();
    this.marks = beside?.marks ?? memoryMarks();
    this.rows = { ...stage.rows, ...rows?.(stage.rows) };
    const { othersHaveKeys = false } = options;
    const {
      givesUser = false,
      perShop = false,
      refreshesMachines = false,
      revocationKills = "all",
      limits: limitRules = "{}",
    } = options;
    const response = givesUser ? givingUser : "{}";
    const definition = definitionOf(rules, {
      revocationKills,
      limits: limitRules,
      response,
      perShop,
      refreshesMachines,
    });
    const count = { all: 1, own: 0 };
    const catalog: Catalog = { get: () => (isKnown ? definition : undefined), list: async () => [definition], count };
    const { clients, tombstones } = stage;
    this.leases.listen((news) => void this.news.push(news));
    const common = {
      rows: this.rows,
      accounts: givesUser ? createAccountRows(stage.database, vault) : noAccounts,
      lookups: {
        followUp: async (_: unknown, row: TokenRow) => {
          this.followed.push(row.generation);
          return row;
        },
      },
      clients,
      tombstones,
      leases: this.leases,
      marks: this.marks,
      sender: createSender({
        catalog,
        oauth: this.#provider(),
        clients,
        vault,
        clock: this.clock,
        rows: this.rows,
        accounts: createAccountRows(stage.database, vault),
        alarms: noAlarms,
        ...outside,
      }),
      spools: createSpools({ places: [this.spool], onError: (place) => void this.seen.push(`${place} fails`) }),
      vault,
      keys: {
        ...noOtherKeys,
        isSilent: async (error: UnreadableSecretError) => othersHaveKeys && error.reason === "unknown_key",
      },
      alarms: noAlarms,
      clock: this.clock,
      random: () => 0.5,
      observer: this.#observer(),
      learn: (row: TokenRow) => void this.learnt.push(row),
    };
    const patient = whoseDeadlinesPassWithIt(this.clock);
    const limits = { ...createRequestLimits(stage.database), ...options.requestLimits };
    this.answerStore = createAnswerStore({ ...common, clock: patient });
    const onError = (error: unknown) => void this.seen.push(String(error));
    this.recovery = createRecovery({ ...common, answerStore: this.answerStore, onError });
    const cache = createTokenCache({ ...common, databaseClock: createDatabaseClock(this.clock) });
    const requestLimiter = createRequestLimiter({ limits, sender: common.sender, clock: this.clock, onError });
    const parts = {
      ...common,
      limits: requestLimiter,
      answerStore: this.answerStore,
      recovery: this.recovery,
      waiting: createWaiting(common),
      health: {
        answered() {},
        lost() {},
        rowWasBusy: (id: string) => void this.busyRows.push(id),
        losses: () => 0,
        uninterruptedMs: () => uninterruptedMs,
      },
      lifecycle: {
        get isDraining() {
          return options.isDraining?.() ?? false;
        },
      },
      postponedPlans: createPostponedPlans(),
    };
    this.refresh = createRefresh(parts);
    this.grantEnds = createGrantEnds({
      ...parts,
      accounts: createAccountRows(stage.database, vault),
      cache,
      clock: patient,
    });
  }

  /** What the row holds when no answer is on its way to it any more. */
  async settledRow(id: string): Promise<TokenRow> {
    await this.answerStore.idle();
    return await this.stage.row(id);
  }

  /** Refreshes the connection as it stands now, with these answers of the provider. */
  async run(id: string, script: (TokenAnswer | Step)[], need: Need = "required"): Promise<RefreshOutcome> {
    return await this.runFrom(await this.stage.row(id), script, need);
  }

  /** The same from a row that was read before. */
  async runFrom(row: TokenRow, script: (TokenAnswer | Step)[], need: Need = "required"): Promise<RefreshOutcome> {
    this.#connection = row.id;
    this.script.push(...script.map((step) => (typeof step === "function" ? step : () => step)));
    return await this.refresh(row, need);
  }

  /** Orders one more try with the refresh token of an ended connection. Returns the refusal, or null. */
  async retry(
    id: string,
    script: (TokenAnswer | Step)[],
    given: { by: string; force: boolean } = { by: "k1", force: false },
  ): Promise<BrokerError | null> {
    this.#connection = id;
    this.script.push(...script.map((step) => (typeof step === "function" ? step : () => step)));
    return await refusedWith(this.grantEnds.retry(id, given));
  }

  /** Refresh tokens, or grant types where there was none, in the order in which they were sent. */
  get requests(): string[] {
    return this.sent.map(({ fields }) => fields["refresh_token"] ?? fields["grant_type"] ?? "");
  }

  #provider(): Pick<OAuthClient, "requestToken" | "ask"> {
    return {
      requestToken: async ({ request, mayStillSend }) => {
        this.beforeSending();
        if (!mayStillSend()) return failed({ class: "not_sent", code: "send_window_passed" });
        const fields = Object.fromEntries(new URLSearchParams(request.body));
        const [row] = await this.stage.query<{ id: string }>(
          "SELECT attempt_id::text AS id FROM connections WHERE id = $1::uuid",
          this.#connection,
        );
        this.sent.push({ url: request.url, fields, permit: row?.id ?? null });
        const step = this.script.shift();
        if (step === undefined) throw new Error("the provider was asked once more than the test foresees");
        return await step();
      },
      ask: async ({ request }) => {
        this.revoked.push(new URLSearchParams(request.body).get("token") ?? "");
        return { ok: true, status: 200, body: null, detail: "" };
      },
    };
  }

  #observer(): RefreshObserver {
    return {
      succeeded: (_context, { replay }) => void this.seen.push(replay ? "succeeded, replay" : "succeeded"),
      failed: (_context, { failure, replay }) => void this.seen.push(`${failure.code}${replay ? ", replay" : ""}`),
      commitDelayed: () => void this.seen.push("commit delayed"),
      durable: () => {},
      cameLate: (_row, placement) => void this.seen.push(`came late: ${placement}`),
      drained: () => void this.seen.push("drained"),
      lost: () => void this.seen.push("lost"),
      suspendedAfterRestore: () => void this.seen.push("held after restore"),
      probablyDead: () => void this.seen.push("probably dead"),
      oldSecretUsed: () => void this.seen.push("old secret used"),
    };
  }
}

/** Null: nothing was refused. */
export async function refusedWith(work: Promise<unknown>): Promise<BrokerError | null> {
  try {
    await work;
    return null;
  } catch (error) {
    if (error instanceof BrokerError) return error;
    throw error;
  }
}

/** A clock whose deadlines pass only if something else makes time pass: a store that answers is always in time. */
function whoseDeadlinesPassWithIt(clock: Clock): Clock {
  return {
    ...clock,
    async sleep(ms, signal) {
      if (signal === undefined) return await clock.sleep(ms);
      const endMs = clock.monotonicMs() + ms;
      while (!signal.aborted && clock.monotonicMs() < endMs) await setTimeout(1);
    },
  };
}

/** A connection whose access token has run out, with the refresh token "first". */
export async function connectExpired(
  stage: StoreStage,
  changes: Parameters<StoreStage["insert"]>[0] = {},
  { refreshToken = "first", captured = {} }: { refreshToken?: string; captured?: Record<string, string> } = {},
): Promise<TokenRow> {
  const clientRef = await makeClient(stage, { changed: false });
  const row = await stage.insert({ clientRef, ...changes });
  const grant: Grant = {
    accessToken: "old access",
    refreshToken,
    tokenType: "Bearer",
    accessExpiry: { kind: "in", seconds: 0 },
    refreshExpiry: { kind: "unstated" },
    captured,
  };
  const rules = definitionOf("{}").refresh;
  const base = { ...row, rotation: rules.rotation, refreshToken: null, impliedScopes: row.scopes };
  const scheduler = schedulerFor(rules, () => 0.5);
  const hosts = Object.keys(row.inputs);
  const generation = row.generation + 1;
  const sealed = sealGrant(vault, base, { grant, generation, sentAt: row.now, scheduler, hosts });
  const given = { ...row, attemptId: randomUUID() };
  const event = { type: "connected" as const, detail: {} };
  const stored = await stage.rows.replaceGrant(given, sealed, { event, exclusive: false });
  if (stored === null) throw new Error("the connection did not take its grant");
  return stored;
}

/** A client with the secrets "new", and "old" where it has been changed. */
export async function makeClient(stage: StoreStage, { changed }: { changed: boolean }): Promise<string> {
  const id = randomUUID();
  const destination = clientDestination({ id, name: `app-${id}`, provider: "own", inputs: {} });
  const seal = (secret: string, revision: number) =>
    vault.sealClientSecret(secret, { clientId: id, revision, destination });
  const rest = {
    secretRevision: 0,
    scopes: [],
    patterns: [],
    inputs: {},
    ownRedirectUri: false,
    secret: seal(changed ? "old" : "new", 0),
  };
  const client = await stage.clients.insert({ id, name: `app-${id}`, provider: "own", clientId: "app", ...rest });
  if (changed) await stage.clients.change(client, { secret: seal("new", 1) }, ["%"]);
  return id;
}
