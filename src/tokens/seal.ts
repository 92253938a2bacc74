import { randomUUID } from "node:crypto";
import { openedOrNull, UnreadableSecretError } from "../errors.ts";
import {
  type ConnectionGrant,
  fixedClientId,
  type ProviderDefinition,
  type RefreshRules,
} from "../providers/format/definition.ts";
import { hostInputs } from "../providers/format/requirements.ts";
import type { Expiry, Grant } from "../providers/oauth/token-answer.ts";
import type { ClientRow } from "../store/clients.ts";
import type { PermitKey, SealedGrant } from "../store/row-sql.ts";
import { type EventType, nextGeneration, type TokenRow } from "../store/token-row.ts";
import { providerTimes, refreshTimes } from "../time.ts";
import type { Destination } from "../vault/keyring.ts";
import type { SecretsPlace, TokenPlace, TokenVault } from "../vault/vault.ts";
import type { RequestContext } from "./request.ts";
import {
  type EndTimes,
  isUselessTo,
  type RefreshTokenBase,
  refreshTokenMissingSince,
  type Schedule,
  scheduleRefresh,
} from "./row-rules.ts";

/** The row that a grant is sealed for, and the values that carry over to the new set. */
export type GrantBase = RefreshTokenBase & {
  id: string;
  name: string;
  parentId: string | null;
  provider: string;
  clientRef: string | null;
  inputsInForce: Record<string, string>;
  captured: Record<string, string>;
  redirectUri: string | null;
  accountCaptured: Record<string, string>;
  refreshTokenExpiresAt: Date | null;
  authorizedAt: Date | null;
  /** The scopes of an answer that names none (RFC 6749, section 5.1); null: the ones from before. */
  impliedScopes: string[] | null;
};

/** Computes when the sweeper refreshes a new set. */
export type Scheduler = (ends: EndTimes) => Schedule;

export function schedulerFor(rules: RefreshRules, random: () => number): Scheduler {
  return (ends) => scheduleRefresh(ends, rules, random);
}

/**
 * What carries over when a token set is refreshed. Everything except the access token. The refresh token carries over unless it cannot be
 * opened. If the answer brings a refresh token (`bringsAnother`), the one before is not opened.
 */
export function refreshBase(
  vault: TokenVault,
  row: TokenRow,
  { rotation, bringsAnother = false }: Pick<RefreshRules, "rotation"> & { bringsAnother?: boolean },
): GrantBase {
  return {
    ...row,
    ...provenCaptures(vault, row),
    rotation,
    refreshToken: bringsAnother ? null : openedRefreshToken(vault, row),
    impliedScopes: row.generation === 0 ? row.scopes : null,
  };
}

/** Null: there is none, or it cannot be opened. This must not throw, since it runs between an answer and its first durable copy. */
export function openedRefreshToken(vault: TokenVault, row: TokenRow): string | null {
  const { refreshToken } = row;
  return openedOrNull(() => refreshToken && vault.openRefreshToken(refreshToken, placeOf(row)));
}

type ToSeal = {
  grant: Grant;
  generation: number;
  sentAt: Date;
  scheduler: Scheduler;
  hosts: readonly string[];
  isUseless?: boolean;
};

/**
 * Seals for a row what a provider granted. If the answer has no refresh token, the row's one is sealed again for the same generation.
 * @param generation the one that the set opens for: the row's next.
 * @param sentAt Postgres's time of the permit. Lifetimes count from it: a time after the send would make tokens look younger than they are.
 * @param hosts the inputs that fill a host. With other values the tokens do not open.
 * @param isUseless a refresh token is not stored, since no request could send it (`isUselessTo`).
 */
