import { type Clock, withDeadline } from "../clock.ts";
import { eachAlone } from "../concurrency.ts";
import { BrokerError, connectionNotFound, UnreadableSecretError } from "../errors.ts";
import type { Grant } from "../providers/oauth/token-answer.ts";
import type { AccountRows, UnconfirmedGrant } from "../store/accounts.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { consentTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import { type Accounts, type Identified, isNews } from "./accounts.ts";
import type { TokenCache } from "./cache.ts";
import type { PersonGrants } from "./person-grant.ts";
import type { RequestContext, Sender } from "./request.ts";
import { type AnswerRecord, type ReceivedGrant, usesToken, mayBeSentTo, openRecord, openTokens } from "./seal.ts";

/** Another account than the connection's. Null: the provider did not say which one it is. */
export type UnconfirmedAccount = { attemptId: string; account: string | null; label: string | null };

/** Grants for connections whose account is known. They change nothing until it is known that they are the same account's, or a person confirms them. */
export type UnconfirmedGrants = {
  /** Stores a grant and asks the provider whose it is. If it is the connection's account, it replaces the connection's grant; else it waits for a person's decision. */
  compare(
    context: RequestContext,
    all: readonly [ReceivedGrant, ...ReceivedGrant[]],
    /** The consent link whose page asks the person, if the answer to this call does not ask. */
    linkId: string | null,
  ): Promise<
    { kind: "connected"; row: TokenRow } | { kind: "unconfirmed"; row: TokenRow; unconfirmed: UnconfirmedAccount }
  >;
  /** A person's decision: the grant replaces the connection's, or is given up. @throws BrokerError not_found */
  decide: (of: { connectionId: string } | { attemptId: string }, accepted: boolean) => Promise<TokenRow>;
  /** Gives up all unconfirmed grants of one connection. Best effort: never rejects. */
  giveUpAll: (connectionId: string) => Promise<void>;
  /** Gives up those that nobody confirmed in time. */
  forget: () => Promise<void>;
};

export type UnconfirmedParts = {
  rows: Pick<TokenStatements, "readById">;
  accounts: AccountRows;
  cache: TokenCache;
  sender: Sender;
  lookups: Accounts;
  vault: TokenVault;
  clock: Clock;
  personGrants: PersonGrants;
  onBackgroundError: (error: unknown) => void;
};

