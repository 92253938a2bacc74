import { BrokerError, connectionNotFound } from "../errors.ts";
import { type CompletionRule, rulesOfGrant } from "../grant-types.ts";
import type { ProviderDefinition } from "../providers/format/definition.ts";
import type { TemplateValues } from "../providers/format/template.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import {
  type AuthorizationRequest,
  buildAuthorizationUrl,
  buildPushedRequest,
  createNonce,
  createPkce,
  expectedIssuer,
  type ExpectedIssuer,
  isDenial,
  isSameCodeDestination,
  judgeIssuer,
  readCallback,
  readPushedAnswer,
  redirectUriOf,
} from "../providers/oauth/authorization-request.ts";
import type { Connections } from "../store/connections.ts";
import type { AuthorizationRequests, ConsentAttempts, ConsentLinks, NotedAttempt } from "../store/consents.ts";
import type { RowWithClient, TokenStatements } from "../store/token-statements.ts";
import { consentTimes } from "../time.ts";
import type { Authorized, CodeExchange, Authorizations } from "../tokens/person-grant.ts";
import type { Devices } from "../tokens/devices.ts";
import type { RequestLimiter } from "../tokens/limits.ts";
import { failedRequestError, type Sender } from "../tokens/request.ts";
import type { Keyring, Place } from "../vault/keyring.ts";
import type { TokenVault } from "../vault/vault.ts";
import { type AtLink, bindingOf, type ConsentAudit } from "./audit.ts";
import { type BoundRequest, exchangeOf, hex, openBound, sealBound } from "./bound-request.ts";
import {
  type AuthorizationContext,
  type ConsentForm,
  type ContextOf,
  type Links,
  named,
  type OpenedLink,
  sha256,
} from "./links.ts";
import { type Ending, endingOf, isBrowserOf, openTicket, type Outcomes, sealTicket } from "./outcome.ts";
import { ConsentError } from "./problem.ts";

const stateBytes = 32;

/** A request at a redirect URI. `browser` null: it has no cookie of this broker. */
export type CallbackRequest = {
  provider: string;
  /** The client whose own redirect URI it is; null: the one of all clients of the provider. */
  client: string | null;
  query: Readonly<Record<string, unknown>>;
  browser: string | null;
  /** Where the browser is. */
  address: string;
};

/** Where the person goes next: to the provider, or to a page here with a user code. */
export type Onward = { kind: "redirect"; authorizationUrl: string } | { kind: "device" };

export type RoundTrip = ReturnType<typeof createRoundTrip>;

type RoundTripDeps = PostedDeps & {
  links: Pick<Links, "claim">;
  audited: ConsentAudit;
  outcomes: Pick<Outcomes, "awaitEnding" | "conclude">;
  requests: AuthorizationRequests;
  attempts: Pick<ConsentAttempts, "find">;
  linkRows: Pick<ConsentLinks, "release">;
  rows: Pick<TokenStatements, "readWithClient">;
  records: Pick<Connections, "addEvent">;
  contextOf: ContextOf;
  authorizations: Pick<Authorizations, "exchangeCode">;
  devices: Pick<Devices, "begin">;
  sender: Pick<Sender, "prepare" | "ask">;
  limits: Pick<RequestLimiter, "beside">;
  catalog: Pick<Catalog, "get">;
  vault: Pick<TokenVault, "sealRequest" | "openRequest">;
  /** An origin, without a trailing slash. */
  publicUrl: string;
  completion: CompletionRule;
  /** Authorization requests of one link that may wait for their callback at a time. */
  openRequestsPerLink: number;
  random: { bytes: (size: number) => Uint8Array; uuid: () => string };
};

