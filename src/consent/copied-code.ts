import { BrokerError, forbiddenHere } from "../errors.ts";
import { type CompletionRule, rulesOfGrant } from "../grant-types.ts";
import { expectedIssuer } from "../providers/oauth/authorization-request.ts";
import type { ConnectionService } from "../services/connections.ts";
import { namingHolders, type Principal } from "../callers/principal.ts";
import type { ConnectionRecord, Connections } from "../store/connections.ts";
import type { Attempt, ConsentAttempts, ConsentLinks } from "../store/consents.ts";
import type { CodeExchange, Authorizations } from "../tokens/person-grant.ts";
import type { Keyring } from "../vault/keyring.ts";
import { bindingOf } from "./audit.ts";
import { type CodeOutcomes, type ExchangedCode, exchangedCodeOf, failureOf, otherAccount } from "./code-outcomes.ts";
import {
  type AuthorizationContext,
  type ConsentForm,
  copiedCodeRequest,
  type FormKeys,
  type Links,
  type Organisation,
  parseLinkToken,
  requireConsentGrant,
  requireManualCode,
  sha256,
} from "./links.ts";
import { endingOf, openTicket, type Outcomes } from "./outcome.ts";
import { ConsentError } from "./problem.ts";
import { type CodeAnswer, exchangeForLink, readPasted, type Refusal, refuse } from "./round-trip.ts";

export type CopiedCodes = ReturnType<typeof createCopiedCodes>;

type CopiedCodeDeps = {
  links: Pick<Links, "claim" | "contextById">;
  outcomes: Pick<Outcomes, "awaitEnding" | "conclude">;
  attempts: ConsentAttempts;
  linkRows: Pick<ConsentLinks, "reserve" | "release">;
  records: Pick<Connections, "addEvent">;
  connections: Pick<ConnectionService, "get" | "getToUse">;
  codeOutcomes: CodeOutcomes;
  completion: CompletionRule;
  authorizations: Pick<Authorizations, "exchangeCode">;
  formKeys: FormKeys;
  organisation: Organisation;
  ticketKeys: Pick<Keyring, "seal" | "open">;
  nowMs: () => number;
};

