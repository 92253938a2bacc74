import { type Principal, namingHolders } from "../callers/principal.ts";
import { BrokerError } from "../errors.ts";
import type { ConnectionService } from "../services/connections.ts";
import type { ConnectionRecord, Connections } from "../store/connections.ts";
import type { AuthorizationRequests, ConsentAttempts, ConsentLinks } from "../store/consents.ts";
import type { Authorizations } from "../tokens/person-grant.ts";
import type { TokenVault } from "../vault/vault.ts";
import { exchangeOf, type HeldBound, openHeld } from "./bound-request.ts";
import { type CodeOutcomes, exchangedCodeOf, failureOf, otherAccount } from "./code-outcomes.ts";
import { sha256 } from "./links.ts";
import { exchangeForLink } from "./round-trip.ts";

/** A ticket whose caller may complete it. */
export type FoundTicket = { ticketHash: Uint8Array<ArrayBuffer>; linkId: string; connectionName: string } & (
  | { kind: "held"; bound: HeldBound }
  /** It was completed before, or is being completed. `isOverdue`: the broker that did so is gone. */
  | { kind: "noted"; isOverdue: boolean }
);

export type Completion = ReturnType<typeof createCompletion>;

type CompletionDeps = {
  requests: Pick<AuthorizationRequests, "findHeld" | "consumeHeld">;
  attempts: Pick<ConsentAttempts, "findCompletion">;
  codeOutcomes: Pick<CodeOutcomes, "await" | "note" | "repeated">;
  linkRows: Pick<ConsentLinks, "release">;
  records: Pick<Connections, "addEvent">;
  connections: Pick<ConnectionService, "get" | "getToUse">;
  authorizations: Pick<Authorizations, "exchangeCode">;
  vault: Pick<TokenVault, "sealRequest" | "openRequest">;
};