/** From a link's form to the provider, and from its callback to the ending: docs/internals/consent.md, "A state". */
export function createRoundTrip(deps: RoundTripDeps) {
  const { links, outcomes, requests, attempts, records, catalog, vault, random, publicUrl } = deps;

  /** Sends an authorization request ahead of the person (RFC 9126); the address to go to. */
  const pushRequest = async (
    { connectionId, definition }: AuthorizationContext,
    request: Omit<AuthorizationRequest, "definition">,
  ): Promise<string> => {
    const read = await deps.rows.readWithClient(connectionId);
    if (read === null) throw connectionNotFound("");
    const prepared = await deps.sender.prepare(read.row, read.client);
    const { redirectUri } = request.values;
    const build = (values: TemplateValues) =>
      buildPushedRequest({ ...request, definition, values: { ...values, redirectUri } });
    const asked = await deps.sender.ask(prepared, {
      request: definition.authorization?.pushed ?? null,
      build,
      sends: deps.limits.beside(prepared),
    });
    if (asked?.ok === false) throw failedRequestError("The provider does not take the authorization request", asked);
    return readPushedAnswer({ definition, values: request.values, body: asked?.body });
  };

  /** Noted once for a request: somebody who makes such an answer up could send it again and again. */
  const recordUnproven = async ({ id, bound: { connectionId } }: FoundRequest, answer: Refusal): Promise<void> => {
    if (!(await requests.noteError(id))) return;
    const received = answer.kind === "denied" ? "access_denied" : answer.error;
    await records.addEvent(connectionId, "consent_failed", { error: "issuer_missing", said: received });
  };

  /**
   * Another browser has come back with the state of an app's link. So somebody has passed on the provider's address or the callback's, as an
   * attacker would: the state is over, whatever its own browser brings later.
   */
  const burn = async (
    { id, bound, connection, browserHash }: FoundRequest & { browserHash: Uint8Array },
    { stateHash, by }: { stateHash: Uint8Array<ArrayBuffer>; by: Omit<AtLink, "linkId"> },
  ): Promise<void> => {
    if ((await requests.consume(id, { usesLink: false })) === null) return;
    const attempt = { attemptHash: stateHash, browserHash: new Uint8Array(browserHash), linkId: bound.linkId };
    const context = await deps.contextOf(connection);
    await outcomes.conclude({ attempt, context, by }, refuseBurnt);
  };

  /** Keeps a code for its app. The ticket of the attempt, which leads its browser to the app; null: another callback was first, or the link is not free. */
  const hold = async (
    { attempt, request: { id, bound } }: { attempt: NotedAttempt; request: FoundRequest },
    { code, captured }: CodeAnswer,
    { returnTo, seconds }: { returnTo: string; seconds: number },
  ): Promise<string | null> => {
    const ticket = Buffer.from(random.bytes(stateBytes)).toString("base64url");
    const ticketHash = sha256(ticket);
    const held = { ticketHash: hex(ticketHash), code, captured };
    const forBrowser = sealTicket(deps, attempt, { outcome: "held", address: withTicket(returnTo, ticket) });
    const request = sealBound(vault, id, { ...bound, held });
    return (await requests.hold(id, { ticketHash, request, forBrowser, seconds })) ? forBrowser : null;
  };

  /** Where a browser goes with the ticket of its attempt: to the app that completes it, or to the page of its ending. */
  const addressOf = (ticket: string, browser: string | null): string => {
    const { ending } = openTicket(deps, { ticket, browser });
    return ending.outcome === "held" ? ending.address : `/connected/${ticket}`;
  };

  /** The request of a state, if browser and redirect URI are the right ones. Changes nothing else than to burn the state of an app's link. */
  const findRequest = async (given: CallbackRequest): Promise<Found> => {
    const { provider, client, query, browser } = given;
    const { state } = query;
    const unknown = () => readLostError(catalog.get(provider), query) ?? new ConsentError("invalid_state");
    if (typeof state !== "string" || state === "") throw unknown();
    const [stateHash, browserHash] = [sha256(state), sha256(browser ?? "")];
    const row = await requests.find(stateHash);
    if (row === null) {
      const attempt = await attempts.find(stateHash);
      if (attempt === null) throw unknown();
      if (!isBrowserOf(attempt, browser)) throw new ConsentError("wrong_browser");
      return { attempt, request: null };
    }
    const bound = openBound(vault, row, stateHash);
    if (bound === null) throw unknown();
    const attempt = { attemptHash: stateHash, browserHash, linkId: bound.linkId, ticket: null, isOverdue: false };
    if (bound.browserHash !== hex(browserHash)) {
      if (bound.app !== undefined) await burn({ ...row, bound }, { stateHash, by: byOf(bound, given) });
      throw new ConsentError("wrong_browser");
    }
    if (bound.redirectUri !== redirectUriOf(publicUrl, { provider, client })) throw new ConsentError("invalid_state");
    return { attempt, request: { id: row.id, bound, connection: row.connection } };
  };

  /** The authorization request of a link that this browser has claimed. */
  const askProvider = async (form: ConsentForm, { row, context }: OpenedLink): Promise<Onward> => {
    if (rulesOfGrant(context.grant).consent === "user_code") {
      await deps.devices.begin(row.connectionId, { id: row.id, madeBy: row.createdBy, scopes: context.scopes });
      return { kind: "device" };
    }
    // The authorization request, with what only this browser's callback can repeat.
    const { definition, clientId, inputs, scopes, redirectUri, destination } = context;
    const pkce = createPkce({ definition, randomBytes: random.bytes });
    const nonce = createNonce({ definition, scopes, randomBytes: random.bytes });
    const state = Buffer.from(random.bytes(stateBytes)).toString("base64url");
    const values = { client: { id: clientId }, inputs, redirectUri };
    const request = { values, state, nonce, codeChallenge: pkce, scopes };
    const authorizationUrl = definition.authorization?.pushed
      ? await pushRequest(context, request)
      : buildAuthorizationUrl({ definition, ...request });
    // What the callback is compared with is stored before the person leaves.
    const id = random.uuid();
    const [stateHash, browserHash] = [sha256(state), sha256(form.browser)];
    const { connectionId, id: linkId } = row;
    const bound = sealBound(vault, id, {
      stateHash: hex(stateHash),
      connectionId,
      linkId,
      madeBy: row.createdBy,
      browserHash: hex(browserHash),
      ...(row.endUser !== null && { app: { endUser: row.endUser, returnTo: row.returnTo ?? "" } }),
      redirectUri,
      codeVerifier: pkce?.verifier ?? null,
      nonce,
      issuer: expectedIssuer(definition, values),
      destination,
    });
    const plain = { id, stateHash, connectionId, linkId, browserHash, expiresInSeconds: consentTimes.stateSeconds };
    const retryAfterSeconds = await requests.insert({
      ...plain,
      request: bound,
      mostOpen: deps.openRequestsPerLink,
    });
    if (retryAfterSeconds !== null) throw new ConsentError("too_many_requests", null, { retryAfterSeconds });
    return { kind: "redirect", authorizationUrl };
  };

  return {
    /** Claims the link and builds the authorization request (RFC 6749, section 4.1.1; RFC 7636, section 4.3; RFC 8628, section 3.1). */
    async begin(form: ConsentForm): Promise<Onward> {
      const opened = await links.claim(form);
      const { row, context } = opened;
      if (row.manual) throw new ConsentError("malformed", "The code is missing.");
      const at = { linkId: row.id, madeBy: row.createdBy, address: form.address, binding: bindingOf(row) };
      const { connectionName } = context;
      return await deps.audited({ action: "consents.begin", at, connectionName }, () => askProvider(form, opened));
    },

    /**
     * The callback (RFC 6749, section 4.1.2; RFC 9207). It is compared with what was sealed when the person left. Then the state is consumed and the
     * code exchanged at once, or held for the app that made the link. Returns where the browser goes: to the page with the outcome, or to the app.
     * The same browser gets it again for the same state.
     */
    async complete(given: CallbackRequest): Promise<string> {
      const { browser } = given;
      // 1. The request of this state, with its connection and client, by which the answer is judged.
      const { attempt, request } = await findRequest(given);
      if (request === null) return addressOf(await outcomes.awaitEnding(attempt), browser);
      const { id, bound } = request;
      const context = await deps.contextOf(request.connection);
      // 2. Whose answer it is, and what it says.
      const answer = readAnswer(context, { query: given.query, issuer: bound.issuer });
      // The error is shown and ends nothing: the state still waits for the answer of the server that was asked.
      if (answer.kind !== "code" && !answer.isProven) {
        await recordUnproven(request, answer);
        return addressOf(sealTicket(deps, attempt, endingOfRefusal(context, answer)), browser);
      }
      const by = byOf(bound, given);
      const problem = answer.kind === "code" ? whyNotExchanged(context, bound, deps.completion) : null;
      const { app } = bound;
      // 3. The code of an app's link waits for the app, and its state is over.
      if (answer.kind === "code" && problem === null && app !== undefined) {
        const at = { ...by, linkId: bound.linkId };
        const { connectionName, definition } = context;
        const held = await deps.audited(
          { action: "consents.hold", at, connectionName },
          () => hold({ attempt, request }, answer, { returnTo: app.returnTo, seconds: heldSeconds(definition) }),
          (got) => (got === null ? "used_link" : "ok"),
        );
        const other = held === null ? await attempts.find(attempt.attemptHash) : null;
        if (held !== null) return addressOf(held, browser);
        if (other !== null) return addressOf(await outcomes.awaitEnding(other), browser);
      }
      // 4. The state is consumed, by one callback, and with it the link, where a code is to be exchanged for it. The same statement reads
      // connection and client again: what was changed since step 1 is found before the code leaves.
      const usesLink = answer.kind === "code" && problem === null && app === undefined;
      const consumed = await requests.consume(id, { usesLink });
      if (consumed === null) return addressOf(await outcomes.awaitEnding(attempt), browser);
      const ended = await outcomes.conclude({ attempt, context, by }, async () => {
        if (answer.kind !== "code") return await refuse(deps, context, answer);
        if (problem !== null) throw problem;
        if (!consumed.wasLinkFree) throw new ConsentError("used_link");
        // 5. The exchange.
        const { connection } = consumed;
        const exchange = { ...exchangeOf(bound, answer), connection, cannotWait: true };
        const authorized = await exchangeForLink(deps, bound.linkId, exchange);
        // 6. Connected, or a question: the exchange has compared the account and stored the grant.
        return endingOf(context, authorized);
      });
      return addressOf(ended, browser);
    },

    /** Whether a provider's answer may come as a POST. */
    takesPost: (provider: string) => catalog.get(provider)?.authorization?.responseMode === "form_post",

    /**
     * Seals an answer that another site posted (OAuth 2.0 Form Post Response Mode). Such a request carries no Lax cookie, so the browser is not
     * known yet. It consumes nothing, and a page of the broker sends it again, with the cookie.
     */
    sealPosted({ path, fields }: PostedAt & { fields: Fields }): string {
      const sealed: Sealed = { path, fields, expiresMs: deps.nowMs() + consentTimes.postedAnswerSeconds * 1000 };
      return Buffer.from(deps.ticketKeys.seal(JSON.stringify(sealed), place)).toString("base64url");
    },

    /** Opens the fields, at the address where they came in and within a minute. @throws ConsentError `stale_form` */
    openPosted({ path, sealed }: PostedAt & { sealed: string }): Fields {
      const posted = unseal(deps.ticketKeys, sealed);
      if (posted === null || posted.path !== path || posted.expiresMs <= deps.nowMs()) {
        throw new ConsentError("stale_form");
      }
      return posted.fields;
    },
  };
}

