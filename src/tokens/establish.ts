import { randomUUID } from "node:crypto";
import type { Clock } from "../clock.ts";
import { BrokerError, connectionNotFound, isStorageUnavailable } from "../errors.ts";
import type { ProviderDefinition, RefreshRules } from "../providers/definition.ts";
import type { Expiry, Grant, TokenAnswer } from "../providers/grant.ts";
import type { TemplateValues } from "../providers/template.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { SealedGrant } from "../store/row-sql.ts";
import type { TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { budgets } from "./budgets.ts";
import { schedulerFor, sealGrant } from "./sealed-set.ts";
import type { AnswerRecord } from "./answer-record.ts";
import { nextGeneration } from "../store/generation.ts";
import type { Keeper } from "./keeping.ts";
import type { Marks } from "../marks/marks.ts";
import { refusal } from "./refusal.ts";
import type { RefreshObserver } from "./observer.ts";
import type { Sendable, Sender } from "./sending.ts";
import type { TokenCache } from "./token-cache.ts";

/** An authorization code and what belongs to it (RFC 6749, section 4.1.3; RFC 7636, section 4.5). */
type CodeExchange = {
  connectionId: string;
  code: string;
  codeVerifier: string | null;
  redirectUri: string | null;
  /** What the definition takes from the callback's query. */
  captured: Record<string, string>;
};

export type Establish = {
  /**
   * Exchanges a code at once and puts the grant in the place of what the connection had.
   * @throws BrokerError provider_rejected, client_rejected, provider_unavailable, connection_disabled, connection_not_found
   */
  exchangeCode(exchange: CodeExchange): Promise<TokenRow>;
  /** Takes over a token set that a person handed over. @throws BrokerError duplicate_grant */
  importGrant(row: TokenRow, grant: Grant): Promise<TokenRow>;
};

type Options = {
  rows: TokenRows;
  cache: TokenCache;
  keeper: Pick<Keeper, "keep">;
  marks: Pick<Marks, "raise">;
  sender: Sender;
  vault: TokenVault;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
};

/** Errors of the database that are not its absence: more of them are a fault of ours. */
const mostFaults = 5;

/** How a connection comes by a grant from a person's hand. The store comes first here too (refresh-protocol, steps 8 and 9). */
export function createEstablish(options: Options): Establish {
  const { rows, cache, keeper, marks, sender, vault, random, clock } = options;

  /** With the secret before the newest, too, as long as that one has not worked: a refused client spends no code. */
  const sendCode = async (sendable: Sendable, values: TemplateValues): Promise<TokenAnswer> => {
    for (let secretIndex = 0; ; secretIndex++) {
      const plan = { grant: "authorization_code", secretIndex } as const;
      const answer = await sender.send(sendable, plan, { values, mayStillSend: () => true });
      const isClient = answer.kind === "failed" && answer.failure.class === "client_rejected";
      if (!isClient || secretIndex + 1 >= sendable.clientSecrets.length) return answer;
    }
  };

  /** The new grant stands on its own: nothing of the one before is kept. */
  const seal = (row: TokenRow, given: Handed) => {
    const { grant, captured, rules, sentAt } = given;
    const base = { ...row, captured, refreshToken: null, impliedScopes: row.scopes, authorizedAt: sentAt };
    return sealGrant(vault, base, { grant, sentAt, scheduler: schedulerFor(rules, random) });
  };

  /** An answer of a token endpoint like any other: kept whatever is away. */
  const keepGrant = async (sendable: Sendable, grant: Grant, captured: Record<string, string>) => {
    const { row, definition } = sendable;
    const answeredMs = clock.monotonicMs();
    const record: AnswerRecord = {
      kind: "grant",
      connectionId: row.id,
      generation: row.generation,
      authorization: row.authorization,
      attemptId: randomUUID(),
      event: row.generation === 0 ? "connected" : "reconnected",
      sealedFor: nextGeneration(row),
      grant: seal(row, { grant, captured, rules: definition.refresh, sentAt: row.now }),
    };
    return await keeper.keep({ record, sendable, grant, answeredMs });
  };

  return {
    async exchangeCode({ connectionId, code, codeVerifier, redirectUri, captured }) {
      const row = await rows.readById(connectionId);
      if (row === null) throw connectionNotFound("");
      const sendable = await sender.prepare(row);
      const values = {
        code,
        callback: captured,
        ...(codeVerifier === null ? {} : { codeVerifier }),
        ...(redirectUri === null ? {} : { redirectUri }),
      };
      const answer = await sendCode(sendable, values);
      if (answer.kind === "failed") throw refusal(row, answer.failure);
      const kept = await keepGrant(sendable, answer.grant, captured);
      if (kept.row === null) throw connectionNotFound(row.name); // deleted while the code was exchanged
      // No permit keeps the version of a spooled one for it: it is not handed out before the row has it.
      return kept.kind === "spooled" ? kept.row : cache.learn(kept.row).row;
    },

    async importGrant(row, given) {
      const { definition } = await sender.prepare(row);
      const exclusive = definition.refresh.rotation !== "never";
      const grant = { ...given, accessExpiry: statedExpiry(given.accessExpiry, definition) };
      // Its lives count from when it was handed over, however long the store takes.
      const handed = { grant, captured: {}, rules: definition.refresh, sentAt: row.now };
      const sealFor = (current: TokenRow) => seal(current, handed);
      const stored = await replace(options, row, { grant, sealFor, exclusive });
      if (stored === null) throw await refusedImport({ rows, vault }, row, grant);
      marks.raise(stored.id, stored);
      return cache.learn(stored).row;
    },
  };
}

type Handed = { grant: Grant; captured: Record<string, string>; rules: RefreshRules; sentAt: Date };

type Import = { grant: Grant; sealFor: (row: TokenRow) => SealedGrant; exclusive: boolean };

/** Null: the connection is deleted, or `exclusive` and the token is somebody else's or just being sent. */
async function replace(options: Options, first: TokenRow, given: Import): Promise<TokenRow | null> {
  const { rows, vault, clock, random, observer } = options;
  const { grant, sealFor, exclusive } = given;
  const attemptId = randomUUID();
  let row: TokenRow | null = first;
  let delayMs = budgets.commitRetryFirstMs as number;
  let faults = 0;
  while (row !== null) {
    const sealed = sealFor(row);
    const event = { type: "imported", detail: { attempt: attemptId } };
    try {
      const stored = await rows.replaceGrant({ ...row, attemptId }, sealed, { event, exclusive });
      if (stored !== null) return stored;
      // It may have been stored by a statement whose answer was lost, and been refreshed since.
      if (await rows.wasStored({ connectionId: row.id, attemptId })) return await rows.readById(row.id);
      if (exclusive && (await isTaken(rows, row, sealed))) return null;
      row = await rows.readById(row.id);
      if (exclusive && row !== null && isBeingSent(vault, row, grant)) return null;
    } catch (error) {
      observer.commitDelayed(first, error);
      if (!isStorageUnavailable(error) && ++faults > mostFaults) throw error;
      await clock.sleep(delayMs * (0.5 + random()));
      delayMs = Math.min(delayMs * 2, budgets.commitRetryMaxMs);
    }
  }
  return null;
}

async function refusedImport(
  { rows, vault }: Pick<Options, "rows" | "vault">,
  { id, name }: TokenRow,
  grant: Grant,
): Promise<BrokerError> {
  const current = await rows.readById(id);
  if (current === null) return connectionNotFound(name);
  if (isBeingSent(vault, current, grant)) {
    const detail = "This very refresh token is being sent to the provider right now; its answer will be stored.";
    return new BrokerError("conflict", detail, { connection: name, retryAfterSeconds: 1 });
  }
  return new BrokerError(
    "duplicate_grant",
    "Another connection of this client holds the same refresh token; two would invalidate each other's.",
    { connection: name },
  );
}

/** Whether the token is the row's own, and an attempt with it has not come to its end. */
function isBeingSent(vault: TokenVault, row: TokenRow, { refreshToken }: Grant): boolean {
  if (row.attemptId === null || row.refreshToken === null) return false;
  return (
    vault.openRefreshToken(row.refreshToken, { connectionId: row.id, generation: row.generation }) === refreshToken
  );
}

/** What the definition says of tokens whose life nobody states. */
function statedExpiry(expiry: Expiry, { response }: ProviderDefinition): Expiry {
  if (expiry.kind !== "unstated") return expiry;
  if (response.expires.from === "never") return { kind: "never" };
  const seconds = response.expires.fallbackSeconds;
  return seconds === null ? expiry : { kind: "in", seconds };
}

async function isTaken(rows: TokenRows, row: TokenRow, sealed: SealedGrant): Promise<boolean> {
  return sealed.refreshFingerprint !== null && (await rows.isHeldElsewhere(row.id, sealed.refreshFingerprint));
}