export function sealGrant(
  vault: TokenVault,
  base: GrantBase,
  { grant, generation, sentAt, scheduler, hosts, isUseless = false }: ToSeal,
): SealedGrant {
  const accessToken = grant.accessToken ?? null;
  const refreshToken = isUseless ? null : (grant.refreshToken ?? base.refreshToken);
  const { accountCaptured } = base;
  const captured = { ...base.captured, ...grant.captured };
  const destination = destinationOf({ ...base, captured }, hosts);
  const place = { connectionId: base.id, generation, destination };
  const isUnusable = accessToken === null || !isUsable(accessToken);
  const expiresAt = isUnusable ? sentAt : expiryDate(grant.accessExpiry, sentAt, refreshTimes.unstatedLifetimeSeconds);
  const keepsRefreshToken = grant.refreshToken === undefined && refreshToken !== null;
  const refreshTokenExpiresAt = isUseless ? null : expiryDate(grant.refreshExpiry, sentAt, null);
  const ends = {
    issuedAt: sentAt,
    expiresAt,
    refreshTokenExpiresAt: keepsRefreshToken ? base.refreshTokenExpiresAt : refreshTokenExpiresAt,
    authorizedAt: base.authorizedAt,
  };
  const schedule = refreshToken === null ? { ...scheduler(ends), keepAliveAt: null } : scheduler(ends);
  return {
    ...vault.sealTokens({ accessToken, refreshToken }, place),
    refreshFingerprint: refreshToken === null ? null : vault.fingerprint(refreshToken, base.clientRef ?? base.provider),
    tokenType: grant.tokenType,
    grantedScopes: grant.scopes ?? base.impliedScopes,
    captured,
    accountCaptured,
    redirectUri: base.redirectUri,
    issuedAt: sentAt,
    expiresAt,
    refreshTokenExpiresAt,
    keepsRefreshToken,
    unreadableLifetime: grant.unreadableLifetime === true,
    lastError: accessToken !== null && isUnusable ? unusableToken : null,
    noRefreshTokenSince:
      grant.refreshToken === undefined ? refreshTokenMissingSince(base, { sentAt, expiresAt }) : null,
    ...schedule,
  };
}

/** Whether a header can carry an access token (RFC 6749, appendix A.12: printable ASCII). Others are stored and never handed out. */
export function isUsable(accessToken: string): boolean {
  return /^[\x20-\x7e]+$/.test(accessToken);
}

const unusableToken = {
  code: "unusable_token",
  detail:
    "The provider's newest access token holds a character that no header can carry: a control character, or one beyond ASCII. It is stored and not handed out; a refresh may bring another one.",
};

/** When a token expires that was requested at `sentAt`; null: never. At most ten years later, and never earlier than `sentAt`. */
export function expiryDate(expiry: Expiry, sentAt: Date, unstated: number | null): Date | null {
  if (expiry.kind === "never") return null;
  const sentSeconds = sentAt.getTime() / 1000;
  const stated =
    expiry.kind === "at" ? expiry.epochSeconds - sentSeconds : expiry.kind === "in" ? expiry.seconds : unstated;
  return stated === null
    ? null
    : new Date((sentSeconds + Math.min(Math.max(stated, 0), providerTimes.longestLifetimeSeconds)) * 1000);
}

/** One answer of a token endpoint, and the row that it is for. */
export type ReceivedGrant = { context: RequestContext; grant: Grant; record: AnswerRecord };

/** A token set that comes from a person: by consent, or by import. Nothing of the set before carries over. */
type PersonGrantTerms = Terms & { captured: Record<string, string>; redirectUri: string | null };

/** The row's definition, and `generation` and `sentAt` as in `sealGrant`. */
type Terms = { definition: ProviderDefinition; generation: number; sentAt: Date };

export type Sealing = { vault: TokenVault; random: () => number };

/** Seals the sets of one answer. */
function sealerFor(
  { vault, random }: Sealing,
  base: GrantBase,
  { definition, generation, sentAt }: Terms,
): (grant: Grant) => SealedGrant {
  const isUseless = isUselessTo(definition, base.grant);
  const scheduler = schedulerFor(definition.refresh, random);
  const given = { generation, sentAt, scheduler, hosts: hostInputs(definition), isUseless };
  return (grant) => sealGrant(vault, base, { grant, ...given });
}

/** The same for a token set that comes from a person: by consent, or by import. */
export function personGrantSealer(
  sealing: Sealing,
  row: TokenRow,
  terms: PersonGrantTerms,
): (grant: Grant) => SealedGrant {
  const { captured, redirectUri, definition, sentAt } = terms;
  const base = {
    ...row,
    captured,
    redirectUri,
    rotation: definition.refresh.rotation,
    refreshToken: null,
    noRefreshTokenSince: null,
    impliedScopes: row.scopes,
    authorizedAt: sentAt,
  };
  return sealerFor(sealing, base, terms);
}