type FoundRequest = { id: string; bound: BoundRequest; connection: RowWithClient };

/** `request` null: the state was consumed before. */
type Found = { attempt: NotedAttempt; request: FoundRequest | null };

async function refuseBurnt(): Promise<Ending> {
  throw new ConsentError("burnt_state");
}

/** Who has acted at a callback, for the audit. */
function byOf({ madeBy, app }: BoundRequest, { address }: CallbackRequest): Omit<AtLink, "linkId"> {
  return { madeBy: madeBy ?? null, address, binding: app === undefined ? "weak" : "app" };
}

/** `return_to` with the ticket added to its query, and its other parameters as they are. */
function withTicket(returnTo: string, ticket: string): string {
  const url = new URL(returnTo);
  url.search = `${url.search === "" ? "?" : `${url.search}&`}ticket=${ticket}`;
  return url.href;
}

function heldSeconds({ authorization }: ProviderDefinition): number {
  return Math.min(consentTimes.heldCodeSeconds, authorization?.codeLifetimeSeconds ?? consentTimes.heldCodeSeconds);
}

/** Why a code is not exchanged, as the connection was read with its request; null: it is. */
function whyNotExchanged(
  context: AuthorizationContext,
  { destination, app }: BoundRequest,
  completion: CompletionRule,
): ConsentError | null {
  if (completion === "app" && app === undefined) return new ConsentError("plain_link");
  if (context.disabled) return new ConsentError("connection_disabled");
  if (isSameCodeDestination(destination, context.destination)) return null;
  return new ConsentError("invalid_state", "The client or the inputs of this connection were changed meanwhile.");
}

