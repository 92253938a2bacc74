import { createHash, hkdfSync } from "node:crypto";
import { BrokerError, connectionNotFound, forbiddenHere } from "../errors.ts";
import { type CompletionRule, rulesOfGrant } from "../grant-types.ts";
import { type ConnectionGrant, fixedClientId, type ProviderDefinition } from "../providers/format/definition.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import {
  buildAuthorizationUrl,
  type CodeDestination,
  codeDestinationOf,
  createNonce,
  createPkce,
  expectedIssuer,
  redirectUriOf,
} from "../providers/oauth/authorization-request.ts";
import type { Discovery } from "../providers/oauth/discovery.ts";
import type { ConnectionService } from "../services/connections.ts";
import type { Principal } from "../callers/principal.ts";
import type { ConnectionRecord, Connections } from "../store/connections.ts";
import type { ConsentLinkRow, ConsentLinks, LinkKey } from "../store/consents.ts";
import type { RowWithClient, TokenStatements } from "../store/token-statements.ts";
import { readableLine, readableName } from "../text.ts";
import { consentTimes } from "../time.ts";
import type { DeviceCode, Devices } from "../tokens/devices.ts";
import { openClientSecrets } from "../tokens/request.ts";
import { endsWithItsToken } from "../tokens/row-rules.ts";
import type { Keyring } from "../vault/keyring.ts";
import type { TokenVault } from "../vault/vault.ts";
import { ConsentError, type ConsentProblem, type ConsentSubject } from "./problem.ts";

/** What a consent needs to know of a connection. */
export type AuthorizationContext = {
  /** As it was read, for the exchange of a code. */
  connection: RowWithClient;
  connectionId: string;
  connectionName: string;
  definition: ProviderDefinition;
  clientId: string;
  /** Opens the client's secrets, for signed callbacks: the newest, and the one before while it may still be in use. */
  clientSecrets: () => readonly string[];
  /** Those of connection and client together. */
  inputs: Record<string, string>;
  scopes: string[];
  disabled: boolean;
  /** How it gets its tokens: by an authorization code or a user code. */
  grant: string;
  /** The account that it is connected to; null: none, or not known. */
  account: string | null;
  /** It is connected without a refresh token: the access ends with its first token. */
  endsSoon: boolean;
  /** Where the provider sends the browser back to. */
  redirectUri: string;
  destination: CodeDestination;
};

export type ContextOf = ReturnType<typeof createContextOf>;

type ContextDeps = {
  catalog: Pick<Catalog, "get">;
  discovery: Pick<Discovery, "complete">;
  vault: Pick<TokenVault, "connections" | "clients" | "openClientSecret">;
  publicUrl: string;
};

/**
 * Reads a connection and its client as a consent sees them. Both must be as this broker has written them.
 * @throws BrokerError `conflict` (its provider's definition, or its client, is gone), `unreadable_secret`
 */
export function createContextOf({ catalog, discovery, vault, publicUrl }: ContextDeps) {
  return async (connection: RowWithClient): Promise<AuthorizationContext> => {
    const { row, client } = connection;
    vault.connections.check(row);
    const known = catalog.get(row.provider);
    if (known === undefined) {
      throw new BrokerError("conflict", `This broker has no definition of the provider "${row.provider}" any more.`);
    }
    if (client !== null) vault.clients.check(client);
    const clientId = client?.clientId ?? fixedClientId(known, row.grant as ConnectionGrant);
    if (clientId === null) throw new BrokerError("conflict", "This connection has no client.");
    const destination = codeDestinationOf(row, client);
    const { inputs } = destination;
    return {
      connection,
      connectionId: row.id,
      connectionName: row.name,
      definition: await discovery.complete(known, { client: { id: clientId }, inputs }),
      clientId,
      clientSecrets: () => (client === null ? [] : openClientSecrets(vault, client)),
      inputs,
      scopes: row.scopes,
      disabled: row.status === "disabled",
      grant: row.grant,
      account: readableName(row.accountLabel ?? row.account),
      endsSoon: endsWithItsToken(row),
      redirectUri: redirectUriOf(publicUrl, {
        provider: row.provider,
        client: client?.ownRedirectUri ? client.name : null,
      }),
      destination,
    };
  };
}