/** Builds the sealed record of a refreshed set, with what carries over from the row. @param sentAt the time from which lifetimes count, by Postgres's clock */
export function recordOfRefresh(
  sealing: Sealing,
  context: RequestContext,
  { grant, key, sentAt }: { grant: Grant; key: PermitKey; sentAt: Date },
): AnswerRecord {
  const { row, definition } = context;
  const carried = { rotation: definition.refresh.rotation, bringsAnother: grant.refreshToken !== undefined };
  const base = refreshBase(sealing.vault, row, carried);
  const sealedFor = key.generation + 1;
  const seal = sealerFor(sealing, base, { definition, generation: sealedFor, sentAt });
  const { captured, redirectUri } = base;
  const further = recordsOfFurtherTokens(sealing, context, { grant, captured, redirectUri }).map((one) =>
    Object.assign(one.record, { kind: "further" as const }),
  );
  const record: AnswerRecord = {
    kind: "refresh",
    ...key,
    authorization: row.authorization,
    event: "refreshed",
    sealedFor,
    destination: grantDestination(row, hostInputs(definition)),
    grant: seal(grant),
    ...(grant.furtherTokens && { further }),
  };
  return withOtherRefreshToken(record, grant, seal);
}

type PersonGrant = Pick<PersonGrantTerms, "captured" | "redirectUri"> & { grant: Grant };

/** Builds the sealed record of a person's grant. */
export function recordOfPersonGrant(
  sealing: Sealing,
  context: RequestContext,
  { grant, captured, redirectUri }: PersonGrant,
): ReceivedGrant {
  const { row, definition } = context;
  const rules = definition.refresh;
  // A further token has no account of its own, so it cannot be compared.
  const mayReuseOldRefreshToken =
    row.parentId === null && rules.rotation === "never" && grant.refreshToken === undefined;
  const proven = { ...row, ...provenCaptures(sealing.vault, row) };
  const sealedFor = nextGeneration(row);
  const terms = { definition, generation: sealedFor, sentAt: row.now };
  const seal = personGrantSealer(sealing, proven, { captured, redirectUri, ...terms });
  const record: AnswerRecord = {
    kind: "grant",
    connectionId: row.id,
    generation: row.generation,
    authorization: row.authorization,
    attemptId: randomUUID(),
    event: row.generation === 0 ? "connected" : "reconnected",
    sealedFor,
    destination: grantDestination(row, hostInputs(definition)),
    grant: seal(grant),
    clientId: clientIdOf(context),
    ...(rules.rotation !== "never" && { exclusive: true }),
    ...(mayReuseOldRefreshToken && { mayKeepRefreshToken: true }),
  };
  return { context, grant, record: withOtherRefreshToken(record, grant, seal) };
}

/**
 * If an answer names two refresh tokens: builds the record for the second refresh token, for the same row with a new attempt id, and puts it
 * into the first one's record. It has no access token.
 */
function withOtherRefreshToken(
  record: AnswerRecord,
  { otherRefreshToken, tokenType, scopes, captured }: Grant,
  seal: (grant: Grant) => SealedGrant,
): AnswerRecord {
  if (otherRefreshToken === undefined) return record;
  const { connectionId, generation, authorization, sealedFor, destination } = record;
  const place = { connectionId, generation, authorization, sealedFor, destination };
  const unstated = { kind: "unstated" } as const;
  const lives = { accessExpiry: unstated, refreshExpiry: unstated };
  const grant = seal({ refreshToken: otherRefreshToken, tokenType, ...lives, ...(scopes && { scopes }), captured });
  return { ...record, other: { kind: "refresh", event: "refreshed", attemptId: randomUUID(), ...place, grant } };
}

/** The id of the client to which a grant is given; null: none. */
export function clientIdOf({ row, client, definition }: RequestContext): string | null {
  return client?.clientId ?? fixedClientId(definition, row.grant as ConnectionGrant);
}

/** Builds the sealed records of the further tokens that came with a grant, each for its own row. */
export function recordsOfFurtherTokens(
  sealing: Sealing,
  { furtherContexts = [] }: Pick<RequestContext, "furtherContexts">,
  { grant, captured, redirectUri }: PersonGrant,
): ReceivedGrant[] {
  return furtherContexts.flatMap((context) => {
    const further = grant.furtherTokens?.[context.row.chain ?? ""];
    return further === undefined
      ? []
      : [recordOfPersonGrant(sealing, context, { grant: further, captured, redirectUri })];
  });
}

