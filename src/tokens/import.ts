import { randomUUID } from "node:crypto";
import { furtherTokenName } from "../text.ts";
import { type Clock, withDeadline } from "../clock.ts";
import type { Leases } from "../coordination/leases.ts";
import type { Marks } from "../coordination/marks.ts";
import { BrokerError, connectionNotFound, DuplicateGrantError, isStorageUnavailable } from "../errors.ts";
import type { ProviderDefinition } from "../providers/format/definition.ts";
import type { Expiry, Grant } from "../providers/oauth/token-answer.ts";
import type { SealedGrant } from "../store/row-sql.ts";
import { nextGeneration, type TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { consentTimes, refreshTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Accounts } from "./accounts.ts";
import type { TokenCache } from "./cache.ts";
import type { RefreshObserver } from "./core.ts";
import type { Sender } from "./request.ts";
import { clientIdOf, personGrantSealer, usesToken } from "./seal.ts";

export type ImportParts = {
  rows: Pick<TokenStatements, "readById" | "replaceGrant" | "readForAnswer" | "holdersElsewhere">;
  cache: TokenCache;
  marks: Pick<Marks, "raise">;
  leases: Pick<Leases, "announce">;
  sender: Sender;
  lookups: Accounts;
  vault: TokenVault;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
};

/** How many errors of the database, apart from its being away, an import puts up with. More of them are a bug. */
const mostFaults = 5;

/** Stores an imported token set. @throws BrokerError duplicate_grant, conflict, connection_not_found */
export function createImport(parts: ImportParts) {
  const { rows, cache, marks, leases, sender, vault, clock } = parts;
  return async (row: TokenRow, given: Grant): Promise<TokenRow> => {
    const prepared = await sender.prepareToStore(row);
    const { definition } = prepared;
    const exclusive = definition.refresh.rotation !== "never";
    const grant = { ...given, accessExpiry: statedExpiry(given.accessExpiry, definition) };
    // Its lifetimes count from when it was imported, however long storing it takes.
    const terms = { captured: {}, redirectUri: null, definition, sentAt: row.now };
    const { inputsInForce } = prepared.row; // the inputs that were checked, even if somebody changes the row meanwhile
    const sealFor = (current: TokenRow) => {
      const place = { ...current, inputsInForce, accountCaptured: {} };
      return personGrantSealer(parts, place, { ...terms, generation: nextGeneration(current) })(grant);
    };
    const stored = await replace(parts, row, { grant, sealFor, exclusive, clientId: clientIdOf(prepared) });
    if (stored === null) throw await refusedImport({ rows, vault }, row, { grant, sealFor });
    marks.raise(stored.id, stored);
    const { id: connection, generation, lastAttemptId } = stored;
    leases.announce({ connection, generation: generation - 1, attempt: lastAttemptId ?? "", outcome: "stored" });
    const learnt = cache.learn(stored).row;
    for (const { name } of definition.furtherTokens) cache.expire(furtherTokenName(stored.name, name)); // the import has ended them
    const known = await withDeadline(followUp(parts, learnt), consentTimes.lookupMs, clock);
    return known === null ? learnt : cache.learn(known).row;
  };
}

/** Asks the provider about the stored set. The set works without it, so an outage of the provider or its issuer does not matter. */
async function followUp({ sender, lookups }: ImportParts, row: TokenRow): Promise<TokenRow | null> {
  try {
    return await lookups.followUp(await sender.prepare(row), row, { handedOver: true });
  } catch (error) {
    if (error instanceof BrokerError) return null;
    throw error;
  }
}

/** Clears the account: nobody has said whose tokens these are. */
const nobodyKnown = { account: null, label: null };

type Import = { grant: Grant; sealFor: (row: TokenRow) => SealedGrant; exclusive: boolean; clientId: string | null };

/** Null: the connection is deleted, or `exclusive` and another connection has the token or it is being sent now. */
async function replace(options: ImportParts, first: TokenRow, given: Import): Promise<TokenRow | null> {
  const { rows, vault, clock, random, observer } = options;
  const { grant, sealFor, exclusive, clientId } = given;
  const attemptId = randomUUID();
  let row: TokenRow | null = first;
  let delayMs = refreshTimes.commitRetryFirstMs;
  let faults = 0;
  while (row !== null) {
    const sealed = sealFor(row);
    const event = { type: "imported" as const, detail: { attempt: attemptId } };
    try {
      const stored = await rows.replaceGrant({ ...row, attemptId }, sealed, {
        event,
        exclusive,
        unlessSent: true,
        untried: true,
        clientId,
        account: nobodyKnown,
      });
      if (stored !== null) return stored;
      // A statement whose answer was lost may have stored it, and it may have been refreshed since.
      const found = await rows.readForAnswer({ connectionId: row.id, attemptId });
      if (found.wasStored) return found.row;
      if (exclusive && (await holdersOf(rows, row, sealed)).length > 0) return null;
      row = found.row;
      if (exclusive && row !== null && isBeingSent(vault, row, grant)) return null;
    } catch (error) {
      observer.commitDelayed(first, error);
      if (!isStorageUnavailable(error) && ++faults > mostFaults) throw error;
      await clock.sleep(delayMs * (0.5 + random()));
      delayMs = Math.min(delayMs * 2, refreshTimes.commitRetryMaxMs);
    }
  }
  return null;
}

async function refusedImport(
  { rows, vault }: Pick<ImportParts, "rows" | "vault">,
  { id, name }: TokenRow,
  { grant, sealFor }: Pick<Import, "grant" | "sealFor">,
): Promise<BrokerError> {
  const current = await rows.readById(id);
  if (current === null) return connectionNotFound(name);
  if (isBeingSent(vault, current, grant)) {
    const detail = "This very refresh token is being sent to the provider right now; its answer will be stored.";
    return new BrokerError("conflict", detail, {
      connection: name,
      retryAfterSeconds: refreshTimes.retryAfterMinSeconds,
    });
  }
  return new DuplicateGrantError(name, await holdersOf(rows, current, sealFor(current)));
}

/** Whether the token is the row's own and an attempt with it has not ended. */
function isBeingSent(vault: TokenVault, row: TokenRow, { refreshToken }: Grant): boolean {
  if (row.attemptId === null || row.refreshToken === null || refreshToken === undefined) return false;
  return usesToken(vault, row, { refreshToken }) === true; // a token that does not open is not being sent
}

/** The definition's fallback for tokens without a stated lifetime. */
function statedExpiry(expiry: Expiry, { response }: ProviderDefinition): Expiry {
  if (expiry.kind !== "unstated") return expiry;
  if (response.expires.from === "never") return { kind: "never" };
  const seconds = response.expires.fallbackSeconds;
  return seconds === null ? expiry : { kind: "in", seconds };
}

async function holdersOf(
  rows: Pick<TokenStatements, "holdersElsewhere">,
  { id }: TokenRow,
  { refreshFingerprint }: SealedGrant,
): Promise<string[]> {
  return refreshFingerprint === null ? [] : await rows.holdersElsewhere(id, refreshFingerprint);
}
