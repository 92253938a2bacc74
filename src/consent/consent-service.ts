import type { ProviderDefinition } from "../providers/definition.ts";
import { csrfToken, type BrowserAtLink } from "./browser.ts";
import { completeManually, copiedCodeRequest, exchangeCopiedCode } from "./copied-code.ts";
import { checkLinkRequest, defaultLinkSeconds, type LinkRequest } from "./link-request.ts";
import { createLinkToken } from "./link-token.ts";
import { openLink, type ConsentForm } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { begin, complete, type CallbackRequest } from "./round-trip.ts";

/** What the consent page asks. `manual` is the address to copy a code from, where the link is for that. */
export type ConsentQuestion = {
  connectionName: string;
  providerName: string;
  clientId: string;
  scopes: { scope: string; words: string | null }[];
  expiresAt: Date;
  csrf: string;
  manual: { authorizationUrl: string } | null;
};

/** How a consent ended, when nothing went wrong: a denial is an answer too. */
export type ConsentAnswer = {
  outcome: "connected" | "denied";
  connectionName: string;
  providerName: string;
  returnTo: string | null;
};

export type ConsentService = ReturnType<typeof createConsentService>;

/**
 * Consent from the link to the exchanged code: docs/consent.md has the state machine and the outcomes.
 * What a person meets throws ConsentError; what ops ask for, and what the exchange reports, BrokerError.
 */
export function createConsentService(parts: ConsentParts) {
  return {
    createLink: async (request: LinkRequest) => await createLink(parts, request),
    describe: async (at: BrowserAtLink) => await describe(parts, at),
    begin: async (form: ConsentForm) => await begin(parts, form),
    complete: async (given: CallbackRequest) => await complete(parts, given),
    completeManually: async (form: ConsentForm, pasted: string) => await completeManually(parts, form, pasted),
    exchangeCopiedCode: async (given: { connectionId: string; code: string }) => await exchangeCopiedCode(parts, given),
  };
}

/** A new link for a connection. @throws BrokerError `invalid_request`, `grant_not_applicable`, `connection_disabled` */
async function createLink(parts: ConsentParts, request: LinkRequest) {
  checkLinkRequest(request, await parts.loadContext(request.connectionId), parts.returnOrigins);
  const { connectionId, createdBy, returnTo = null, manual = false } = request;
  const { id, secretHash, token } = createLinkToken(parts.random.bytes);
  const expiresInSeconds = request.expiresInSeconds ?? defaultLinkSeconds;
  const row = { id, secretHash, connectionId, createdBy, returnTo, manual, expiresInSeconds };
  const { expiresAt } = await parts.links.insert(row);
  const detail = { link: id, created_by: createdBy, expires_at: expiresAt.toISOString() };
  await parts.recordEvent({ connectionId, type: "consent_link_created", detail });
  return { id, url: `${parts.publicUrl}/connect/${token}`, expiresAt };
}

/** What to ask the person. Changes nothing. */
async function describe(parts: ConsentParts, at: BrowserAtLink): Promise<ConsentQuestion> {
  const { row, context } = await openLink(parts, at);
  const { connectionName, clientId, definition, scopes } = context;
  const { formKey } = parts;
  return {
    connectionName,
    clientId,
    providerName: definition.name,
    scopes: scopes.map((scope) => ({ scope, words: wordsFor(definition, scope) })),
    expiresAt: row.expiresAt,
    csrf: csrfToken(formKey, at),
    manual: row.manual ? { authorizationUrl: copiedCodeRequest(context, { formKey, at }).authorizationUrl } : null,
  };
}

function wordsFor({ scopeDescriptions }: ProviderDefinition, scope: string): string | null {
  return Object.hasOwn(scopeDescriptions, scope) ? (scopeDescriptions[scope] ?? null) : null;
}