type Opening = Pick<TokenVault, "openAccessToken" | "openRefreshToken">;
type Tokens = Pick<Grant, "accessToken" | "refreshToken">;

/**
 * Whether a row uses one of these tokens, so that revoking them would end its grant. Null: not known, since this replica cannot open the
 * row's tokens.
 */
export function usesToken(vault: Opening, row: TokenRow, { accessToken, refreshToken }: Tokens): boolean | null {
  const place = placeOf(row);
  try {
    const refresh = row.refreshToken === null ? null : vault.openRefreshToken(row.refreshToken, place);
    const access = row.accessToken === null ? null : vault.openAccessToken(row.accessToken, place);
    return (
      (refreshToken !== undefined && refreshToken === refresh) || (accessToken !== undefined && accessToken === access)
    );
  } catch {
    return null;
  }
}

/** A grant with everything that is needed to store it in its row, now or after a restart. */
export type AnswerRecord = {
  /** `refresh`: got under a permit. `grant`: got by a person's code. `held`: the same, and it waits until a person confirms it (an unconfirmed grant). `further`: it came with a refresh of its connection. */
  kind: "refresh" | "grant" | "held" | "further";
  connectionId: string;
  /** The row's generation and authorization when the request was sent. */
  generation: number;
  authorization: number;
  attemptId: string;
  /** The type of its line in the history. */
  event: EventType;
  /** The generation that the tokens are sealed for. */
  sealedFor: number;
  /** Where the tokens may be sent, apart from captured values. They are never sealed for another destination. */
  destination: Omit<Destination, "captured" | "account">;
  grant: SealedGrant;
  /** For a person's grant: the client id to which it was given. */
  clientId?: string | null;
  /** The answer has no refresh token, and this provider keeps the row's refresh token valid. */
  mayKeepRefreshToken?: boolean;
  /** For a person's grant: it must not be stored if another connection has its refresh token. */
  exclusive?: boolean;
  /** Its account, if a person has confirmed it, or if nobody can know it. */
  account?: { account: string | null; label: string | null };
  /** If the answer names two refresh tokens: the record with the first one. It becomes a candidate. */
  other?: AnswerRecord;
  /** Records of further tokens that came with it, unless they are persisted by themselves. */
  further?: AnswerRecord[];
};

const dates = [
  "issuedAt",
  "expiresAt",
  "refreshTokenExpiresAt",
  "refreshDueAt",
  "keepAliveAt",
  "noRefreshTokenSince",
] as const;
const binaries = ["accessToken", "refreshToken", "refreshFingerprint"] as const;

/** Seals a record as a whole, so that a spooled one cannot be read, or moved to another connection or generation. */
export function sealRecord(vault: TokenVault, record: AnswerRecord): Uint8Array<ArrayBuffer> {
  return vault.sealRecord(JSON.stringify(toJson(record)), record);
}

function toJson({ further, other, ...record }: AnswerRecord): Record<string, unknown> {
  const grant: Record<string, unknown> = { ...record.grant };
  for (const name of binaries) {
    const bytes = record.grant[name];
    grant[name] = bytes === null ? null : Buffer.from(bytes).toString("base64");
  }
  return { ...record, grant, ...(other && { other: toJson(other) }), ...(further && { further: further.map(toJson) }) };
}

/**
 * Opens a record, and seals its tokens with the current key. Otherwise a record that is read before a rotation of keys and stored after it would
 * bring the old key back. @throws Error when it does not belong to this place, or its key is not in the ring
 */
export function openRecord(
  vault: TokenVault,
  sealed: Uint8Array,
  at: { connectionId: string; generation: number },
): AnswerRecord {
  return underCurrentKey(vault, readRecord(vault.openRecord(sealed, at)));
}

/** The same record with its tokens, and those of the records in it, under the current key. A token that cannot be opened stays as it is. */
export function underCurrentKey(vault: TokenVault, record: AnswerRecord): AnswerRecord {
  const place = placeIn(record, record.sealedFor, record.grant.accountCaptured);
  const none = { accessToken: null, refreshToken: null };
  const moved = (name: "accessToken" | "refreshToken") => {
    const token = record.grant[name];
    if (vault.isCurrent(token)) return token;
    try {
      return vault.resealTokens({ ...none, [name]: token }, place, place)[name];
    } catch (error) {
      if (!(error instanceof UnreadableSecretError)) throw error;
      return token;
    }
  };
  const { other, further } = record;
  return {
    ...record,
    grant: { ...record.grant, accessToken: moved("accessToken"), refreshToken: moved("refreshToken") },
    ...(other && { other: underCurrentKey(vault, other) }),
    ...(further && { further: further.map((one) => underCurrentKey(vault, one)) }),
  };
}