/** The consent of a link that an app has made for one of its users: docs/internals/consent.md, "Completion by the app". */
export function createCompletion(deps: CompletionDeps) {
  const { requests, attempts, codeOutcomes, connections } = deps;

  const requireCaller = async (principal: Principal, isItsOwn: boolean, connectionName: string): Promise<void> => {
    if (!isItsOwn) throw unknownTicket();
    await connections.getToUse(principal, connectionName).catch((error: unknown) => {
      const isHidden = error instanceof BrokerError && error.code === "connection_not_found";
      throw isHidden ? unknownTicket() : error;
    });
  };

  const findNoted = async (
    principal: Principal,
    ticketHash: Uint8Array<ArrayBuffer>,
  ): Promise<Extract<FoundTicket, { kind: "noted" }>> => {
    const noted = await attempts.findCompletion(ticketHash);
    if (noted === null) throw unknownTicket();
    const { connectionName, callerHash } = noted;
    await requireCaller(principal, Buffer.from(callerHash).equals(hashOf(principal)), connectionName);
    return { kind: "noted", ticketHash, ...noted };
  };

  /** What came of the first call, for the same caller and end user. Whoever comes meanwhile waits for it. */
  const repeat = async (
    principal: Principal,
    { ticketHash, connectionName, isOverdue }: Extract<FoundTicket, { kind: "noted" }>,
    endUser: string,
  ): Promise<ConnectionRecord> => {
    if (isOverdue) throw interrupted(connectionName);
    const outcome = await codeOutcomes.await(ticketHash);
    const isAnother = outcome !== null && outcome.endUser !== endUser;
    if (isAnother) throw wrongEndUser(connectionName);
    const { held } = await codeOutcomes.repeated(connectionName, outcome);
    const record = await connections.get(principal, connectionName);
    if (held !== null) throw otherAccount(record, held);
    return record;
  };

  /** The exchange, once. Its end, good or bad, is noted for those who ask again. */
  const exchange = async (
    principal: Principal,
    { ticketHash, bound }: Extract<FoundTicket, { kind: "held" }>,
    connection: Parameters<Authorizations["exchangeCode"]>[0]["connection"],
  ) => {
    const { linkId, held: code, app } = bound;
    const { endUser } = app;
    try {
      const sent = { ...exchangeOf(bound, code), connection, cannotWait: true };
      const exchanged = exchangedCodeOf(
        await namingHolders(principal, async () => await exchangeForLink(deps, linkId, sent)),
      );
      await codeOutcomes.note(ticketHash, { kind: "exchanged", exchanged, endUser });
      return exchanged;
    } catch (error) {
      const failure = failureOf(error);
      await codeOutcomes.note(ticketHash, { ...failure, endUser });
      await deps.records.addEvent(bound.connectionId, "consent_failed", { error: failure.code }).catch(() => undefined);
      throw error;
    }
  };

  return {
    /**
     * The ticket that this caller may complete: the key or workload that made its link, as far as it may still use the connection. To everybody
     * else it is unknown, byte for byte. Changes nothing.
     * @throws BrokerError `not_found`, `authorization_expired`, `encryption_key_missing`
     */
    async find(principal: Principal, ticket: string): Promise<FoundTicket> {
      const ticketHash = sha256(ticket);
      const request = await requests.findHeld(ticketHash);
      if (request === null) return await findNoted(principal, ticketHash);
      const bound = openHeld(deps.vault, request, ticketHash);
      const { connectionName } = request;
      if (bound === null) throw unknownTicket();
      await requireCaller(principal, bound.madeBy === principal.callerId, connectionName);
      return { kind: "held", ticketHash, bound, linkId: bound.linkId, connectionName };
    },

    /**
     * Exchanges the code of a ticket, once, for the end user for whom its link was made. For ten minutes the same call gets the same outcome.
     * @throws BrokerError `wrong_end_user` for another one, whereby the ticket and its link are over; `authorization_expired`; `account_changed`;
     * and what the exchange of a code throws
     */
    async complete(principal: Principal, found: FoundTicket, endUser: string): Promise<ConnectionRecord> {
      const { ticketHash, connectionName } = found;
      if (found.kind === "noted") return await repeat(principal, found, endUser);
      const connection = await requests.consumeHeld(ticketHash, hashOf(principal));
      if (connection === null) {
        if ((await requests.findHeld(ticketHash))?.expired === true) throw tooLate(connectionName);
        return await repeat(principal, await findNoted(principal, ticketHash), endUser);
      }
      const { bound } = found;
      if (bound.app.endUser !== endUser) {
        const refused = wrongEndUser(connectionName);
        await codeOutcomes.note(ticketHash, { ...failureOf(refused), endUser: bound.app.endUser });
        await deps.records
          .addEvent(bound.connectionId, "consent_failed", { error: refused.code })
          .catch(() => undefined);
        throw refused;
      }
      const { held } = await exchange(principal, found, connection);
      const record = await connections.get(principal, connectionName);
      if (held !== null) throw otherAccount(record, held);
      return record;
    },
  };
}

const hashOf = ({ callerId }: Principal) => sha256(callerId);

function unknownTicket(): BrokerError {
  return new BrokerError("not_found", "There is no such ticket for this key.");
}

function wrongEndUser(connection: string): BrokerError {
  const detail =
    "end_user: the link of this ticket was made for another user of the app. Nothing has been connected, and the link is over. Show nothing of the connection to this user; make a new link for the one who is to connect it.";
  return new BrokerError("wrong_end_user", detail, { connection });
}

function tooLate(connection: string): BrokerError {
  const detail =
    "The code has waited too long for this call, and nothing has been connected. Send the user to the same link again; it works until it expires. Sign users in before they open it.";
  return new BrokerError("authorization_expired", detail, { connection });
}

function interrupted(connection: string): BrokerError {
  const detail =
    "The broker was stopped while it exchanged the code, which cannot be sent twice. Look at the connection; if it is not connected, make a new link.";
  return new BrokerError("conflict", detail, { connection });
}
