import type { Clock } from "../clock.ts";
import type { ProviderDefinition } from "../providers/format/definition.ts";
import type { AuthorizationRequests, ConsentAttempts, ConsentLinks } from "../store/consents.ts";
import type { DeviceCode } from "../tokens/devices.ts";
import type { TokenVault } from "../vault/vault.ts";
import type {
  DecideAccount,
  DeviceCalls,
  ExchangeCode,
  FindHeld,
  LoadAuthorizationContext,
  PushRequest,
  RecordConsentEvent,
} from "./context.ts";
import { completeManually, copiedCodeRequest, exchangeHandedCode } from "./handed-code.ts";
import {
  type BrowserAtLink,
  checkLinkRequest,
  type ConsentForm,
  createLinkToken,
  csrfToken,
  defaultLinkSeconds,
  type FormKeys,
  formOf,
  type LinkRequest,
  named,
  openLink,
  parseLinkToken,
  scopesInWords,
  sha256,
} from "./links.ts";
import { type AccountForm, decideAccount, type Ending, sealTicket, showEnding, type TicketParts } from "./outcome.ts";
import { begin, type CallbackRequest, complete, openPosted, sealPosted } from "./round-trip.ts";

/** What the consent page asks. `manual` is the address to copy a code from, where the link is for that. */
export type ConsentQuestion = {
  connectionName: string;
  providerName: string;
  /** What the account is connected for, in the words of whoever made the link. */
  purpose: string | null;
  clientId: string;
  scopes: { scope: string; words: string | null }[];
  expiresAt: Date;
  csrf: string;
  manual: { authorizationUrl: string } | null;
  /** The code to type in at the provider, where this browser has begun so. */
  device: DeviceCode | null;
};

/** What the page of an attempt shows when nothing went wrong: a denial is an answer too. */
export type ConsentAnswer =
  | (Extract<Ending, { outcome: "connected" | "denied" | "kept" }> & { returnTo: string | null })
  | (Extract<Ending, { outcome: "other_account" }> & { csrf: string })
  | { outcome: "working" };

export type ConsentService = ReturnType<typeof createConsentService>;

/**
 * Consent from the link to the exchanged code: docs/internals/consent.md has the states, docs/consent.md the outcomes.
 * What a person meets throws ConsentError; what ops ask for, and what the exchange reports, BrokerError.
 */
export function createConsentService(parts: ConsentParts) {
  return {
    createLink: async (request: LinkRequest) => await createLink(parts, request),
    describe: async (at: BrowserAtLink) => await describe(parts, at),
    /** What came of an attempt, by the ticket in its page's address. */
    showEnding: async (at: { ticket: string; browser: string | null }) => await showEnding(parts, at),
    begin: async (form: ConsentForm) => await begin(parts, form),
    /** Whether a provider's answer may come as a POST. */
    takesPost: (provider: string) => parts.findDefinition(provider)?.authorization?.responseMode === "form_post",
    sealPosted: (given: Parameters<typeof sealPosted>[1]) => sealPosted(parts, given),
    openPosted: (given: Parameters<typeof openPosted>[1]) => openPosted(parts, given),
    complete: async (given: CallbackRequest) => await complete(parts, given),
    decideAccount: async (form: AccountForm) => await decideAccount(parts, form),
    /** The ticket of what came of the user code that this browser was shown; null: nothing has. */
    outcomeOfCode: async (at: BrowserAtLink) => await outcomeOfCode(parts, at),
    completeManually: async (form: ConsentForm, pasted: string) => await completeManually(parts, form, pasted),
    exchangeHandedCode: async (given: { connectionId: string; code: string }) => await exchangeHandedCode(parts, given),
  };
}