/**
 * Exchanges a code. Its link was used up before, so that only one code at a time is exchanged for a link. The link becomes usable again if the
 * exchange fails or the account has to be confirmed.
 */
export async function exchangeForLink(
  {
    linkRows,
    authorizations,
  }: { linkRows: Pick<ConsentLinks, "release">; authorizations: Pick<Authorizations, "exchangeCode"> },
  linkId: string,
  exchange: CodeExchange,
): Promise<Authorized> {
  try {
    const authorized = await authorizations.exchangeCode(exchange);
    if (authorized.kind === "unconfirmed") await linkRows.release(linkId);
    return authorized;
  } catch (error) {
    // If the database is away, the link stays used. A new one can be made, but a code cannot be sent twice.
    await linkRows.release(linkId).catch(() => undefined);
    throw error;
  }
}

export type CodeAnswer = { kind: "code"; code: string; captured: Record<string, string> };

/** `detail` is for people. */
export type Refusal = { kind: "denied" } | { kind: "failed"; error: string; detail: string };

/** The answer that the browser brought, after all checks. */
type CallbackAnswer = CodeAnswer | Refusal;

/** `isProven` false: an error without the `iss` that it must have. Anybody may have made it up, so it ends nothing. */
type JudgedAnswer = (CodeAnswer & { isProven: true }) | (Refusal & { isProven: boolean });

