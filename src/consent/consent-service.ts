import { BrokerError } from "../errors.ts";
import { buildAuthorizationUrl, createPkce } from "../providers/authorization-request.ts";
import type { ProviderDefinition } from "../providers/definition.ts";
import type { AuthorizationRequests } from "../store/authorization-requests.ts";
import type { ConsentLinkRow, ConsentLinks } from "../store/consent-links.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { csrfMatches, csrfToken, derivedBytes, type BrowserAtLink } from "./browser.ts";
import { readAnswer, readPastedCode } from "./callback.ts";
import type { AuthorizationContext, ExchangeCode, LoadAuthorizationContext, RecordConsentEvent } from "./context.ts";
import { checkLinkRequest, defaultLinkSeconds, requireManualCode, type LinkRequest } from "./link-request.ts";
import { createLinkToken, parseLinkToken, sha256 } from "./link-token.ts";
import { ConsentError } from "./problem.ts";

const stateSeconds = 600;
const stateBytes = 32;

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

export type ConsentForm = BrowserAtLink & { csrf: string };

export type ConsentService = ReturnType<typeof createConsentService>;

export type ConsentOptions = {
  links: ConsentLinks;
  requests: AuthorizationRequests;
  vault: Pick<TokenVault, "sealVerifier" | "openVerifier">;
  loadContext: LoadAuthorizationContext;
  exchangeCode: ExchangeCode;
  recordEvent: RecordConsentEvent;
  /** An origin, without a trailing slash. */
  publicUrl: string;
  returnOrigins: readonly string[];
  random: { bytes: (size: number) => Uint8Array; uuid: () => string };
  /** 32 bytes that stay the same for all replicas and restarts: forms and hand-copied codes are bound by it. */
  formKey: Uint8Array;
};

/**
 * Consent from the link to the exchanged code: docs/consent.md has the state machine and the outcomes.
 * What a person meets throws ConsentError; what ops ask for, and what the exchange reports, BrokerError.
 */
