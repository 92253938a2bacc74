import { isDeepStrictEqual } from "node:util";
import { furtherTokenName } from "../text.ts";
import type { Clock } from "../clock.ts";
import {
  BrokerError,
  EgressRefusalError,
  isStorageUnavailable,
  ProviderBusyError,
  UnreadableSecretError,
} from "../errors.ts";
import { rulesOfGrant, type TokenGrant } from "../grant-types.ts";
import {
  type ConnectionGrant,
  forFurtherToken,
  type ProviderDefinition,
  type ProviderRequest,
} from "../providers/format/definition.ts";
import { placedLookups } from "../providers/format/file.ts";
import { joinScopes } from "../providers/format/requirements.ts";
import { capturedValues, fillUrl, splitUrl, templateNames, type TemplateValues } from "../providers/format/template.ts";
import type { HttpRequest } from "../providers/http/exchange.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import { readPointer } from "../providers/oauth/answer-body.ts";
import type { Discovery } from "../providers/oauth/discovery.ts";
import type { Failure, TokenAnswer } from "../providers/oauth/token-answer.ts";
import type { Asked, OAuthClient } from "../providers/oauth/oauth-client.ts";
import { buildRevocationRequest, type NamedToken } from "../providers/oauth/side-requests.ts";
import { buildTokenRequest, exchangeFor, withAssertion } from "../providers/oauth/token-request.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { ClientRow, Clients } from "../store/clients.ts";
import type { Tombstone } from "../store/token-sets.ts";
import { lastGeneration, type TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { refreshTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Alarms, RefreshObserver } from "./core.ts";
import { firstPlan, isOfLimits, retryAfter } from "./row-rules.ts";
import { clientDestination, openSecrets, placeOf, provenCaptures } from "./seal.ts";

const { comeBackSeconds, definitionGoneSeconds } = refreshTimes;

/** What a token request of one connection is made from. Holds secrets in plain text. */
export type RequestContext<Row = TokenRow> = {
  row: Row;
  /** For a further token the connection itself; else the row. */
  owner: Row;
  definition: ProviderDefinition;
  client: ClientRow | null;
  /** The client's secret, and after it the one before, while the new one has not worked yet. */
  clientSecrets: readonly string[];
  /** The connection's own access token, for the token exchange of a further token. */
  subjectToken?: string;
  /** The contexts of its further tokens, if a grant may bring some. */
  furtherContexts?: readonly RequestContext[];
  /** What was opened before a permit is asked for. */
  opened?: OpenedSecrets | undefined;
};

/** The same with the request by which the connection gets its next token; null: only a person can give it one. */
export type PlannedContext = RequestContext & { plan: SendPlan | null };

/** The secrets that a request with this grant sends, and what they were opened from. */
type OpenedSecrets = { grant: TokenGrant; from: unknown; values: TemplateValues };

/** A single request: which grant, and with which of the client's secrets. */
export type SendPlan = {
  grant: TokenGrant;
  secretIndex: number;
  /** The refusal of the newest secret, if this is a request with the one before. */
  refused?: Failure;
};

export type Sender = {
  /**
   * Reads the client, unless it was read with the row, and opens its secrets. Of the row only what this broker has written counts, and of what was captured what a
   * token vouches for. @throws BrokerError when the provider's definition is gone, or its metadata are away; `unreadable_secret`
   * when somebody else has written the row
   */
  prepare(row: TokenRow, client?: ClientRow | null): Promise<PlannedContext>;
  /** A deleted connection, for revoking tokens that may be sent to its hosts (`mayBeSentTo`). */
  prepareRemains(tombstone: Tombstone & Pick<TokenRow, "captured">): Promise<RequestContext<Place & Owner>>;
  /** The same for a set that is only stored: nothing is sent, so addresses may be missing. */
  prepareToStore(row: TokenRow): Promise<RequestContext>;
  /** The same for a further token that is only stored: the connection's own token is not read. */
  prepareFurtherToken(row: TokenRow): Promise<RequestContext>;
  /** The connection with the rows of its further tokens. They are made before a grant, since its answer may hold them. */
  prepareWithFurtherTokens(row: TokenRow, client?: ClientRow | null): Promise<PlannedContext>;
  /**
   * The same before a permit is asked for: what the planned request sends is opened. @throws UnreadableSecretError if it is sealed with a key that
   * this replica lacks: a replica with that key must send it, so this one takes no permit
   */
  prepareToSend(row: TokenRow): Promise<PlannedContext>;
  /** The host that a row's token request goes to; the provider's id where that cannot be told. */
  tokenHost(row: TokenRow): Promise<string>;
  /** The same for a prepared row. */
  hostOf(context: RequestContext): string;
  /** Sends once. Never rejects: a request that cannot be built fails as `not_sent`. */
  send(context: RequestContext, plan: SendPlan, given: SendGiven): Promise<TokenAnswer>;
  /**
   * Revokes a grant (RFC 7009), best effort, if the provider can do that. Never revokes a grant that another connection uses. Never
   * rejects.
   */
  revokeGrant(
    context: RequestContext<Place & Owner>,
    tokens: { refreshToken?: string; accessToken?: string },
  ): Promise<void>;
  /**
   * Sends a request to another endpoint, authenticated as the client if the request says so. If the newest secret is refused, the one before
   * is tried. Null: `build` makes no request. @throws BrokerError naming a missing value
   */
  ask(context: RequestContext<Place>, asking: Asking): Promise<Asked | null>;
};

/** Sends a request to another endpoint by `send`, if the limits admit it. Else it throws. */
export type SendsBeside = (request: HttpRequest, send: () => Promise<Asked>) => Promise<Asked>;

/** A request to another endpoint than the token endpoint. */
type Asking = {
  request: ProviderRequest | null;
  build: (values: TemplateValues) => HttpRequest | null;
  /** Sends each request. Default: at once. */
  sends?: SendsBeside;
};

/** The part of a context that a deleted connection has, too. */
type Owner = Pick<TokenRow, "name" | "provider" | "clientRef" | "inputs" | "inputsInForce" | "chain">;
type Place = Pick<TokenRow, "inputs" | "captured"> & (TokenRow | { accountCaptured?: never; credentials?: never });

type SendGiven = { values?: TemplateValues; mayStillSend: () => boolean };

export type SenderParts = {
  catalog: Pick<Catalog, "get">;
  oauth: Pick<OAuthClient, "requestToken" | "ask">;
  clients: Pick<Clients, "findById">;
  rows: Pick<TokenStatements, "readById">;
  accounts: Pick<AccountRows, "isStillNeeded" | "ensureFurtherTokens" | "readFurtherTokens">;
  vault: TokenVault;
  clock: Pick<Clock, "wallMs">;
  discovery: Discovery;
  /** The redirect URI for grants that did not store theirs: some providers want it in a refresh, too. */
  redirectUri: (provider: string) => string;
  /** A fresh access token of the connection with this name, for its further tokens. */
  subjectToken: (connection: string) => Promise<string>;
  alarms: Pick<Alarms, "unreadable">;
};

export function createSender(parts: SenderParts): Sender {
  const { catalog, oauth, clients, rows, accounts, vault, clock, discovery, alarms } = parts;

  const proven = (row: TokenRow): TokenRow => {
    vault.connections.check(row);
    if (Math.max(row.generation, row.goneBackFrom ?? 0) >= lastGeneration) throw withoutNext(row);
    return { ...row, ...provenCaptures(vault, row) };
  };

  /** `read`: what the row was read with. Of a client, too, only what this broker has written counts. */
  const clientOf = async (clientRef: string | null, read: ClientRow | null | undefined): Promise<ClientRow | null> => {
    if (read === undefined) return clientRef === null ? null : await clients.findById(clientRef);
    if (read !== null) vault.clients.check(read);
    return read;
  };

  /** A client that was read for several requests is opened once. */
  const openedSecrets = new WeakMap<ClientRow, string[]>();
  const secretsOf = (client: ClientRow): string[] => {
    const secrets = openedSecrets.get(client) ?? openClientSecrets(vault, client);
    openedSecrets.set(client, secrets);
    return secrets;
  };

  const assemble = async <Row extends Owner & Place>(
    row: Row,
    owner: Row,
    {
      complete = discovery.complete,
      read,
    }: { complete?: Discovery["complete"]; read?: ClientRow | null | undefined } = {},
  ): Promise<RequestContext<Row>> => {
    const known = catalog.get(row.provider);
    if (known === undefined) throw definitionGone(row);
    const client = await clientOf(row.clientRef, read);
    // The secrets are opened with exactly the values that fill the requests.
    const inForce = { inputsInForce: { ...owner.inputs, ...client?.inputs } };
    const prepared = { row: { ...row, ...inForce }, owner: { ...owner, ...inForce }, client };
    const clientSecrets = client === null ? [] : secretsOf(client);
    const whole = await complete(known, valuesOf({ ...prepared, definition: known, clientSecrets }, 0));
    if (row.chain && !whole.furtherTokens.some(({ name }) => name === row.chain)) throw furtherTokenGone(row);
    const definition = row.chain ? forFurtherToken(whole, row.chain) : whole;
    return { ...prepared, definition, clientSecrets };
  };

  const prepareFurtherToken = async (row: TokenRow, read?: ClientRow | null): Promise<RequestContext> => {
    const parent = row.parentId === null ? null : await rows.readById(row.parentId);
    const own = proven(row);
    return await assemble(own, parent === null ? own : proven(parent), { read });
  };

  const prepareFurtherTokens = async ({ row, definition }: RequestContext): Promise<RequestContext[]> => {
    const { furtherTokens } = definition;
    if (furtherTokens.length === 0) return [];
    await accounts.ensureFurtherTokens(row, furtherTokens);
    const known = new Set(furtherTokens.map(({ name }) => name));
    // Its name decides whether it is a further token of this connection. Other columns may have been changed by somebody.
    const isIts = ({ name, chain }: TokenRow) =>
      chain !== null && known.has(chain) && name === furtherTokenName(row.name, chain);
    const present = (await accounts.readFurtherTokens(row.id)).filter(isIts);
    return await Promise.all(present.map((one) => prepareFurtherToken(one)));
  };

  const prepare: Sender["prepare"] = async (row, read) => {
    const context = await prepareFurtherToken(row, read);
    const plan = firstPlan(row, context.definition);
    if (plan?.grant !== "token_exchange") return { ...context, plan };
    return { ...context, plan, subjectToken: await parts.subjectToken(context.owner.name) };
  };

  const prepareWithFurtherTokens: Sender["prepareWithFurtherTokens"] = async (row, client) => {
    const context = await prepare(row, client);
    return { ...context, furtherContexts: await prepareFurtherTokens(context) };
  };

  const ask: Sender["ask"] = async (context, asking) => {
    const { request, build, sends = async (_, send) => await send() } = asking;
    const { definition, clientSecrets, owner } = context;
    const { secretInputs } = openSecrets(vault, owner);
    for (let secretIndex = 0; ; secretIndex++) {
      const known = { ...valuesOf(context, secretIndex), secretInputs };
      const built = build(
        request === null ? known : await withAssertion(request, known, { definition, nowMs: clock.wallMs() }),
      );
      if (built === null) return null;
      const asked = await sends(built, async () => await oauth.ask({ definition, request: built }));
      const isLast = request === null || secretIndex + 1 >= clientSecrets.length;
      if (isLast || !isClientRefused(asked)) return asked;
    }
  };

  const revoke = async (context: RequestContext<Place>, token: NamedToken): Promise<void> => {
    const { definition } = context;
    if (token.value === "" || definition.revocation === null) return;
    try {
      await ask(context, {
        request: definition.revocation,
        build: (values) => buildRevocationRequest({ definition, token, values }),
      });
    } catch {
      // A value that the request needs is missing, so nothing can be sent.
    }
  };

  const isStillNeeded = async (
    { owner, definition: { revocation, file } }: RequestContext<Place & Owner>,
    refreshToken: string | undefined,
  ): Promise<boolean> => {
    const { provider, clientRef } = owner;
    const refreshFingerprint =
      refreshToken === undefined ? null : vault.fingerprint(refreshToken, clientRef ?? provider);
    const endsAll = revocation?.kills === "all";
    const account = endsAll && "account" in owner ? owner.account : null;
    const mayBeSame = endsAll && placedLookups(file).length > 0;
    const given = { provider, clientRef, refreshFingerprint, account, mayBeSame };
    // If it is not known whether another connection uses the grant, nothing is revoked.
    const connectionId = "id" in owner ? owner.id : null;
    return await accounts.isStillNeeded({ ...given, connectionId }).catch(() => true);
  };

  return {
    prepare,
    prepareFurtherToken: async (row) => await prepareFurtherToken(row),
    prepareWithFurtherTokens,
    async prepareToSend(row) {
      const context = await prepareWithFurtherTokens(row);
      const { plan } = context;
      return plan === null ? context : { ...context, opened: openEarly(vault, context, plan.grant) };
    },
    prepareToStore: async (row) => {
      const own = proven(row);
      return await assemble(own, own, { complete: async (definition) => await Promise.resolve(definition) });
    },
    prepareRemains: async ({ name, provider, clientRef, inputs, captured }) => {
      const remains = { name, provider, clientRef, inputs, inputsInForce: inputs, captured, chain: null };
      return await assemble<Place & Owner>(remains, remains);
    },
    ask,
    hostOf,

    async tokenHost(row) {
      try {
        return fixedHostOf(catalog.get(row.provider), row) ?? hostOf(await prepare(row));
      } catch (error) {
        if (isStorageUnavailable(error)) throw error;
        return row.provider;
      }
    },

    async send(context, { grant, secretIndex }, { values, mayStillSend }) {
      const { row, definition } = context;
      try {
        // Check the row once more, as the permit returned it: an answer for a row without a valid MAC could not be opened later.
        vault.connections.check(row);
        const wanted = { definition, grant, obtainedBy: row.grant as ConnectionGrant };
        const all = {
          ...valuesOf(context, secretIndex),
          scope: joinScopes(definition, row.scopes),
          ...(openedBefore(context, grant) ?? ownSecrets(vault, context, grant)),
          ...(grant === "refresh_token" && {
            redirectUri: context.owner.redirectUri ?? parts.redirectUri(context.owner.provider),
          }),
          ...values,
        };
        const complete = await withAssertion(exchangeFor(wanted), all, { definition, nowMs: clock.wallMs() });
        const request = buildTokenRequest({ ...wanted, values: complete });
        const answer = await oauth.requestToken({ definition, request, mayStillSend });
        if (isDoubtful(answer)) discovery.doubt(definition, all);
        return answer;
      } catch (error) {
        // Only building the request throws, so nothing was sent.
        if (error instanceof UnreadableSecretError) alarms.unreadable(error.of(row.name));
        return { kind: "failed", failure: unsent(error) };
      }
    },

    async revokeGrant(context, { refreshToken, accessToken }) {
      if (context.definition.revocation === null || (await isStillNeeded(context, refreshToken))) return;
      await revoke(context, { value: refreshToken ?? "", hint: "refresh_token" });
      await revoke(context, { value: accessToken ?? "", hint: "access_token" });
    },
  };
}

function unsent(error: unknown): Failure {
  const detail = error instanceof BrokerError ? error.message : "the request could not be made";
  const code = error instanceof UnreadableSecretError ? "unreadable_secret" : "connect_failed";
  return { class: "not_sent", code, detail };
}

/** If a token endpoint does not exist any more or cannot be reached, it may have a new address in the metadata. */
function isDoubtful(answer: TokenAnswer): boolean {
  if (answer.kind === "granted") return false;
  const { code, status } = answer.failure;
  return code === "connect_failed" || status === 404 || status === 405 || status === 410;
}

function definitionGone({ provider, name }: Owner): BrokerError {
  const detail = `This broker has no definition of the provider "${provider}" any more; see PROVIDERS_DIR.`;
  return new BrokerError("provider_unavailable", detail, {
    connection: name,
    retryAfterSeconds: definitionGoneSeconds,
  });
}

function withoutNext({ id, name }: TokenRow): UnreadableSecretError {
  const place = { table: "connections", row: id, column: "generation" };
  return new UnreadableSecretError(place, { keyId: null, reason: "does_not_open" }).of(name);
}

function furtherTokenGone({ provider, name, chain }: Owner): BrokerError {
  const detail = `The definition of the provider "${provider}" has no further token "${chain}" any more.`;
  return new BrokerError("provider_unavailable", detail, {
    connection: name,
    retryAfterSeconds: definitionGoneSeconds,
  });
}

/** Values for templates, without the scopes and the secret that a request spends. */
function valuesOf(
  { definition, owner, client, clientSecrets }: RequestContext<Place>,
  secretIndex: number,
): TemplateValues {
  const secret = clientSecrets[secretIndex];
  const inputs = { ...owner.inputs, ...client?.inputs };
  return {
    client: client === null ? null : { id: client.clientId, ...(secret === undefined ? {} : { secret }) },
    inputs,
    ...capturedValues(definition, { captured: owner.captured, account: owner.accountCaptured ?? {}, inputs }),
  };
}

/** The newest first. If the one before does not open, it is left out. @throws UnreadableSecretError */
export function openClientSecrets(vault: Pick<TokenVault, "openClientSecret">, client: ClientRow): string[] {
  const open = (record: Uint8Array | null, revision: number) =>
    record === null
      ? []
      : [vault.openClientSecret(record, { clientId: client.id, revision, destination: clientDestination(client) })];
  const newest = open(client.secret, client.secretRevision);
  try {
    return [...newest, ...open(client.previousSecret, client.secretRevision - 1)];
  } catch {
    return newest;
  }
}

/**
 * A client whose secret was changed has two until the newer one has worked. Providers answer a wrong secret in different ways: some say that
 * the grant is over, and the answers of some cannot be understood. So the previous secret is tried before such an answer is believed.
 *
 * Returns the same plan with the previous secret; null: there is none, or the secret cannot be the cause.
 */
export function withPreviousSecret(
  failure: Failure,
  plan: SendPlan,
  { clientSecrets }: Pick<RequestContext, "clientSecrets">,
): SendPlan | null {
  const isLast = plan.secretIndex + 1 >= clientSecrets.length;
  if (isLast || !mayBeCausedByClientSecret(failure, plan)) return null;
  return { ...plan, secretIndex: plan.secretIndex + 1, refused: failure };
}

function mayBeCausedByClientSecret(failure: Failure, { grant }: SendPlan): boolean {
  if (failure.class === "client_rejected") return true;
  // A refused login is never repeated: accounts get locked.
  if (rulesOfGrant(grant).isLogin) return false;
  if (failure.class === "refused_for_good") return true;
  // While a device code waits, the provider answers `authorization_pending`. RFC 6749 does not define it, so it looks unexplained. Do not
  // send again at once.
  return failure.isUnexplained === true && grant !== "device_code";
}

/** Combines the refusals of both secrets. The newest secret's refusal counts, unless that secret was the wrong one. */
export function bothRefused(failure: Failure, { grant, refused }: SendPlan): Failure {
  if (refused === undefined || rulesOfGrant(grant).isLogin) return failure;
  const isUninformative =
    failure.class !== "refused_for_good" && failure.class !== "client_rejected" && !failure.isUnexplained;
  const newestSecretWasWrong = refused.class === "client_rejected" && failure.class === "refused_for_good";
  return isUninformative || newestSecretWasWrong ? failure : refused;
}

type SecretParts = {
  clients: Pick<Clients, "forgetPreviousSecret" | "noteOldSecret">;
  observer: Pick<RefreshObserver, "oldSecretUsed">;
};

/**
 * Called when a request has succeeded and its answer is stored. If it was sent with the client's newest secret, the previous secret is
 * erased. If it was sent with the previous secret, that is reported once. Never rejects.
 */
export async function eraseOrReportPreviousSecret(
  { clients, observer }: SecretParts,
  { client, row }: Pick<RequestContext, "client" | "row">,
  { secretIndex }: Pick<SendPlan, "secretIndex">,
): Promise<void> {
  if (client === null || client.previousSecret === null) return;
  try {
    if (secretIndex === 0) return await clients.forgetPreviousSecret(client.id, client.secretRevision);
    const isNew = client.oldSecretSince === null && (await clients.noteOldSecret(client, row.id));
    if (isNew) observer.oldSecretUsed(row, client);
  } catch {
    // The next success leads here again.
  }
}

/** Undefined: no replica can open it. The request then fails for that reason, which is written into the row. @throws UnreadableSecretError if only this replica lacks the key */
function openEarly(vault: TokenVault, context: RequestContext, grant: TokenGrant): OpenedSecrets | undefined {
  try {
    return { grant, from: sealedIn(context), values: ownSecrets(vault, context, grant) };
  } catch (error) {
    if (error instanceof UnreadableSecretError && error.reason === "unknown_key") throw error.of(context.row.name);
    return undefined;
  }
}

/** What was opened before the permit; null: the row that the permit returned has another refresh token, or the same one sealed anew. */
function openedBefore(context: RequestContext, grant: TokenGrant): TemplateValues | null {
  const { opened } = context;
  return opened?.grant === grant && isDeepStrictEqual(opened.from, sealedIn(context)) ? opened.values : null;
}

/** The sealed refresh token, and where it opens. The connection secrets are those of `owner`, which is read once. */
function sealedIn({ row, owner }: RequestContext): unknown {
  return { refreshToken: row.refreshToken, place: placeOf({ ...row, inputsInForce: owner.inputsInForce }) };
}

/** The one secret that this kind of request sends, and the inputs that are secrets. */
function ownSecrets(
  vault: TokenVault,
  { row, owner, subjectToken }: RequestContext,
  grant: TokenGrant,
): TemplateValues {
  const { credentials, secretInputs } = openSecrets(vault, owner);
  if (grant === "refresh_token" && row.refreshToken !== null) {
    const place = placeOf({ ...row, inputsInForce: owner.inputsInForce });
    return { secretInputs, refreshToken: vault.openRefreshToken(row.refreshToken, place) };
  }
  const { sends } = rulesOfGrant(grant);
  if (sends === "subject_token") return { secretInputs, accessToken: subjectToken };
  return sends === "credentials" ? { secretInputs, credentials } : { secretInputs };
}

/** The host that the definition names, whatever connection and client say; null: it depends on them, or on metadata. */
function fixedHostOf(definition: ProviderDefinition | undefined, { chain, grant }: TokenRow): string | null {
  if (definition === undefined || chain !== null) return null;
  const url = tokenUrlOf(definition, grant);
  return templateNames(splitUrl(url).authority).length === 0 ? (URL.parse(url)?.host ?? null) : null;
}

function tokenUrlOf({ refreshes, exchanges }: ProviderDefinition, grant: string): string {
  return (refreshes[grant as ConnectionGrant] ?? exchanges[grant as ConnectionGrant])?.url ?? "";
}

/** The host that its token request goes to; the provider's id where that cannot be told. */
function hostOf(context: RequestContext): string {
  const { row, definition } = context;
  try {
    return new URL(fillUrl(tokenUrlOf(definition, row.grant), valuesOf(context, 0))).host;
  } catch {
    return row.provider;
  }
}

/** The error for a caller after a refused request that cannot be repeated. */
export function refusal({ name }: { name: string }, failure: Failure): BrokerError {
  const context = { connection: name };
  if (failure.class === "client_rejected") {
    return new BrokerError("client_rejected", `The provider refuses this broker's client: ${failure.detail}`, context);
  }
  if (isRefused(failure)) {
    return new BrokerError("provider_rejected", `The provider refuses: ${failure.detail}`, context);
  }
  const seconds = failure.closedSeconds ?? failure.retryAfterSeconds ?? comeBackSeconds;
  const retryAfterSeconds = retryAfter(failure.code, seconds);
  if (failure.code === "blocked_address") {
    return new EgressRefusalError(failure.detail, { ...context, retryAfterSeconds });
  }
  const detail = `The provider could not be asked: ${failure.detail}`;
  if (isOfLimits(failure.code)) return new ProviderBusyError(detail, { ...context, retryAfterSeconds });
  return new BrokerError("provider_unavailable", detail, { ...context, retryAfterSeconds });
}

/** The error after a failed request to another endpoint. `said`: how the text begins. */
export function failedRequestError(said: string, asked: Asked, context: { connection?: string } = {}): BrokerError {
  const { status, detail } = asked;
  if (asked.isBlocked) return new EgressRefusalError(detail, { ...context, retryAfterSeconds: comeBackSeconds });
  const text = `${said}: ${detail}`;
  if (status === 429) {
    const retryAfterSeconds = retryAfter("rate_limited", asked.retryAfterSeconds ?? comeBackSeconds);
    return new ProviderBusyError(text, { ...context, retryAfterSeconds });
  }
  const isAway = status === null || status >= 500;
  if (isAway) return new BrokerError("provider_unavailable", text, { ...context, retryAfterSeconds: comeBackSeconds });
  return new BrokerError(isClientRefused(asked) ? "client_rejected" : "provider_rejected", text, context);
}

/** Whether the provider refused the client's id or secret (RFC 6749, section 5.2). */
function isClientRefused({ ok, body }: Pick<Asked, "ok" | "body">): boolean {
  const error = ok ? null : readPointer(body, "/error");
  return error === "invalid_client" || error === "unauthorized_client";
}

/** True if the provider refused this request; false if it is away, busy, or has blocked this broker. */
export function isRefused({ class: kind, code, status = 0 }: Failure): boolean {
  if (kind === "refused_for_good" || kind === "client_rejected") return true;
  const isBusy = code === "rate_limited" || code === "blocked";
  return kind === "refused_for_now" && !isBusy && status >= 400 && status < 500;
}
