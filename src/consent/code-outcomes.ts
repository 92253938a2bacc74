import { type Clock, withDeadline } from "../clock.ts";
import { BrokerError, type ErrorCode } from "../errors.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { ConnectionRecord } from "../store/connections.ts";
import type { ConsentAttempts } from "../store/consents.ts";
import { readableName } from "../text.ts";
import { consentTimes, refreshTimes } from "../time.ts";
import type { Authorized } from "../tokens/person-grant.ts";
import { endsWithItsToken } from "../tokens/row-rules.ts";
import type { Keyring } from "../vault/keyring.ts";

/** The result of an exchange, sealed for a caller that asks for it again. */
export type ExchangedCode = {
  connectionName: string;
  /** The account is another one than the connection's; nothing changes before a person confirms it. */
  held: { attemptId: string; account: string | null; label: string | null } | null;
  /** No refresh token came, so that the access ends with its first token. */
  endsSoon: boolean;
};

/** What came of a code, sealed for a caller that brings the same one again. `endUser`: for whom an app has completed it. */
export type CodeOutcome = { endUser?: string } & (
  | { kind: "exchanged"; exchanged: ExchangedCode }
  | { kind: "failed"; code: ErrorCode; detail: string; retryAfterSeconds?: number }
);

type CodeOutcomeDeps = {
  attempts: Pick<ConsentAttempts, "findCopied" | "endCopied">;
  accounts: Pick<AccountRows, "findUnconfirmed">;
  ticketKeys: Pick<Keyring, "seal" | "open">;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
};

export type CodeOutcomes = ReturnType<typeof createCodeOutcomes>;

/** What comes of a code that a key hands in or completes: noted once, and told to whoever asks again. `attemptHash`: what it is noted under. */
export function createCodeOutcomes({ attempts, accounts, ticketKeys, clock }: CodeOutcomeDeps) {
  /** Null: this broker has not sealed it. Others may write to the table. */
  const open = (attemptHash: Uint8Array<ArrayBuffer>, ticket: string): CodeOutcome | null => {
    try {
      return JSON.parse(ticketKeys.open(Buffer.from(ticket, "base64url"), placeOf(attemptHash))) as CodeOutcome;
    } catch {
      return null;
    }
  };

  return {
    open,

    /** Null: it is still under way after ten seconds. */
    async await(attemptHash: Uint8Array<ArrayBuffer>): Promise<CodeOutcome | null> {
      const deadlineMs = clock.monotonicMs() + consentTimes.awaitEndingMs;
      for (let lookMs = consentTimes.firstLookMs; ; lookMs = Math.min(lookMs * 2, consentTimes.longestLookMs)) {
        const ticket = await attempts.findCopied(attemptHash);
        if (ticket !== null) return open(attemptHash, ticket);
        if (clock.monotonicMs() >= deadlineMs) return null;
        await clock.sleep(lookMs);
      }
    },

    /** What a caller that asks again is told: the result, or the same error. @throws BrokerError */
    async repeated(connection: string, outcome: CodeOutcome | null): Promise<ExchangedCode> {
      const context = { connection };
      if (outcome === null) {
        const detail = "This very code is being exchanged right now; look at the connection, or ask again.";
        throw new BrokerError("conflict", detail, { ...context, retryAfterSeconds: refreshTimes.retryAfterMinSeconds });
      }
      if (outcome.kind === "failed") {
        const { code, detail, retryAfterSeconds } = outcome;
        throw new BrokerError(code, detail, {
          ...context,
          ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
        });
      }
      const { exchanged } = outcome;
      const { held } = exchanged;
      if (held === null || (await accounts.findUnconfirmed({ attemptId: held.attemptId })) !== null) return exchanged;
      const detail = "This code was exchanged before, and the other account that it gave was accepted or declined.";
      throw new BrokerError("conflict", detail, context);
    },

    /** Notes the outcome for later callers. Without Postgres they learn that it is under way, until the attempt expires. */
    async note(attemptHash: Uint8Array<ArrayBuffer>, outcome: CodeOutcome): Promise<void> {
      const sealed = ticketKeys.seal(JSON.stringify(outcome), placeOf(attemptHash));
      const noted = attempts.endCopied(attemptHash, Buffer.from(sealed).toString("base64url"));
      await withDeadline(
        noted.catch(() => undefined),
        consentTimes.noteMs,
        clock,
      );
    },
  };
}

export function exchangedCodeOf(authorized: Authorized): ExchangedCode {
  const { row } = authorized;
  const held = authorized.kind === "unconfirmed" ? authorized.unconfirmed : null;
  return { connectionName: row.name, held, endsSoon: endsWithItsToken(row) };
}

/** An unexpected error says nothing about itself: whoever asks again gets no more than its code. */
export function failureOf(error: unknown): Extract<CodeOutcome, { kind: "failed" }> {
  if (!(error instanceof BrokerError)) return { kind: "failed", code: "internal_error", detail: "" };
  const { code, message: detail, context } = error;
  return { kind: "failed", code, detail, ...context };
}

/** The answer to a caller whose code belongs to another account than the connection. */
export function otherAccount(
  { name, account }: ConnectionRecord,
  held: NonNullable<ExchangedCode["held"]>,
): BrokerError {
  const other = readableName(held.label ?? held.account);
  const is = other === null ? "an account that the provider does not name" : `another account, ${other}`;
  const detail = `The code belongs to ${is}; this connection is ${readableName(account) ?? "somebody else"}'s. Confirm or decline it: POST /connections/${name}/account.`;
  return new BrokerError("account_changed", detail, { connection: name });
}

const placeOf = (attemptHash: Uint8Array) => ({
  table: "consent_attempts",
  row: Buffer.from(attemptHash).toString("hex"),
  column: "ticket",
  revision: 0,
});