/** What the consent page shows. `manual`: the address to copy a code from, if the link is for that. */
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
  /** The user code, if this browser has asked for one. */
  device: DeviceCode | null;
  /** The host of the app that completes the consent, and to which the browser comes back; null: it ends on a page here. */
  endsAt: string | null;
};

/** A form that a browser sent, and from which address. */
export type ConsentForm = BrowserAtLink & { csrf: string; address: string };

export type OpenedLink = { key: LinkKey; row: ConsentLinkRow; context: AuthorizationContext };
/** What the forms of a link's page depend on. */
export type LinkPage = { row: Pick<ConsentLinkRow, "manual" | "purpose">; context: AuthorizationContext };

export type Links = ReturnType<typeof createLinks>;

type LinkDeps = {
  linkRows: ConsentLinks;
  rows: Pick<TokenStatements, "readWithClient">;
  records: Pick<Connections, "addEvent">;
  connections: Pick<ConnectionService, "getToUse">;
  devices: Pick<Devices, "pending">;
  contextOf: ContextOf;
  formKeys: FormKeys;
  organisation: Organisation;
  /** An origin, without a trailing slash. */
  publicUrl: string;
  returnOrigins: readonly string[];
  completion: CompletionRule;
  randomBytes: RandomBytes;
};

/** Who asks, as the pages say it. */
export type Organisation = { name: string | null; contact: string | null };

/**
 * Consent links, from their creation to the browser that goes on with one: docs/internals/consent.md, "A link". Calls for a person throw
 * ConsentError, calls for an operator BrokerError.
 */
export function createLinks(deps: LinkDeps) {
  const { linkRows, rows, contextOf, formKeys, organisation } = deps;

  const contextById = async (connectionId: string): Promise<AuthorizationContext> => {
    const read = await rows.readWithClient(connectionId);
    if (read === null) throw connectionNotFound("");
    return await contextOf(read);
  };

  /** Names for the page. It can be shown without them, too. */
  const subjectOf = async (connectionId: string): Promise<{ subject?: ConsentSubject }> => {
    const context = await contextById(connectionId).catch(() => null);
    return context === null ? {} : { subject: named(context) };
  };

  /** The row of a link and its connection, if this browser may go on with it. Changes nothing. */
  const open = async ({ link, browser }: BrowserAtLink): Promise<OpenedLink> => {
    const key = parseLinkToken(link);
    const row = key && (await linkRows.find(key));
    if (!key || !row) throw new ConsentError("unknown_link");
    const problem = deps.completion === "app" && row.endUser === null ? "plain_link" : whyClosed(row, browser);
    if (problem !== null) throw new ConsentError(problem, null, await subjectOf(row.connectionId));
    const context = await contextById(row.connectionId);
    if (context.disabled) throw new ConsentError("connection_disabled", null, { subject: named(context) });
    return { key, row, context };
  };

  return {
    contextById,
    open,

    /**
     * A new link for a connection.
     * @throws BrokerError `connection_not_found`, `invalid_request`, `grant_not_applicable`, `connection_disabled`
     */
    async create(principal: Principal, name: string, request: LinkRequest) {
      const record = await deps.connections.getToUse(principal, name);
      requireConsentGrant(record);
      const connectionId = record.id;
      checkLinkRequest(request, await contextById(connectionId), deps);
      const { returnTo = null, manual = false, endUser = null } = request;
      const purpose = request.purpose?.trim() ?? null;
      const { id, secretHash, token } = createLinkToken(deps.randomBytes);
      const expiresInSeconds = request.expiresInSeconds ?? consentTimes.linkSeconds;
      const createdBy = principal.callerId;
      const row = { id, secretHash, connectionId, createdBy, returnTo, manual, purpose, endUser, expiresInSeconds };
      const { expiresAt } = await linkRows.insert(row);
      const detail = { link: id, created_by: createdBy, expires_at: expiresAt.toISOString() };
      await deps.records.addEvent(connectionId, "consent_link_created", detail);
      return { id, url: `${deps.publicUrl}/connect/${token}`, expiresAt };
    },

    /** What the page asks the person. Changes nothing. */
    async describe(at: BrowserAtLink): Promise<ConsentQuestion> {
      const opened = await open(at);
      const { row, context } = opened;
      const { connectionName, clientId, definition } = context;
      const csrf = csrfToken(formKeys, formOf(deps, at, opened));
      const device =
        rulesOfGrant(context.grant).consent === "user_code" ? await deps.devices.pending(row.connectionId) : null;
      return {
        connectionName,
        clientId,
        providerName: definition.name,
        purpose: row.purpose,
        scopes: scopesInWords(context),
        expiresAt: row.expiresAt,
        csrf,
        manual: row.manual
          ? { authorizationUrl: copiedCodeRequest(deps, opened, { ...at, csrf }).authorizationUrl }
          : null,
        device: device?.linkId === row.id ? device : null,
        endsAt: row.endUser === null || row.returnTo === null ? null : new URL(row.returnTo).host,
      };
    },

    /** The same as `open` for a form that was sent. It also claims the link for this browser. */
    async claim(form: ConsentForm): Promise<OpenedLink> {
      const opened = await open(form);
      if (!csrfMatches(formKeys, formOf({ organisation }, form, opened), form.csrf)) {
        throw new ConsentError("stale_form", null, { subject: named(opened.context) });
      }
      if (await linkRows.claim(opened.key, sha256(form.browser))) return opened;
      const now = await linkRows.find(opened.key);
      const problem = (now && whyClosed(now, form.browser)) ?? "unknown_link"; // the link was deleted after it was opened
      throw new ConsentError(problem, null, { subject: named(opened.context) });
    },
  };
}