/** A new link for a connection. @throws BrokerError `invalid_request`, `grant_not_applicable`, `connection_disabled` */
async function createLink(parts: ConsentParts, request: LinkRequest) {
  checkLinkRequest(request, await parts.loadContext(request.connectionId), parts.returnOrigins);
  const { connectionId, createdBy, returnTo = null, manual = false } = request;
  const purpose = request.purpose?.trim() ?? null;
  const { id, secretHash, token } = createLinkToken(parts.random.bytes);
  const expiresInSeconds = request.expiresInSeconds ?? defaultLinkSeconds;
  const row = { id, secretHash, connectionId, createdBy, returnTo, manual, purpose, expiresInSeconds };
  const { expiresAt } = await parts.links.insert(row);
  const detail = { link: id, created_by: createdBy, expires_at: expiresAt.toISOString() };
  await parts.recordEvent({ connectionId, type: "consent_link_created", detail });
  return { id, url: `${parts.publicUrl}/connect/${token}`, expiresAt };
}

/** What to ask the person. Changes nothing. */
async function describe(parts: ConsentParts, at: BrowserAtLink): Promise<ConsentQuestion> {
  const opened = await openLink(parts, at);
  const { row, context } = opened;
  const { connectionName, clientId, definition } = context;
  const form = { ...at, csrf: csrfToken(parts.formKeys, formOf(parts, at, opened)) };
  const device = context.grant === "device_code" ? await parts.devices.pending(row.connectionId) : null;
  return {
    connectionName,
    clientId,
    providerName: definition.name,
    purpose: row.purpose,
    scopes: scopesInWords(context),
    expiresAt: row.expiresAt,
    csrf: form.csrf,
    manual: row.manual ? { authorizationUrl: copiedCodeRequest(parts, opened, form).authorizationUrl } : null,
    device: device?.linkId === row.id ? device : null,
  };
}

/** Where a code is typed in elsewhere, no callback tells the browser that has claimed the link. */
async function outcomeOfCode(parts: ConsentParts, { link, browser }: BrowserAtLink): Promise<string | null> {
  const key = parseLinkToken(link);
  const row = key && (await parts.links.find(key));
  if (!row?.claimedBy || !Buffer.from(row.claimedBy).equals(sha256(browser))) return null;
  const context = await parts.loadContext(row.connectionId);
  if (context.grant !== "device_code") return null;
  const { account, endsSoon } = context;
  const subject = named(context);
  const attempt = { browserHash: sha256(browser), linkId: row.id };
  if (row.used) {
    const connected = { ...attempt, attemptHash: sha256(`user code ${row.id}`) };
    return sealTicket(parts, connected, { ...subject, outcome: "connected", account, endsSoon });
  }
  const held = row.expired ? null : await parts.findHeld({ connectionId: row.connectionId, linkId: row.id });
  if (held === null) return null;
  const { attemptId } = held;
  const asked = {
    ...subject,
    outcome: "other_account",
    held: attemptId,
    was: account,
    is: held.label,
  } as const;
  return sealTicket(parts, { ...attempt, attemptHash: sha256(`user code ${attemptId}`) }, asked);
}

/** What a consent works with. */
export type ConsentParts = TicketParts & {
  links: ConsentLinks;
  attempts: ConsentAttempts;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
  requests: AuthorizationRequests;
  vault: Pick<TokenVault, "sealRequest" | "openRequest">;
  loadContext: LoadAuthorizationContext;
  /** The definition in force of a provider. */
  findDefinition: (provider: string) => ProviderDefinition | undefined;
  exchangeCode: ExchangeCode;
  decideAccount: DecideAccount;
  findHeld: FindHeld;
  pushRequest: PushRequest;
  devices: DeviceCalls;
  recordEvent: RecordConsentEvent;
  /** An origin, without a trailing slash. */
  publicUrl: string;
  /** Who asks, as the pages say it. */
  organisation: { name: string | null; contact: string | null };
  returnOrigins: readonly string[];
  /** Authorization requests of one link that may wait for their callback at a time. */
  openRequestsPerLink: number;
  random: { bytes: (size: number) => Uint8Array; uuid: () => string };
  /** Forms and hand-copied codes are bound by them. */
  formKeys: FormKeys;
};
