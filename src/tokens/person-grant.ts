import { furtherTokenName } from "../text.ts";
import { type Clock, withDeadline } from "../clock.ts";
import { BrokerError, connectionNotFound, DuplicateGrantError } from "../errors.ts";
import type { ConnectionGrant } from "../providers/format/definition.ts";
import { lookupsOf } from "../providers/format/requirements.ts";
import type { TemplateValues } from "../providers/format/template.ts";
import {
  type CodeDestination,
  codeDestinationOf,
  isSameCodeDestination,
} from "../providers/oauth/authorization-request.ts";
import type { Grant, TokenAnswer } from "../providers/oauth/token-answer.ts";
import { type ExpectedIdToken, judgeIdToken } from "../providers/oauth/token-response.ts";
import type { Clients } from "../store/clients.ts";
import type { EventType, TokenRow } from "../store/token-row.ts";
import type { RowWithClient } from "../store/token-statements.ts";
import { consentTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import { isNews } from "./accounts.ts";
import type { TokenCache } from "./cache.ts";
import type { RefreshObserver } from "./core.ts";
import { createImport, type ImportParts } from "./import.ts";
import type { RequestLimiter } from "./limits.ts";
import {
  createUnconfirmedGrants,
  type UnconfirmedAccount,
  type UnconfirmedGrants,
  type UnconfirmedParts,
} from "./other-account.ts";
import { isRevocable, type AnswerStore } from "./persist.ts";
import {
  bothRefused,
  eraseOrReportPreviousSecret,
  refusal,
  type RequestContext,
  type Sender,
  type SendPlan,
  withPreviousSecret,
} from "./request.ts";
import { clientIdOf, recordsOfFurtherTokens, type ReceivedGrant, recordOfPersonGrant } from "./seal.ts";

/** An authorization code and what belongs to it (RFC 6749, section 4.1.3; RFC 7636, section 4.5). */
export type CodeExchange = {
  /** As it was read after the code had come: it decides where the code may go. */
  connection: RowWithClient;
  code: string;
  codeVerifier: string | null;
  redirectUri: string | null;
  /** The values that the definition captures from the callback's query. */
  captured: Record<string, string>;
  /** Where the code may be sent: the client and inputs with which it was requested. */
  destination: CodeDestination;
  idToken: ExpectedIdToken;
  /** A browser has brought it, and nobody can bring it again, so limits count it and let it through. */
  cannotWait: boolean;
};

/** What came of a person's grant. `unconfirmed`: it is another account's than the connection's, and waits for a person to confirm it. */
export type Authorized =
  | { kind: "connected"; row: TokenRow }
  | { kind: "unconfirmed"; row: TokenRow; unconfirmed: UnconfirmedAccount };

/** The captured values, and the redirect URI. `redirectUri` null: none was sent. */
type Given = { captured: Record<string, string>; redirectUri: string | null; linkId: string | null };

export type Authorizations = {
  /**
   * Exchanges a code at once and puts the grant in the place of what the connection had.
   * @throws BrokerError provider_rejected, client_rejected, provider_unavailable, connection_disabled, connection_not_found,
   * conflict (client or inputs have changed since the code was asked for)
   */
  exchangeCode(exchange: CodeExchange): Promise<Authorized>;
  /** Sends the token request for a person's grant. Never rejects. */
  ask: PersonGrants["ask"];
  /** Stores a person's grant, further tokens included. @throws BrokerError connection_not_found */
  storeGrant(context: RequestContext, grant: Grant, given: Given): Promise<Authorized>;
  /** A person's decision on an unconfirmed grant: it replaces the connection's grant, or is given up. @throws BrokerError not_found */
  decide: UnconfirmedGrants["decide"];
  /** Gives up all unconfirmed grants of this connection. Best effort: never rejects. */
  giveUpUnconfirmed: UnconfirmedGrants["giveUpAll"];
  /** Gives up unconfirmed grants on which nobody has decided in time. */
  forgetUnconfirmed: UnconfirmedGrants["forget"];
  /** Stores an imported token set. @throws BrokerError duplicate_grant */
  importGrant(row: TokenRow, grant: Grant): Promise<TokenRow>;
};

type Options = UnconfirmedParts & ImportParts;

/** How a connection gets a grant from a person. Here, too, the answer is persisted before anything else (docs/refresh-protocol.md, steps 8 and 9). */
export function createAuthorizations(options: Options): Authorizations {
  const { cache, lookups, clock, personGrants, sender } = options;
  const unconfirmed = createUnconfirmedGrants(options);
  // A consent must not fail because a line of the history cannot be written.
  const note = async ({ id }: TokenRow, type: EventType, detail: Record<string, string>): Promise<void> =>
    await options.accounts.addEvent(id, type, detail).catch(() => undefined);

  const storeGrant: Authorizations["storeGrant"] = async (context, grant, { captured, redirectUri, linkId }) => {
    const all = personGrants.records(context, grant, { captured, redirectUri });
    if (mustCompare(context)) return await unconfirmed.compare(context, all, linkId);
    const row = await personGrants.storeGrants(all);
    const known = await withDeadline(lookups.followUp(context, row), consentTimes.lookupMs, clock);
    return { kind: "connected", row: isNews(row, known) ? cache.learn(known).row : row };
  };

  /** Stores a grant if its id_token belongs to the request (docs/internals/consent.md, "An id_token"). `isBound`: PKCE binds it, too. */
  const storeIfIdTokenFits = async (
    context: RequestContext,
    grant: Grant,
    { given, idToken, isBound }: { given: Given; idToken: ExpectedIdToken; isBound: boolean },
  ): Promise<Authorized> => {
    const verdict = judgeIdToken(grant.idToken, { ...idToken, clientId: clientIdOf(context) });
    if (verdict.kind === "fits") return await storeGrant(context, grant, given);
    // PKCE binds a code to its request just as a nonce does (RFC 9700, section 2.1.1). Without both, nothing does.
    if (verdict.kind === "unchecked" && isBound) {
      const authorized = await storeGrant(context, grant, given);
      await note(context.row, "id_token_unchecked", { reason: verdict.why });
      return authorized;
    }
    await giveUpForeign(options, personGrants.records(context, grant, given));
    const why = verdict.kind === "foreign" ? { claim: verdict.claim } : { reason: verdict.why };
    await note(context.row, "id_token_refused", why);
    throw foreignIdToken(context.row);
  };

  return {
    storeGrant,
    ask: personGrants.ask,
    decide: unconfirmed.decide,
    giveUpUnconfirmed: unconfirmed.giveUpAll,
    forgetUnconfirmed: unconfirmed.forget,
    importGrant: createImport(options),

    async exchangeCode({ connection, code, codeVerifier, redirectUri, captured, destination, idToken, cannotWait }) {
      const { row, client } = connection;
      if (row.status === "disabled") throw disabled(row);
      const prepared = await sender.prepareWithFurtherTokens(row, client);
      if (!isSameCodeDestination(destination, codeDestinationOf(row, prepared.client))) throw changedMeanwhile(row);
      // Only this callback's values count, and none of an earlier one: they may name the host that the code goes to.
      const context = { ...prepared, owner: { ...prepared.owner, captured } };
      const values = {
        code,
        ...(codeVerifier === null ? {} : { codeVerifier }),
        ...(redirectUri === null ? {} : { redirectUri }),
      };
      const answer = await personGrants.ask(context, "authorization_code", { values, cannotWait });
      if (answer.kind === "failed") throw refusal(row, answer.failure);
      const given = { captured, redirectUri, linkId: null };
      return await storeIfIdTokenFits(context, answer.grant, { given, idToken, isBound: codeVerifier !== null });
    },
  };
}

/** Revokes a grant that belongs to another sign-in, if the provider can do that without ending the grant that the connection uses. Best effort. */
async function giveUpForeign({ rows, sender, vault }: Options, all: readonly ReceivedGrant[]): Promise<void> {
  for (const { context, grant } of all) {
    const row = await rows.readById(context.row.id).catch(() => context.row); // not known: use the row as it was
    const placement = { kind: "unwanted", row: row?.generation === 0 ? null : row } as const;
    if (isRevocable(vault, context, { placement, tokens: grant })) await sender.revokeGrant(context, grant);
  }
}

function foreignIdToken({ name }: TokenRow): BrokerError {
  const detail =
    "The provider's answer belongs to another sign-in than the one that began here (its id_token says so, or does not say). Nothing was kept, and nothing has changed. Open the link again.";
  return new BrokerError("provider_rejected", detail, { connection: name });
}

function disabled({ name }: TokenRow): BrokerError {
  return new BrokerError("connection_disabled", "This connection is disabled; enable it first.", { connection: name });
}

function changedMeanwhile({ name }: TokenRow): BrokerError {
  const detail =
    "The client or the inputs of this connection were changed meanwhile; the code was not used. Start again.";
  return new BrokerError("conflict", detail, { connection: name });
}

/** A grant that replaces one whose account is known may be another account's. */
function mustCompare({ row, definition }: RequestContext): boolean {
  return row.account !== null && lookupsOf(definition, row.grant as ConnectionGrant).length > 0;
}

/** Requests and stores grants that do not come from a refresh. */
export type PersonGrants = {
  /**
   * Sends the token request for a person's grant. If the newest client secret has not worked yet and is refused, the one before is tried,
   * too. Each request needs an admission by the limits. Never rejects.
   */
  ask: (
    context: RequestContext,
    grant: "authorization_code" | "device_code",
    given: { values: TemplateValues; cannotWait: boolean },
  ) => Promise<TokenAnswer>;
  /** The records of a grant and of the further tokens that came with it, each for its own row; the grant's first. */
  records(context: RequestContext, grant: Grant, given: GivenByPerson): [ReceivedGrant, ...ReceivedGrant[]];
  /** Persists each record by itself, also while Postgres is away. Returns the first one's row. @throws BrokerError connection_not_found, duplicate_grant */
  storeGrants: (all: readonly [ReceivedGrant, ...ReceivedGrant[]]) => Promise<TokenRow>;
};

/** What the browser brought, and where to. `redirectUri` null: none was sent. */
type GivenByPerson = { captured: Record<string, string>; redirectUri: string | null };

export type PersonGrantsParts = {
  clients: Pick<Clients, "forgetPreviousSecret" | "noteOldSecret">;
  observer: Pick<RefreshObserver, "oldSecretUsed">;
  cache: TokenCache;
  answerStore: Pick<AnswerStore, "persist">;
  sender: Sender;
  limits: RequestLimiter;
  vault: TokenVault;
  clock: Clock;
  random: () => number;
};

export function createPersonGrants(parts: PersonGrantsParts): PersonGrants {
  const { cache, answerStore, sender, limits, clock } = parts;

  /** Drops the further tokens that a new grant has ended from the cache. */
  const expireFurtherTokens = ({ context: { row, definition }, record }: ReceivedGrant): void => {
    if (record.kind !== "grant" || row.parentId !== null) return;
    for (const { name } of definition.furtherTokens) cache.expire(furtherTokenName(row.name, name));
  };

  return {
    async storeGrants(all) {
      const answeredMs = clock.monotonicMs();
      const persisted = await Promise.all(all.map((one) => answerStore.persist({ ...one, answeredMs })));
      // The person reads "connected" and will read a token next, so wait a little for a slow database.
      await withDeadline(
        Promise.all(persisted.map(async ({ stored }) => await stored)),
        consentTimes.slowStoreMs,
        clock,
      );
      expireFurtherTokens(all[0]);
      const rows = persisted.map(({ kind, row, holders = [] }, index) => {
        if (row === null) throw connectionNotFound(all[0].context.row.name); // deleted meanwhile
        if (kind === "duplicate" && index === 0) throw new DuplicateGrantError(row.name, holders);
        // No permit reserves the version of a spooled grant, so it is not handed out before the row has it.
        return kind === "spooled" || all[index]?.record.kind === "held" ? row : cache.learn(row).row;
      });
      return rows[0] ?? all[0].context.row;
    },

    async ask(context, grant, { values, cannotWait }) {
      let plan: SendPlan = { grant, secretIndex: 0 };
      for (;;) {
        const current = plan;
        const send = async () => await sender.send(context, current, { values, mayStillSend: () => true });
        const answer = await limits.send(context, send, { cannotWait, isProven: false });
        if (answer.kind === "granted") {
          // Nothing waits for this: the grant is persisted first.
          void eraseOrReportPreviousSecret(parts, context, current);
          return answer;
        }
        const failure = bothRefused(answer.failure, current);
        const older = withPreviousSecret(failure, current, context);
        if (older === null) return { kind: "failed", failure };
        plan = older;
      }
    },

    records: (context, grant, { captured, redirectUri }) => [
      recordOfPersonGrant(parts, context, { grant, captured, redirectUri }),
      ...recordsOfFurtherTokens(parts, context, { grant, captured, redirectUri }),
    ],
  };
}