/** @throws BrokerError `grant_not_applicable` for a connection that no person connects */
export function requireConsentGrant({ grant, name }: Pick<ConnectionRecord, "grant" | "name">): void {
  if (rulesOfGrant(grant).consent !== null) return;
  throw new BrokerError("grant_not_applicable", `A ${grant} connection is not connected by consent.`, {
    connection: name,
  });
}

/**
 * What the form of a link's page is bound to: everything that the page shows, and where a code will go. If any of it changes, the form is
 * stale. So the person agrees to what they have read, and a code of one server never goes to another.
 */
export function formOf(
  { organisation }: { organisation: Organisation },
  { browser, link }: BrowserAtLink,
  { row, context }: LinkPage,
): BrowserAtLink {
  const { connectionName, definition, clientId, grant, redirectUri, destination } = context;
  const { name, contact } = organisation;
  const shown = [name, contact, connectionName, definition.name, clientId, row.purpose, scopesInWords(context)];
  return { browser, link: JSON.stringify([link, shown, row.manual, grant, redirectUri, destination]) };
}

/** The scopes as the page shows them; `words` null: its definition has none for that one. */
function scopesInWords({ scopes, definition }: AuthorizationContext): { scope: string; words: string | null }[] {
  const { scopeDescriptions } = definition;
  const wordsFor = (scope: string) => (Object.hasOwn(scopeDescriptions, scope) ? scopeDescriptions[scope] : undefined);
  return scopes.map((scope) => ({ scope, words: wordsFor(scope) ?? null }));
}

/** The address where a person gets a code to copy. A GET stores nothing, so all values are derived, and are the same for the form and its POST. */
export function copiedCodeRequest(
  { formKeys, organisation }: Pick<LinkDeps, "formKeys" | "organisation">,
  opened: LinkPage,
  form: Omit<ConsentForm, "address">,
) {
  const { context } = opened;
  const { definition, clientId, inputs, scopes } = context;
  const { manualRedirectUri: redirectUri } = requireManualCode(definition);
  const { browser, link } = formOf({ organisation }, form, opened);
  const derived = (purpose: string) => derivedBytes(formKeys, purpose, { browser, link, csrf: form.csrf });
  const pkce = createPkce({ definition, randomBytes: derived("verifier") });
  const nonce = createNonce({ definition, scopes, randomBytes: derived("nonce") });
  const state = derived("state")(32).toString("base64url");
  const values = { client: { id: clientId }, inputs, redirectUri: redirectUri ?? undefined };
  const authorizationUrl = buildAuthorizationUrl({ definition, values, state, nonce, codeChallenge: pkce, scopes });
  const issuer = expectedIssuer(definition, values);
  return { authorizationUrl, state, nonce, codeVerifier: pkce?.verifier ?? null, redirectUri, issuer };
}

function whyClosed({ used, expired, claimedBy }: ConsentLinkRow, browser: string): ConsentProblem | null {
  if (used) return "used_link";
  if (expired) return "expired_link";
  return claimedBy && !Buffer.from(claimedBy).equals(sha256(browser)) ? "wrong_browser" : null;
}