/**
 * Distinguishes a code, a denial (RFC 6749, section 4.1.2.1) and a failure. An answer with another issuer than the one that was asked, and a
 * code without the `iss` that it must have, are failures (RFC 9207, section 2.4), whatever else they say. The other issuer's name is not
 * shown.
 */
function readAnswer(
  context: AuthorizationContext,
  { query, issuer }: { query: Readonly<Record<string, unknown>>; issuer: ExpectedIssuer },
): JudgedAnswer {
  const { definition } = context;
  const callback = readCallback(definition, query, context.clientSecrets);
  const whose = judgeIssuer(issuer, callback.iss);
  const isProven = whose === "ours";
  if (whose === "other") {
    const detail = `The answer names another issuer than ${definition.name}.`;
    return { kind: "failed", error: "issuer_mismatch", detail, isProven: true };
  }
  if (callback.kind === "code") {
    if (isProven) return { ...callback, isProven };
    const detail = `The answer does not name its issuer (iss), as those of ${definition.name} do.`;
    return { kind: "failed", error: "issuer_missing", detail, isProven: true };
  }
  if (isDenial(definition, callback.error)) return { kind: "denied", isProven };
  const said = withoutSecrets([callback.error, callback.description].filter((part) => part !== "").join(": "), query);
  return { kind: "failed", error: withoutSecrets(callback.error, query), detail: said, isProven };
}

/** The text for an answer without a code. */
function endingOfRefusal(context: AuthorizationContext, answer: Refusal): Ending {
  const subject = named(context);
  if (answer.kind === "denied") return { ...subject, outcome: "denied" };
  return { outcome: "problem", problem: "provider_refused", detail: answer.detail, subject };
}

/** The same for an answer that ends its attempt. It also goes into the history. */
export async function refuse(
  { records }: { records: Pick<Connections, "addEvent"> },
  context: AuthorizationContext,
  answer: Refusal,
): Promise<Ending> {
  const { connectionId } = context;
  if (answer.kind === "denied") await records.addEvent(connectionId, "consent_denied", {});
  else await records.addEvent(connectionId, "consent_failed", { error: answer.error });
  return endingOfRefusal(context, answer);
}

/**
 * An error without a usable state of this browser; null: there is none. Anybody can write such an address, so its text is shown as text and
 * changes nothing.
 */
