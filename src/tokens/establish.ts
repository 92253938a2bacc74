import { randomUUID } from "node:crypto";
import type { Clock } from "../clock.ts";
import { BrokerError, connectionNotFound, isStorageUnavailable } from "../errors.ts";
import type { Failure, Grant } from "../providers/grant.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { SealedGrant, TokenRows } from "../store/token-rows.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { budgets } from "./budgets.ts";
import { sealGrant } from "./commit.ts";
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
  sender: Sender;
  vault: TokenVault;
  clock: Clock;
  random: () => number;
  observer: RefreshObserver;
};

type Replacement = { grant: Grant; sentAt: Date; captured: Record<string, string>; type: string; exclusive: boolean };

/** How a connection comes by a grant from a person's hand. The store comes first here too (refresh-protocol, steps 8 and 9). */
export function createEstablish({ rows, cache, sender, vault, clock, random, observer }: Options): Establish {
  /** Null: the connection is deleted, or `exclusive` and somebody else holds the token. */
  const replace = async (first: TokenRow, replacement: Replacement): Promise<TokenRow | null> => {
    const attemptId = randomUUID();
    let row: TokenRow | null = first;
    let delayMs = budgets.commitRetryFirstMs as number;
    while (row !== null) {
      const sealed = sealReplacement(vault, row, replacement);
      const { type, exclusive } = replacement;
      const event = { type, detail: {} };
      try {
        const stored = await rows.replaceGrant({ ...row, attemptId }, sealed, { event, exclusive });
        if (stored !== null) return cache.learn(stored).row;
        if (exclusive && (await isTaken(rows, row, sealed))) return null;
        row = await rows.readById(row.id);
        if (row?.lastAttemptId === attemptId) return cache.learn(row).row;
      } catch (error) {
        if (!isStorageUnavailable(error)) throw error;
        observer.commitDelayed(first, error);
        await clock.sleep(delayMs * (0.5 + random()));
        delayMs = Math.min(delayMs * 2, budgets.commitRetryMaxMs);
      }
    }
    return null;
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
      const plan = { grant: "authorization_code", secretIndex: 0 } as const;
      const answer = await sender.send(sendable, plan, { values, mayStillSend: () => true });
      if (answer.kind === "failed") throw refusal(row, answer.failure);
      const type = row.version === 0 ? "connected" : "reconnected";
      const replacement = { grant: answer.grant, sentAt: row.now, captured, type, exclusive: false };
      const stored = await replace(row, replacement);
      if (stored !== null) return stored;
      await revokeUnwanted(sender, sendable, answer.grant);
      throw connectionNotFound(row.name);
    },

    async importGrant(row, grant) {
      const { definition } = await sender.prepare(row);
      const exclusive = definition.refresh.rotation !== "never";
      const stored = await replace(row, { grant, sentAt: row.now, captured: {}, type: "imported", exclusive });
      if (stored !== null) return stored;
      if ((await rows.readById(row.id)) === null) throw connectionNotFound(row.name);
      throw new BrokerError(
        "duplicate_grant",
        "Another connection of this client holds the same refresh token; two would invalidate each other's.",
        { connection: row.name },
      );
    },
  };
}

/** The new grant stands on its own: nothing of the one before is kept. */
function sealReplacement(vault: TokenVault, row: TokenRow, { grant, sentAt, captured }: Replacement): SealedGrant {
  const base = { ...row, captured, refreshToken: null, impliedScopes: row.scopes };
  return sealGrant(vault, base, { grant, sentAt });
}

async function isTaken(rows: TokenRows, row: TokenRow, sealed: SealedGrant): Promise<boolean> {
  return sealed.refreshFingerprint !== null && (await rows.isHeldElsewhere(row.id, sealed.refreshFingerprint));
}

/** The connection was deleted while the code was exchanged: nobody will use this grant. */
async function revokeUnwanted(sender: Sender, sendable: Sendable, grant: Grant): Promise<void> {
  if (grant.refreshToken !== undefined) {
    await sender.revoke(sendable, { value: grant.refreshToken, hint: "refresh_token" });
  } else if (grant.accessToken !== undefined) {
    await sender.revoke(sendable, { value: grant.accessToken, hint: "access_token" });
  }
}

/** What a caller is told when a request that may be made once was refused. */
export function refusal({ name }: { name: string }, failure: Failure): BrokerError {
  const context = { connection: name };
  if (failure.class === "client_rejected") {
    return new BrokerError("client_rejected", `The provider refuses this broker's client: ${failure.detail}`, context);
  }
  if (isRefused(failure)) {
    return new BrokerError("provider_rejected", `The provider refuses: ${failure.detail}`, context);
  }
  const retryAfterSeconds = Math.min(Math.max(Math.ceil(failure.retryAfterSeconds ?? 5), 1), 60);
  return new BrokerError("provider_unavailable", `The provider could not be asked: ${failure.detail}`, {
    ...context,
    retryAfterSeconds,
  });
}

/** True when the provider said no to this very request; false when it is away, busy, or has blocked this broker. */
export function isRefused({ class: kind, code, status = 0 }: Failure): boolean {
  if (kind === "refused_for_good" || kind === "client_rejected") return true;
  const isBusy = code === "rate_limited" || code === "blocked";
  return kind === "refused_for_now" && !isBusy && status >= 400 && status < 500;
}