/** Codes that a person copies from a page of the provider: docs/internals/consent.md, "Codes copied by hand". */
export function createCopiedCodes(deps: CopiedCodeDeps) {
  const { links, outcomes, attempts, connections, codeOutcomes, authorizations, formKeys } = deps;

  /** True if it is the first time, or if the provider has not answered about the code before. */
  const begins = async (attemptHash: Uint8Array<ArrayBuffer>): Promise<boolean> => {
    if (await attempts.beginCopied(attemptHash)) return true;
    const ticket = await attempts.findCopied(attemptHash);
    if (ticket === null) return false;
    const outcome = codeOutcomes.open(attemptHash, ticket);
    const isFinal = outcome?.kind === "exchanged" || outcome?.code === "provider_rejected";
    return !isFinal && (await attempts.beginAgain(attemptHash, ticket));
  };

  const exchange = async (
    context: AuthorizationContext,
    { answer, issuer }: { answer: CodeAnswer | Refusal; issuer: string | null },
  ): Promise<ExchangedCode> => {
    const { connection, definition, destination } = context;
    if (answer.kind !== "code") {
      const why = answer.kind === "denied" ? "access was denied" : answer.detail;
      await refuse(deps, context, answer);
      throw new BrokerError("provider_rejected", `The address holds no code that counts: ${why}`);
    }
    const { code, captured } = answer;
    const { manualRedirectUri: redirectUri } = requireManualCode(definition);
    // The nonce of its request is not known. Issuer and audience of an id_token are compared.
    const idToken = { nonce: null, issuer };
    const sent = { connection, code, captured, codeVerifier: null, redirectUri, destination, idToken };
    return exchangedCodeOf(await authorizations.exchangeCode({ ...sent, cannotWait: false }));
  };

  /** What a code is noted by. If it came before the encryption key changed, it is noted by another key's MAC. */
  const notedHash = async (proofs: readonly string[]): Promise<Uint8Array<ArrayBuffer>> => {
    const [own, ...others] = proofs.map(sha256) as [Uint8Array<ArrayBuffer>, ...Uint8Array<ArrayBuffer>[]];
    return (others.length === 0 ? null : await attempts.firstOf(others)) ?? own;
  };

  /**
   * Exchanges a copied code once. A caller that brings the same one meanwhile, on any replica, waits for the outcome; after the provider's
   * answer it gets that answer again. @throws BrokerError also if the code would need PKCE
   */
  const exchangeOnce = async (connectionId: string, pasted: string): Promise<ExchangedCode> => {
    const context = await links.contextById(connectionId);
    const { definition, clientId, inputs, destination } = context;
    const { pkce } = requireManualCode(definition);
    if (pkce === "required") {
      const detail = `The provider ${definition.id} wants PKCE: use a consent link with manual.`;
      throw new BrokerError("grant_not_applicable", detail);
    }
    const issuer = expectedIssuer(definition, { client: { id: clientId }, inputs });
    const answer = readPasted(context, pasted, { state: null, issuer });
    // Stored as a MAC, which only this broker can make: a hash of a short code could be guessed.
    const about = JSON.stringify([connectionId, destination, pasted.trim()]);
    const attemptHash = await notedHash(formKeys.signWithEach("handed code", about));
    if (!(await begins(attemptHash))) {
      return await codeOutcomes.repeated(context.connectionName, await codeOutcomes.await(attemptHash));
    }
    try {
      const exchanged = await exchange(context, { answer, issuer: issuer.issuer });
      await codeOutcomes.note(attemptHash, { kind: "exchanged", exchanged });
      return exchanged;
    } catch (error) {
      await codeOutcomes.note(attemptHash, failureOf(error));
      throw error;
    }
  };

  /** Whether it is the first time, or the provider has not answered about the code before. */
  const beginOrAgain = async (attempt: Attempt, browser: string): Promise<boolean> => {
    if (await attempts.begin(attempt)) return true;
    const noted = await attempts.find(attempt.attemptHash);
    if (noted === null || noted.ticket === null) return false;
    const { ending } = openTicket(deps, { ticket: noted.ticket, browser });
    const isFinal = ending.outcome !== "problem" || ending.problem === "provider_refused";
    return !isFinal && (await attempts.beginAgain(attempt.attemptHash, noted.ticket));
  };

  return {
    /**
     * Exchanges a copied code that comes by the API, without a browser.
     * @throws BrokerError `account_changed` where another account waits to be confirmed; `provider_rejected`, `conflict`, …
     */
    async submit(principal: Principal, name: string, code: string): Promise<ConnectionRecord> {
      const record = await connections.getToUse(principal, name);
      if (deps.completion === "app") throw forbiddenHere("A code that is handed in", { connection: name });
      requireConsentGrant(record);
      requireCodeGrant(record);
      const { id, status } = record;
      if (status === "disabled") {
        throw new BrokerError("connection_disabled", "This connection is disabled; enable it first.", {
          connection: name,
        });
      }
      const { held } = await namingHolders(principal, () => exchangeOnce(id, code));
      if (held !== null) throw otherAccount(record, held);
      return await connections.get(principal, name);
    },

    /**
     * Exchanges a code that the person has copied from the provider's page, or the whole address with it. Returns the ticket of the page with the
     * outcome. The same text a second time gets the same outcome.
     */
    async completeManually(form: ConsentForm, pasted: string): Promise<string> {
      const { link, browser } = form;
      const about = JSON.stringify([link, browser, pasted.trim()]);
      // Stored as a MAC, too.
      const attemptHash = await notedHash(formKeys.signWithEach("copied code", about));
      const attempt = { attemptHash, browserHash: sha256(browser), linkId: parseLinkToken(link)?.id ?? "" };
      const opened = await links.claim(form).catch(async (error: unknown) => {
        const noted = isUsedLink(error) ? await attempts.find(attempt.attemptHash) : null;
        if (noted === null) throw error;
        return noted;
      });
      if ("ticket" in opened) return await outcomes.awaitEnding(opened);
      const { row, context } = opened;
      if (!row.manual) throw new ConsentError("malformed", "This link takes no code.");
      const asked = copiedCodeRequest(deps, opened, form);
      const answer = readPasted(context, pasted, asked);
      const isFirst = await beginOrAgain(attempt, form.browser);
      if (!isFirst) return await outcomes.awaitEnding({ ...attempt, ticket: null, isOverdue: false });
      const by = { madeBy: row.createdBy, address: form.address, binding: bindingOf(row) };
      return await outcomes.conclude({ attempt, context, by }, async () => {
        if (answer.kind !== "code") return await refuse(deps, context, answer);
        const { code, captured } = answer;
        const { codeVerifier, redirectUri, nonce } = asked;
        const idToken = { nonce, issuer: asked.issuer.issuer };
        const { connection, destination } = context;
        const given: CodeExchange = {
          connection,
          code,
          captured,
          codeVerifier,
          redirectUri,
          destination,
          idToken,
          cannotWait: false,
        };
        if (!(await deps.linkRows.reserve(row.id))) throw new ConsentError("used_link");
        return endingOf(context, await exchangeForLink(deps, row.id, given));
      });
    },
  };
}

function requireCodeGrant({ grant, name }: ConnectionRecord): void {
  if (rulesOfGrant(grant).consent === "redirect") return;
  throw new BrokerError("grant_not_applicable", `A ${grant} connection takes no code.`, { connection: name });
}

function isUsedLink(error: unknown): boolean {
  return error instanceof ConsentError && error.problem === "used_link";
}