export function createUnconfirmedGrants(parts: UnconfirmedParts): UnconfirmedGrants {
  const { rows, accounts, cache, sender, lookups, vault, clock, personGrants, onBackgroundError } = parts;

  /** If another connection uses the grant, it is not stored here and is given up. */
  const storeAccepted = async (unconfirmed: UnconfirmedGrant, context: RequestContext): Promise<TokenRow> => {
    try {
      const row = await personGrants.storeGrants(reopen(vault, unconfirmed, context));
      await accounts.dropUnconfirmed(unconfirmed.attemptId);
      return row;
    } catch (error) {
      const isDuplicate = error instanceof BrokerError && error.code === "duplicate_grant";
      if (isDuplicate) await accounts.dropUnconfirmed(unconfirmed.attemptId);
      throw error;
    }
  };

  const accept = async (context: RequestContext, attemptId: string, found: Identified | null): Promise<TokenRow> => {
    // From here on neither a "no" nor tidying up can revoke the grant that the connection is about to use.
    const unconfirmed = await accounts.acceptUnconfirmed(attemptId);
    if (unconfirmed === null) throw nothingUnconfirmed();
    const row = await storeAccepted(unconfirmed, context);
    if (found?.kind === "found") return cache.learn(await lookups.learn(context, row, found)).row;
    const known = await withDeadline(lookups.followUp(context, row), consentTimes.lookupMs, clock);
    return isNews(row, known) ? cache.learn(known).row : row;
  };

  /** Revokes a grant that was given up, unless that would end the connection's own grant or one that is in use. Such a grant is left to expire. */
  const giveUp = async (unconfirmed: UnconfirmedGrant, row: TokenRow | null): Promise<void> => {
    if (row === null) return;
    const context = await sender.prepareWithFurtherTokens(row).catch(() => null); // nobody waits for an error
    if (context?.definition.revocation?.kills !== "token") return;
    for (const { context: to, grant, record } of reopen(vault, unconfirmed, context)) {
      if (!mayBeSentTo(record, { ...to.owner, name: to.row.name }, to.definition)) continue;
      if (usesToken(vault, to.row, grant) === false) await sender.revokeGrant(to, grant);
    }
  };

  /** Finishes grants that were accepted by a process that has ended. */
  const finish = async (unconfirmed: UnconfirmedGrant): Promise<void> => {
    const row = await rows.readById(unconfirmed.connectionId);
    if (row === null) return await accounts.dropUnconfirmed(unconfirmed.attemptId);
    await storeAccepted(unconfirmed, await sender.prepareWithFurtherTokens(row));
  };

  return {
    async compare(context, all, linkId) {
      const [own, ...further] = all;
      const { row } = context;
      // First store the answer, then ask the API for its account.
      const waiting: AnswerRecord = { ...own.record, kind: "held", further: further.map(({ record }) => record) };
      await personGrants.storeGrants([{ ...own, record: waiting }]);
      const captured = own.record.grant.captured;
      const asked = lookups.identify(context, { accessToken: own.grant.accessToken ?? "", captured });
      const found = (await withDeadline(asked, consentTimes.lookupMs, clock)) ?? noAnswer;
      const { account, label } = found.kind === "found" ? found : { account: null, label: null };
      const { attemptId } = own.record;
      if (account !== null && account === row.account) {
        // Stored, so that another process can finish this if this one ends here.
        await accounts.describeUnconfirmed(attemptId, { account, label, linkId: null });
        return { kind: "connected", row: await accept(context, attemptId, found) };
      }
      await accounts.describeUnconfirmed(attemptId, { account, label, linkId });
      await accounts.overtakeUnconfirmed(attemptId);
      await accounts.addEvent(row.id, "other_account_held", { account, label });
      return { kind: "unconfirmed", row, unconfirmed: { attemptId, account, label } };
    },

    async decide(of, accepted) {
      const unconfirmed = await accounts.findUnconfirmed(of);
      if (unconfirmed === null) throw nothingUnconfirmed();
      const row = await rows.readById(unconfirmed.connectionId);
      if (row === null) throw connectionNotFound("");
      if (accepted) return await accept(await sender.prepareWithFurtherTokens(row), unconfirmed.attemptId, null);
      if (!(await accounts.declineUnconfirmed(unconfirmed.attemptId))) throw nothingUnconfirmed();
      await giveUp(unconfirmed, row);
      return row;
    },

    async giveUpAll(connectionId) {
      try {
        const all = await accounts.takeUnconfirmed(connectionId);
        const row = all.length === 0 ? null : await rows.readById(connectionId);
        await eachAlone(all, async (unconfirmed) => await giveUp(unconfirmed, row), { onError: onBackgroundError });
      } catch {
        // The rest is deleted with the connection, or an hour later.
      }
    },

    async forget() {
      const others = { onError: onBackgroundError };
      const forgotten = await accounts.takeForgottenUnconfirmed();
      await eachAlone(
        forgotten,
        async (unconfirmed) => await giveUp(unconfirmed, await rows.readById(unconfirmed.connectionId)),
        others,
      );
      await eachAlone(await accounts.acceptedUnconfirmed(), finish, others);
    },
  };
}

/** The records as they were granted, for the rows as they are now. */
function reopen(
  vault: TokenVault,
  unconfirmed: UnconfirmedGrant,
  context: RequestContext,
): [ReceivedGrant, ...ReceivedGrant[]] {
  const record = openRecord(vault, unconfirmed.record, unconfirmed);
  // The person has accepted this grant, so a record of another grant in its place is not stored.
  if (record.attemptId !== unconfirmed.attemptId) throw otherRecord(unconfirmed);
  const further = (record.further ?? []).flatMap((one): ReceivedGrant[] => {
    const its = context.furtherContexts?.find(({ row }) => row.id === one.connectionId);
    return its === undefined ? [] : [{ context: its, grant: grantOf(vault, one), record: one }];
  });
  const account = { account: unconfirmed.account, label: unconfirmed.accountLabel };
  return [{ context, grant: grantOf(vault, record), record: { ...record, kind: "grant", account } }, ...further];
}

const noAnswer: Identified = { kind: "failed", detail: "the provider took too long" };

function otherRecord({ attemptId }: UnconfirmedGrant): UnreadableSecretError {
  const place = { table: "held_grants", row: attemptId, column: "record_sealed" };
  return new UnreadableSecretError(place, { keyId: null, reason: "does_not_open" });
}

function nothingUnconfirmed(): BrokerError {
  const detail = "No grant of another account waits to be confirmed; those that do are kept for an hour.";
  return new BrokerError("not_found", detail);
}

/** The tokens of a record, for revoking them. */
function grantOf(vault: TokenVault, record: AnswerRecord): Grant {
  const { accessToken, refreshToken } = openTokens(vault, record);
  return {
    tokenType: record.grant.tokenType,
    accessExpiry: { kind: "unstated" },
    refreshExpiry: { kind: "unstated" },
    captured: record.grant.captured,
    ...(accessToken === null ? {} : { accessToken }),
    ...(refreshToken === null ? {} : { refreshToken }),
  };
}