/** The sealed tokens of a record, and of the records in it. */
export function sealsIn({ grant, other, further = [] }: AnswerRecord): Uint8Array[] {
  const own = [grant.accessToken, grant.refreshToken].filter((token) => token !== null);
  return [...own, ...[...(other ? [other] : []), ...further].flatMap(sealsIn)];
}

export function readRecord(text: string): AnswerRecord {
  return fromJson(JSON.parse(text) as AnswerRecord);
}

function fromJson({ further, other, ...record }: AnswerRecord): AnswerRecord {
  const grant: Record<string, unknown> = { ...record.grant };
  // Records of an earlier version do not have these two fields.
  grant["unreadableLifetime"] ??= false;
  grant["lastError"] ??= null;
  for (const name of dates) if (grant[name] !== null) grant[name] = new Date(grant[name] as string);
  for (const name of binaries) {
    if (grant[name] !== null) grant[name] = new Uint8Array(Buffer.from(grant[name] as string, "base64"));
  }
  const more = { ...(other && { other: fromJson(other) }), ...(further && { further: further.map(fromJson) }) };
  return { ...record, grant: grant as SealedGrant, ...more };
}

/** The tokens of a record, in plain text. */
export function openTokens(vault: TokenVault, record: AnswerRecord) {
  const { accessToken, refreshToken } = record.grant;
  const place = placeIn(record, record.sealedFor, record.grant.accountCaptured);
  return {
    accessToken: accessToken === null ? null : vault.openAccessToken(accessToken, place),
    refreshToken: refreshToken === null ? null : vault.openRefreshToken(refreshToken, place),
  };
}

/**
 * Seals the same set for another generation of its row. It stays bound to its own inputs, so it cannot be opened in a row that has other
 * inputs now. Values from lookups are the row's, unless the set has an account of its own.
 */
export function resealFor(
  vault: TokenVault,
  record: AnswerRecord,
  { row, generation }: { row: TokenRow; generation: number },
): SealedGrant {
  const accountCaptured = record.account === undefined ? provenCaptures(vault, row).accountCaptured : {};
  if (generation === record.sealedFor && isSame(accountCaptured, record.grant.accountCaptured)) return record.grant;
  const from = placeIn(record, record.sealedFor, record.grant.accountCaptured);
  const to = placeIn(record, generation, accountCaptured);
  return { ...record.grant, accountCaptured, ...vault.resealTokens(record.grant, from, to) };
}

function isSame(one: Record<string, string>, other: Record<string, string>): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}

function placeIn(record: AnswerRecord, generation: number, account: Record<string, string>): TokenPlace {
  const destination = { ...record.destination, captured: record.grant.captured, account };
  return { connectionId: record.connectionId, generation, destination };
}

type Bound = Pick<TokenRow, "name" | "parentId" | "provider" | "clientRef" | "inputsInForce">;
type Captures = Pick<TokenRow, "captured" | "accountCaptured">;
const none: Captures = { captured: {}, accountCaptured: {} };

/**
 * Where the secrets of a connection are sent, as far as columns decide it. The vault seals for this destination and opens for no other.
 * `hosts`: the inputs that fill a host in the current definition. Leave it empty for opening: the sealed record names its own.
 */
function destinationOf(row: Bound & Captures, hosts: readonly string[] = []): Destination {
  const { name, parentId: parent, provider, clientRef: client, inputsInForce: inputs } = row;
  return { name, parent, provider, client, inputs, hosts, captured: row.captured, account: row.accountCaptured };
}

/** Where the tokens of a row are stored, for sealing and opening. */
export function placeOf(row: Bound & Captures & Pick<TokenRow, "id" | "generation">): TokenPlace {
  return { connectionId: row.id, generation: row.generation, destination: destinationOf(row) };
}