/** What a page may name to the holder of a link. */
export function named({ connectionName, definition }: AuthorizationContext): ConsentSubject {
  return { connectionName, providerName: definition.name };
}

const longestPurpose = 200;

/** Options of a new link. Absent: the default. */
export type LinkRequest = {
  expiresInSeconds?: number | undefined;
  returnTo?: string | null | undefined;
  manual?: boolean | undefined;
  /** What the account is connected for. The person reads it as it is. */
  purpose?: string | null | undefined;
  /** `app`: the browser comes back to `returnTo`, and the app completes the consent for `endUser`. Both are needed then. */
  completion?: "app" | undefined;
  /** The user of the app for whom the link is, by whatever id the app has for them. */
  endUser?: string | undefined;
};

/** @throws BrokerError `invalid_request` naming the field and what is allowed, or why this connection takes no consent */
function checkLinkRequest(
  request: LinkRequest,
  { definition, disabled, connectionName, grant }: AuthorizationContext,
  { returnOrigins, completion }: Pick<LinkDeps, "returnOrigins" | "completion">,
): void {
  if (disabled) {
    throw new BrokerError("connection_disabled", "The connection is disabled; enable it before it is connected.", {
      connection: connectionName,
    });
  }
  if (rulesOfGrant(grant).consent === "redirect") requireAuthorization(definition);
  const { expiresInSeconds = consentTimes.linkSeconds, returnTo = null, manual = false, purpose = null } = request;
  if (
    !Number.isInteger(expiresInSeconds) ||
    expiresInSeconds < 1 ||
    expiresInSeconds > consentTimes.longestLinkSeconds
  ) {
    throw invalid(`expires_in must be a whole number of seconds from 1 to ${consentTimes.longestLinkSeconds} (7 days)`);
  }
  if (request.completion === "app") checkAppLink(request, grant);
  else if (request.endUser !== undefined) throw invalid('end_user: goes with "completion": "app"');
  else if (completion === "app") throw forbiddenHere("A plain consent link");
  if (returnTo !== null) checkReturnTo(returnTo, returnOrigins);
  if (manual) requireManualCode(definition);
  if (purpose !== null) checkPurpose(purpose);
}

function checkAppLink({ endUser, returnTo = null, manual = false }: LinkRequest, grant: string): void {
  if (rulesOfGrant(grant).consent !== "redirect") {
    const detail = `No app can complete the consent of a ${grant} connection: no browser comes back with its code.`;
    throw new BrokerError("grant_not_applicable", detail);
  }
  if (endUser === undefined || !endUserShape.test(endUser)) {
    throw invalid(
      `end_user must be the id of the app's user, one line of 1 to ${longestEndUser} characters with a letter or a digit in it; "completion": "app" needs it`,
    );
  }
  if (returnTo === null) throw invalid('return_to is required with "completion": "app": the browser comes back to it');
  if (manual) throw invalid('manual must be left away with "completion": "app": no browser comes back with its code');
  const isBare = !returnTo.includes("#") && URL.parse(returnTo)?.searchParams.has("ticket") !== true;
  if (!isBare) throw invalid("return_to must have neither a fragment (#…) nor a parameter named ticket: one is added");
}

const longestEndUser = 200;
const endUserShape = new RegExp(readableLine(longestEndUser), "u");

/** The definition's authorize page. @throws BrokerError where the provider offers no authorization code grant */
function requireAuthorization({ authorization, id }: AuthorizationContext["definition"]) {
  if (authorization !== null) return authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `The provider ${id} has no authorize page: nobody needs to consent there.`,
  );
}

/** @throws BrokerError where the provider shows no code to copy */
export function requireManualCode(definition: AuthorizationContext["definition"]) {
  const authorization = requireAuthorization(definition);
  if (authorization.manualCode) return authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `The provider ${definition.id} shows no code to copy (its definition does not say manual_code); use a plain link.`,
  );
}

const purposeShape = new RegExp(readableLine(longestPurpose), "u");

function checkPurpose(purpose: string): void {
  if (purposeShape.test(purpose)) return;
  throw invalid(
    `purpose must be one line of 1 to ${longestPurpose} characters with a letter or a digit in it, without control or invisible characters`,
  );
}