function readLostError(
  definition: ProviderDefinition | undefined,
  query: Readonly<Record<string, unknown>>,
): ConsentError | null {
  if (!definition?.authorization) return null;
  const callback = readCallback(definition, { ...query, code: undefined });
  if (callback.kind !== "error" || query["error"] === undefined || query["error"] === "") return null;
  const said = withoutSecrets([callback.error, callback.description].filter((part) => part !== "").join(": "), query);
  return new ConsentError(isDenial(definition, callback.error) ? "lost_denial" : "lost_error", said);
}

const longestCode = 4096;

/**
 * Reads what a person has pasted: a code, or the whole address at which the browser ended, which is checked like a callback. `state`: the state
 * of the request, if the page has it.
 * @throws BrokerError `invalid_request` for anything else, for another page's address, and for an address with another state
 */
export function readPasted(
  context: AuthorizationContext,
  pasted: string,
  { state, issuer }: { state: string | null; issuer: ExpectedIssuer },
): CallbackAnswer {
  const { authorization } = context.definition;
  const text = pasted.trim();
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) {
    return { kind: "code", code: checkedCode(text), captured: {} };
  }
  const address = URL.parse(text);
  if (address === null) throw noCode();
  requirePage(address, authorization?.manualRedirectUri ?? null);
  const query = readQuery(address.searchParams);
  if (query["state"] !== undefined && query["state"] !== state) throw otherState(state);
  const isAnswer = query["error"] !== undefined || query[authorization?.callback.code ?? "code"] !== undefined;
  if (!isAnswer) throw noCode();
  const answer = readAnswer(context, { query, issuer });
  return answer.kind === "code" ? { ...answer, code: checkedCode(answer.code) } : answer;
}

function checkedCode(code: string): string {
  if (/^[\x21-\x7e]+$/.test(code) && code.length <= longestCode) return code;
  throw noCode();
}

/** If the definition says which page shows the code, the address of another page is refused. */
function requirePage({ origin, pathname }: URL, manualRedirectUri: string | null): void {
  const page = manualRedirectUri === null ? null : URL.parse(manualRedirectUri);
  if (page === null || (page.origin === origin && page.pathname === pathname)) return;
  throw invalid(`code: the address must be that of the page that shows the code, ${page.origin}${page.pathname}`);
}

/** A parameter that comes twice counts as absent (RFC 6749, section 3.1). */
function readQuery(params: URLSearchParams): Record<string, string> {
  const names = [...params.keys()];
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return Object.fromEntries(params);
  throw invalid("code: a parameter of the address comes more than once");
}

function otherState(state: string | null): BrokerError {
  const detail =
    state === null
      ? "code: the address has a state, which belongs to the page of a consent link: paste it there"
      : "code: the address belongs to another sign-in than the one that this page has begun; open the address that this page shows, and paste what it leads to";
  return invalid(detail);
}

function noCode(): BrokerError {
  const allowed = `the code that the provider showed (up to ${longestCode} characters, no spaces), or the address that holds it`;
  return invalid(`code must be ${allowed}`);
}

const invalid = (detail: string) => new BrokerError("invalid_request", detail);

/** A provider may repeat in its message what the broker has sent, so secrets are removed. */
function withoutSecrets(text: string, { state, code }: Readonly<Record<string, unknown>>): string {
  return [state, code].reduce<string>(
    (rest, secret) => (typeof secret === "string" && secret !== "" ? rest.replaceAll(secret, "…") : rest),
    text,
  );
}

/** Where an answer came in: the last segments of its redirect URI. */
type PostedAt = { path: string };
type Fields = Readonly<Record<string, unknown>>;
type Sealed = { path: string; fields: Fields; expiresMs: number };

const place: Place = { table: "callback", row: "posted", column: "fields", revision: 0 };

type PostedDeps = {
  ticketKeys: Pick<Keyring, "seal" | "open">;
  /** By this process's estimate of Postgres's clock. */
  nowMs: () => number;
};

function unseal(keys: Pick<Keyring, "open">, sealed: string): Sealed | null {
  try {
    return JSON.parse(keys.open(Buffer.from(sealed, "base64url"), place)) as Sealed; // it opens, so this broker has written it
  } catch {
    return null;
  }
}