export function createConsentService(options: ConsentOptions) {
  const { links, requests, vault, loadContext, exchangeCode, recordEvent, publicUrl, random, formKey } = options;

  const redirectUriOf = (definition: ProviderDefinition) => `${publicUrl}/callback/${definition.id}`;

  /** The row of a link and what it is for, if this browser may go on with it. */
  const open = async ({ link, browser }: BrowserAtLink) => {
    const key = parseLinkToken(link);
    const row = key && (await links.find(key));
    if (!key || !row) throw new ConsentError("unknown_link");
    requireOpen(row, browser);
    const context = await loadContext(row.connectionId);
    if (context.disabled) throw new ConsentError("connection_disabled");
    return { key, row, context };
  };

  /** The same for a POST, which also makes the link this browser's own. */
  const claim = async ({ link, browser, csrf }: ConsentForm) => {
    if (!csrfMatches(formKey, { link, browser }, csrf)) throw new ConsentError("stale_form");
    const opened = await open({ link, browser });
    if (!(await links.claim(opened.key, sha256(browser)))) {
      const row = await links.find(opened.key);
      if (row) requireOpen(row, browser);
      throw new ConsentError("unknown_link"); // deleted since it was opened
    }
    return opened;
  };

  /** One exchange at a time for a link: it is used from here on, unless the exchange fails. */
  const exchange = async (linkId: string, given: Parameters<ExchangeCode>[0]) => {
    if (!(await links.reserve(linkId))) throw new ConsentError("used_link");
    try {
      return await exchangeCode(given);
    } catch (error) {
      // With the database away the link stays used: a new one can be made, a code cannot be sent twice.
      await links.release(linkId).catch(() => undefined);
      throw error;
    }
  };

  /** The same address at every look, since a GET stores nothing. */
  const manualRequest = ({ definition, clientId, inputs, scopes }: AuthorizationContext, at: BrowserAtLink) => {
    const { manualRedirectUri } = requireManualCode(definition);
    const pkce = createPkce({ definition, randomBytes: derivedBytes(formKey, "verifier", at) });
    const authorizationUrl = buildAuthorizationUrl({
      definition,
      values: { client: { id: clientId }, inputs, redirectUri: manualRedirectUri ?? undefined },
      state: derivedBytes(formKey, "state", at)(stateBytes).toString("base64url"),
      codeChallenge: pkce,
      scopes,
    });
    return { authorizationUrl, codeVerifier: pkce?.verifier ?? null, redirectUri: manualRedirectUri };
  };

  return {
    /** A new link for a connection. @throws BrokerError `invalid_request`, `grant_not_applicable`, `connection_disabled` */
    async createLink(request: LinkRequest): Promise<{ id: string; url: string; expiresAt: Date }> {
      checkLinkRequest(request, await loadContext(request.connectionId), options.returnOrigins);
      const { connectionId, createdBy, returnTo = null, manual = false } = request;
      const { id, secretHash, token } = createLinkToken(random.bytes);
      const expiresInSeconds = request.expiresInSeconds ?? defaultLinkSeconds;
      const row = { id, secretHash, connectionId, createdBy, returnTo, manual, expiresInSeconds };
      const { expiresAt } = await links.insert(row);
      const detail = { link: id, created_by: createdBy, expires_at: expiresAt.toISOString() };
      await recordEvent({ connectionId, type: "consent_link_created", detail });
      return { id, url: `${publicUrl}/connect/${token}`, expiresAt };
    },

    /** What to ask the person. Changes nothing. */
    async describe(at: BrowserAtLink): Promise<ConsentQuestion> {
      const { row, context } = await open(at);
      const { connectionName, clientId, definition, scopes } = context;
      return {
        connectionName,
        clientId,
        providerName: definition.name,
        scopes: scopes.map((scope) => ({ scope, words: wordsFor(definition, scope) })),
        expiresAt: row.expiresAt,
        csrf: csrfToken(formKey, at),
        manual: row.manual ? { authorizationUrl: manualRequest(context, at).authorizationUrl } : null,
      };
    },

    /** Claims the link and makes the way to the provider (RFC 6749, section 4.1.1; RFC 7636, section 4.3). */
    async begin(form: ConsentForm): Promise<{ authorizationUrl: string }> {
      const { row, context } = await claim(form);
      if (row.manual) throw new ConsentError("malformed", "The code is missing.");
      const { definition, clientId, inputs, scopes } = context;
      const pkce = createPkce({ definition, randomBytes: random.bytes });
      const state = Buffer.from(random.bytes(stateBytes)).toString("base64url");
      const redirectUri = redirectUriOf(definition);
      const values = { client: { id: clientId }, inputs, redirectUri };
      const authorizationUrl = buildAuthorizationUrl({ definition, values, state, codeChallenge: pkce, scopes });
      const id = random.uuid();
      await requests.insert({
        id,
        stateHash: sha256(state),
        connectionId: row.connectionId,
        linkId: row.id,
        browserHash: sha256(form.browser),
        verifier: pkce && vault.sealVerifier(pkce.verifier, { requestId: id }),
        redirectUri,
        expiresInSeconds: stateSeconds,
      });
      return { authorizationUrl };
    },

    /** The callback (RFC 6749, section 4.1.2; RFC 9207): consumes the state, then exchanges the code at once. */
    async complete(given: { provider: string; query: Readonly<Record<string, unknown>>; browser: string | null }) {
      const request = await consume(requests, given);
      const context = await loadContext(request.connectionId);
      const { definition, connectionName } = context;
      const { connectionId, returnTo, redirectUri } = request;
      const ended = { connectionName, providerName: definition.name, returnTo };
      const answer = readAnswer(context, given.query);
      if (answer.kind === "denied") {
        await recordEvent({ connectionId, type: "consent_denied", detail: {} });
        return { ...ended, outcome: "denied" } satisfies ConsentAnswer;
      }
      if (answer.kind === "failed") {
        await recordEvent({ connectionId, type: "consent_failed", detail: { error: answer.error } });
        throw new ConsentError("provider_refused", answer.detail);
      }
      if (context.disabled) throw new ConsentError("connection_disabled");
      const { code, captured } = answer;
      const codeVerifier = request.verifier && vault.openVerifier(request.verifier, { requestId: request.id });
      await exchange(request.linkId, { connectionId, code, captured, codeVerifier, redirectUri });
      return { ...ended, outcome: "connected" } satisfies ConsentAnswer;
    },

    /** A code that the person copied from the provider's page, or the whole address that holds it. */
    async completeManually(form: ConsentForm, pasted: string): Promise<ConsentAnswer> {
      const { row, context } = await claim(form);
      if (!row.manual) throw new ConsentError("malformed", "This link takes no code.");
      const code = readPastedCode(context.definition, pasted);
      const { codeVerifier, redirectUri } = manualRequest(context, form);
      await exchange(row.id, { connectionId: row.connectionId, code, captured: {}, codeVerifier, redirectUri });
      const { connectionName, definition } = context;
      return { outcome: "connected", connectionName, providerName: definition.name, returnTo: row.returnTo };
    },

    /** A copied code that ops hand over without a browser. @throws BrokerError also where it would need PKCE */
    async exchangeCopiedCode(given: { connectionId: string; code: string }): Promise<{ connectionName: string }> {
      const { definition } = await loadContext(given.connectionId);
      const { pkce, manualRedirectUri } = requireManualCode(definition);
      if (pkce === "required") {
        throw new BrokerError(
          "grant_not_applicable",
          `The provider ${definition.id} wants PKCE: use a consent link with manual.`,
        );
      }
      const code = readPastedCode(definition, given.code);
      return await exchangeCode({ ...given, code, codeVerifier: null, redirectUri: manualRedirectUri, captured: {} });
    },
  };
}

async function consume(
  requests: AuthorizationRequests,
  { provider, query, browser }: { provider: string; query: Readonly<Record<string, unknown>>; browser: string | null },
) {
  const { state } = query;
  if (typeof state !== "string" || state === "") throw new ConsentError("invalid_state");
  const stateHash = sha256(state);
  const browserHash = sha256(browser ?? "");
  const request = await requests.consume({ stateHash, browserHash, provider });
  if (request) return request;
  const elsewhere = await requests.waitsElsewhere(stateHash, browserHash);
  throw new ConsentError(elsewhere ? "wrong_browser" : "invalid_state");
}

function requireOpen({ used, expired, claimedBy }: ConsentLinkRow, browser: string): void {
  if (used) throw new ConsentError("used_link");
  if (expired) throw new ConsentError("expired_link");
  if (claimedBy && !Buffer.from(claimedBy).equals(sha256(browser))) throw new ConsentError("wrong_browser");
}

function wordsFor({ scopeDescriptions }: ProviderDefinition, scope: string): string | null {
  return Object.hasOwn(scopeDescriptions, scope) ? (scopeDescriptions[scope] ?? null) : null;
}