function checkReturnTo(returnTo: string, returnOrigins: readonly string[]): void {
  if (returnOrigins.length === 0) {
    throw invalid("return_to is not allowed here: RETURN_ORIGINS names no origin");
  }
  const url = URL.canParse(returnTo) ? new URL(returnTo) : null;
  const allowed = url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  if (!allowed || !returnOrigins.includes(url.origin)) {
    throw invalid(`return_to must be an address at one of RETURN_ORIGINS: ${returnOrigins.join(", ")}`);
  }
}

const invalid = (detail: string) => new BrokerError("invalid_request", detail);

const idBytes = 8;
const secretBytes = 16;
const shape = new RegExp(`^([0-9a-f]{${idBytes * 2}})-([0-9a-f]{${secretBytes * 2}})$`);

type RandomBytes = (size: number) => Uint8Array;

/** SHA-256, which is enough for secrets with enough entropy. */
export function sha256(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(text).digest());
}

/** A new link: the row's id, the hash of its secret for the database, and the path segment for the link's holder. */
export function createLinkToken(randomBytes: RandomBytes) {
  const id = Buffer.from(randomBytes(idBytes)).toString("hex");
  const secret = Buffer.from(randomBytes(secretBytes)).toString("hex");
  return { id, secretHash: sha256(secret), token: `${id}-${secret}` };
}

/** Id and secret of a link; null if the text does not have the form of a link. */
export function parseLinkToken(token: string): { id: string; secretHash: Uint8Array<ArrayBuffer> } | null {
  const [, id, secret] = shape.exec(token) ?? [];
  return id === undefined || secret === undefined ? null : { id, secretHash: sha256(secret) };
}

const cookieShape = /^[A-Za-z0-9_-]{43}$/;

/** One browser at one link: what its forms and its verifiers are bound to. */
export type BrowserAtLink = { browser: string; link: string };

/** With https the `__Host-` prefix, which no other host and no plain http can set (RFC 6265bis, section 4.1.3.2). */
const cookieName = (publicUrl: string) =>
  publicUrl.startsWith("https:") ? "__Host-freshet_browser" : "freshet_browser";

/** A new value of the cookie that tells browsers apart: 256 random bits. */
export function createBrowser(randomBytes: (size: number) => Uint8Array): string {
  return Buffer.from(randomBytes(32)).toString("base64url");
}

/** The browser by its cookie; null: there is no such cookie, or it does not have the right form. */
export function readBrowser(cookies: Readonly<Record<string, string | undefined>>, publicUrl: string): string | null {
  const value = cookies[cookieName(publicUrl)] ?? "";
  return cookieShape.test(value) ? value : null;
}

/** The cookie to set. Lax: the callback is a navigation that another site starts. */
export function browserCookie(publicUrl: string) {
  const secure = publicUrl.startsWith("https:");
  const options = {
    path: "/",
    maxAge: consentTimes.longestLinkSeconds,
    httpOnly: true,
    sameSite: "lax",
    secure,
  } as const;
  return { name: cookieName(publicUrl), options };
}

/** Signs and checks form tokens. A token carries the id of its key, so open forms stay valid when the keys are rotated. */
export type FormKeys = Pick<Keyring, "sign" | "signWithEach" | "verify" | "deriveWith">;

const formPurpose = "consent form";
const formText = ({ browser, link }: BrowserAtLink) => JSON.stringify([browser, link]);

/** The hidden field of a form. Another site cannot know it, since it sees neither the cookie nor the page. */
export function csrfToken(keys: FormKeys, at: BrowserAtLink): string {
  return keys.sign(formPurpose, formText(at));
}

export function csrfMatches(keys: FormKeys, at: BrowserAtLink, given: string): boolean {
  return keys.verify(formPurpose, formText(at), given) === "authentic";
}

/**
 * Bytes that only this broker can make and that are the same for each GET of one form: for values that a GET shows but must not store. They
 * come from the key that made the form's token, so that the POST gets the same after a rotation of keys.
 */
function derivedBytes(keys: FormKeys, purpose: string, { browser, link, csrf }: BrowserAtLink & { csrf: string }) {
  const key = keys.deriveWith(csrf, "consent forms");
  return (size: number) => Buffer.from(hkdfSync("sha256", key, link, JSON.stringify([purpose, browser]), size));
}
