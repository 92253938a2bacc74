import { withDeadline } from "../clock.ts";
import { connectionNotFound } from "../errors.ts";
import type { Grant } from "../providers/grant.ts";
import type { TokenRow } from "../store/token-row.ts";
import { isNews } from "./accounts.ts";
import { budgets } from "./budgets.ts";
import type { Granting } from "./granting.ts";
import { createHeldGrants, type HeldAccount, type HeldGrants, type HeldParts } from "./held-grants.ts";
import { createImport, type ImportParts } from "./imports.ts";
import type { LimitKeeper } from "./limits.ts";
import { refusal } from "./refusal.ts";
import type { Sendable } from "./sending.ts";

/** An authorization code and what belongs to it (RFC 6749, section 4.1.3; RFC 7636, section 4.5). */
type CodeExchange = {
  connectionId: string;
  code: string;
  codeVerifier: string | null;
  redirectUri: string | null;
  /** What the definition takes from the callback's query. */
  captured: Record<string, string>;
};

/** What came of a person's grant. `held`: it is another account's than the connection's, and waits for the person's word. */
type Established = { kind: "connected"; row: TokenRow } | { kind: "held"; row: TokenRow; held: HeldAccount };

export type Establish = {
  /**
   * Exchanges a code at once and puts the grant in the place of what the connection had.
   * @throws BrokerError provider_rejected, client_rejected, provider_unavailable, connection_disabled, connection_not_found
   */
  exchangeCode(exchange: CodeExchange): Promise<Established>;
  /** The connection with the rows of its further tokens, which are made before anything can be granted. */
  prepareWithChains: Granting["prepare"];
  /** Asks for what a person has agreed to. Never rejects. */
  ask: Granting["ask"];
  /** Keeps what a token endpoint granted to a person, further tokens included. @throws BrokerError connection_not_found */
  keepGrant(
    sendable: Sendable,
    grant: Grant,
    given: { captured: Record<string, string>; linkId: string | null },
  ): Promise<Established>;
  /** A person's word on a held grant: it takes the connection's place, or is given up. @throws BrokerError not_found */
  decide: HeldGrants["decide"];
  /** Gives up all that waits for a person's word on this connection. Best effort: never rejects. */
  giveUpHeld: HeldGrants["giveUpAll"];
  /** Gives up held grants that nobody came for. */
  forgetHeld: HeldGrants["forget"];
  /** Takes over a token set that a person handed over. @throws BrokerError duplicate_grant */
  importGrant(row: TokenRow, grant: Grant): Promise<TokenRow>;
};

type Options = HeldParts &
  ImportParts & {
    /** Counts a request that a person waits for, which is never held back. */
    limits: Pick<LimitKeeper, "note">;
  };

/** How a connection comes by a grant from a person's hand. The store comes first here too (refresh-protocol, steps 8 and 9). */
export function createEstablish(options: Options): Establish {
  const { rows, cache, lookups, clock, granting } = options;
  const held = createHeldGrants(options);

  const keepGrant: Establish["keepGrant"] = async (sendable, grant, { captured, linkId }) => {
    const all = granting.records(sendable, grant, captured);
    if (mustCompare(sendable)) return await held.compare(sendable, all, linkId);
    const row = await granting.keep(all);
    const known = await withDeadline(lookups.followUp(sendable, row), budgets.lookupMs, clock);
    return { kind: "connected", row: isNews(row, known) ? cache.learn(known).row : row };
  };

  return {
    keepGrant,
    prepareWithChains: granting.prepare,
    ask: granting.ask,
    decide: held.decide,
    giveUpHeld: held.giveUpAll,
    forgetHeld: held.forget,
    importGrant: createImport(options),

    async exchangeCode({ connectionId, code, codeVerifier, redirectUri, captured }) {
      const row = await rows.readById(connectionId);
      if (row === null) throw connectionNotFound("");
      const sendable = await granting.prepare(row);
      const settle = await options.limits.note(sendable);
      const values = {
        code,
        callback: captured,
        ...(codeVerifier === null ? {} : { codeVerifier }),
        ...(redirectUri === null ? {} : { redirectUri }),
      };
      const answer = await granting.ask(sendable, "authorization_code", values);
      if (answer.kind === "failed") {
        void settle(answer);
        throw refusal(row, answer.failure);
      }
      return await keepGrant(sendable, answer.grant, { captured, linkId: null }).finally(() => void settle(answer));
    },
  };
}

/** A grant that takes the place of one whose account is known may be another account's. */
function mustCompare({ row, definition }: Sendable): boolean {
  return row.account !== null && definition.lookups.length > 0;
}