/** Where connection secrets are stored. They outlive a grant, so they are not bound to captured values or an account. */
export function secretsPlace(
  row: Bound & Pick<TokenRow, "id">,
  { revision, hosts = [] }: { revision: number; hosts?: readonly string[] },
): SecretsPlace {
  return { connectionId: row.id, revision, destination: secretsDestination(row, hosts) };
}

export function secretsDestination(row: Bound, hosts: readonly string[] = []): Destination {
  return destinationOf({ ...row, ...none }, hosts);
}

/** The destination of a grant, stored with it: of the inputs only those that fill a host. */
export function grantDestination(row: Bound, hosts: readonly string[]): AnswerRecord["destination"] {
  const { captured: _, account: __, inputs, ...rest } = secretsDestination(row, hosts);
  return { ...rest, inputs: Object.fromEntries(Object.entries(inputs).filter(([name]) => hosts.includes(name))) };
}

/** Whether the tokens of a grant may be sent to the hosts of this owner. */
export function mayBeSentTo(
  { destination }: Pick<AnswerRecord, "destination">,
  owner: Omit<Bound, "parentId">,
  definition: ProviderDefinition,
): boolean {
  const { name, provider, client } = destination;
  const hosts = hostInputs(definition);
  return (
    name === owner.name &&
    provider === owner.provider &&
    client === owner.clientRef &&
    hosts.every((host) => destination.inputs[host] === owner.inputsInForce[host])
  );
}

/** Treats every client input as deciding a host. */
export function clientDestination({
  id,
  name,
  provider,
  inputs,
}: Pick<ClientRow, "id" | "name" | "provider" | "inputs">): Destination {
  return { name, parent: null, provider, client: id, inputs, hosts: Object.keys(inputs), captured: {}, account: {} };
}

/**
 * The captured values of a row, if one of its tokens can be opened with them. Nothing else proves that the broker has written them, and they
 * may fill a host. So without such a token they count as absent.
 */
export function provenCaptures(
  vault: Pick<TokenVault, "openAccessToken" | "openRefreshToken">,
  row: Parameters<typeof placeOf>[0] & Pick<TokenRow, "accessToken" | "refreshToken">,
): Captures {
  const { captured, accountCaptured, accessToken, refreshToken } = row;
  if (Object.keys(captured ?? {}).length + Object.keys(accountCaptured ?? {}).length === 0) return none;
  const place = placeOf(row);
  const opens =
    opensWith(refreshToken, (record) => vault.openRefreshToken(record, place)) ||
    opensWith(accessToken, (record) => vault.openAccessToken(record, place));
  return opens ? { captured, accountCaptured } : none;
}

function opensWith(record: Uint8Array | null, open: (record: Uint8Array) => string): boolean {
  try {
    return record !== null && typeof open(record) === "string";
  } catch {
    return false;
  }
}

/** The connection secrets in plain text: credentials for a login, and inputs that are secrets. */
export type ConnectionSecrets = { credentials: Record<string, string>; secretInputs: Record<string, string> };

const inputPrefix = "inputs.";

/** Both as one map, for one sealed record. The names of inputs get a prefix. */
export function joinSecrets({ credentials, secretInputs }: ConnectionSecrets): Record<string, string> {
  const inputs = Object.entries(secretInputs).map(([name, value]) => [`${inputPrefix}${name}`, value] as const);
  return { ...credentials, ...Object.fromEntries(inputs) };
}

function splitSecrets(joined: Readonly<Record<string, string>>): ConnectionSecrets {
  const entries = Object.entries(joined);
  const inputs = entries.filter(([name]) => name.startsWith(inputPrefix));
  return {
    credentials: Object.fromEntries(entries.filter(([name]) => !name.startsWith(inputPrefix))),
    secretInputs: Object.fromEntries(inputs.map(([name, value]) => [name.slice(inputPrefix.length), value])),
  };
}

type RowWithSecrets = Parameters<typeof secretsPlace>[0] & Pick<TokenRow, "credentials" | "credentialsRevision">;

/** Opens the connection secrets; empty if there are none. */
export function openSecrets(
  vault: Pick<TokenVault, "openCredentials">,
  row: RowWithSecrets | { credentials?: never },
): ConnectionSecrets {
  if (!row.credentials) return splitSecrets({});
  const place = secretsPlace(row, { revision: row.credentialsRevision });
  return splitSecrets(vault.openCredentials(row.credentials, place));
}
