import { randomUUID } from "node:crypto";
import { furtherTokenName } from "../text.ts";
import type { Marks } from "../coordination/marks.ts";
import { BrokerError, connectionNotFound, openedOrNull, UnreadableSecretError } from "../errors.ts";
import { binds, type Labels } from "../labels.ts";
import { rulesOfGrant } from "../grant-types.ts";
import type { ConnectionGrant, ProviderDefinition } from "../providers/format/definition.ts";
import {
  askedScopes,
  checkInputChanges,
  hostInputs,
  requiredCredentials,
  splitInputs,
} from "../providers/format/requirements.ts";
import type { Catalog } from "../providers/load/catalog.ts";
import type { Grant } from "../providers/oauth/token-answer.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { ClientRow } from "../store/clients.ts";
import type {
  ConnectionEventRow,
  ConnectionFilter,
  ConnectionRecord,
  Connections,
  PageRequest,
} from "../store/connections.ts";
import { isUniqueViolation } from "../store/database-errors.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import type { TokenCache } from "../tokens/cache.ts";
import type { Authorizations } from "../tokens/person-grant.ts";
import type { DeviceCode, Devices } from "../tokens/devices.ts";
import type { GrantEnds } from "../tokens/grant-ends.ts";
import type { TokenService } from "../tokens/read.ts";
import { isRefused, refusal, type Sender } from "../tokens/request.ts";
import { type ConnectionSecrets, secretsPlace, joinSecrets, openSecrets, placeOf } from "../tokens/seal.ts";
import type { TokenVault } from "../vault/vault.ts";
import { usableDefinition } from "./clients.ts";
import { type NewConnectionRequest, planConnection, type PlanParts, requireCredentials } from "./new-connection.ts";
import type { Peers } from "./peers.ts";
import {
  boundsOf,
  coversName,
  isAdmin,
  likePatterns,
  mayUse,
  mayUseClient,
  namingHolders,
  type Principal,
  requireOwnLabels,
  toldNames,
  unknownClient,
} from "../callers/principal.ts";

type ConnectionPatch = {
  scopes?: string[];
  labels?: Record<string, string>;
  inputs?: Record<string, unknown>;
  credentials?: Record<string, string>;
  disabled?: boolean;
};

/** What an operator wants: try an ended connection once more, or end a probably dead one. */
export type EndedWish = { kind: "retry"; force: boolean } | { kind: "end" };

export type ConnectionService = ReturnType<typeof createConnectionService>;

export type ConnectionServiceParts = PlanParts & {
  connections: Connections;
  accounts: Pick<AccountRows, "ensureFurtherTokens" | "readFurtherTokens">;
  rows: Pick<TokenStatements, "readById">;
  cache: TokenCache;
  catalog: Catalog;
  vault: TokenVault;
  tokens: TokenService;
  grantEnds: Pick<GrantEnds, "retry" | "end">;
  authorizations: Pick<Authorizations, "decide" | "giveUpUnconfirmed" | "importGrant">;
  devices: Pick<Devices, "begin">;
  sender: Sender;
  marks: Pick<Marks, "close">;
  peers: Pick<Peers, "tell" | "announce" | "untilForgotten" | "lastUnder">;
  /** The names of labels to which workloads of WORKLOADS_FILE are bound. The database does not know those workloads. */
  fileLabels: ReadonlySet<string>;
  /** Called, with the reason, for a grant that is deleted here and stays valid at the provider. */
  onUnrevoked: (connection: string, why: string) => void;
};

/** Connections, for operators and provisioning code. A principal sees those that its patterns and labels allow. All throw BrokerError. */
export function createConnectionService(parts: ConnectionServiceParts) {
  const {
    connections,
    clients,
    accounts,
    rows,
    cache,
    catalog,
    vault,
    tokens,
    grantEnds,
    authorizations,
    devices,
    sender,
    marks,
    peers,
    fileLabels,
  } = parts;
  const revocation = { sender, vault, onUnrevoked: parts.onUnrevoked };

  const find = async (principal: Principal, name: string): Promise<ConnectionRecord> => {
    const { labels } = principal;
    // Every refusal costs a query that finds nothing. No connection's name begins with #.
    const record = await connections.findByName(coversName(principal, name) ? name : `#${name}`, labels);
    if (record === null || !mayUse(principal, record)) throw connectionNotFound(name);
    // Whoever writes the table could hand the connection to another tenant by its labels.
    if (binds(labels)) vault.connections.check(record);
    return record;
  };

  /** The row as it is in the table. Check its MAC before you use anything of it. */
  const get = async (principal: Principal, name: string): Promise<ConnectionRecord> => {
    const record = await find(principal, name);
    if (catalog.get(record.provider)?.furtherTokens.length === 0) return record;
    const furtherTokens = await connections.furtherTokens(record.id);
    return furtherTokens.length === 0 ? record : { ...record, furtherTokens };
  };

  const tokenRow = async ({ id, name }: ConnectionRecord): Promise<TokenRow> => {
    const row = await rows.readById(id);
    if (row === null) throw connectionNotFound(name);
    return row;
  };

  const definitionOf = ({ provider }: ConnectionRecord): ProviderDefinition => {
    const definition = catalog.get(provider);
    if (definition === undefined) {
      throw new BrokerError("conflict", `This broker has no definition of the provider "${provider}" any more.`);
    }
    return definition;
  };

  /** The connection's client, if the principal may use it. @throws BrokerError as for a client that does not exist */
  const clientFor = async (
    principal: Principal,
    record: ConnectionRecord,
    scopes: readonly string[],
  ): Promise<ClientRow | null> => {
    if (record.clientRef === null) return null;
    const client = await clients.findById(record.clientRef);
    const definition = catalog.get(record.provider);
    const required = definition ? askedScopes(definition, record.grant as ConnectionGrant).required : [];
    const use = { connection: record.name, scopes, required };
    if (client === null || !mayUseClient(principal, client, use)) throw unknownClient(record.clientName ?? "");
    return client;
  };

  /** The same, if the principal may also use the connection's client. */
  const getToUse = async (principal: Principal, name: string): Promise<ConnectionRecord> => {
    const record = await get(principal, name);
    vault.connections.check(record);
    await clientFor(principal, record, record.scopes);
    return record;
  };

  /** Fetches the first token of a connection that needs no person. Refused: the connection is removed. Provider away: it stays pending. */
  const fetchFirst = async (id: string, name: string): Promise<void> => {
    const outcome = await tokens.tryRefresh(name).catch(stillPending);
    if (outcome?.failure === undefined || !isRefused(outcome.failure)) return;
    await connections.discard(id);
    cache.expire(name);
    throw new BrokerError("provider_rejected", `The provider refuses: ${outcome.failure.detail}`, { connection: name });
  };

  /** A secret that is stored for one host must not be sent to another, so inputs that decide a host stay while there is anything to send. */
  const checkInputs = async (record: ConnectionRecord, given: Record<string, unknown>) => {
    const definition = definitionOf(record);
    const hosts = [...hostInputs(definition), ...boundInputs(vault, await tokenRow(record))];
    const host = hosts.find((name) => Object.hasOwn(given, name) && given[name] !== record.inputs[name]);
    if (host !== undefined && (await connections.hasOrAwaitsSecrets(record.id))) {
      const detail = `inputs.${host}: decides the host, and cannot be changed while the connection has credentials or tokens, or a person is on the way to bring some.`;
      throw new BrokerError("conflict", detail, { connection: record.name });
    }
    const inputs = checkInputChanges({ definition, given, hasClient: record.clientRef !== null });
    return { inputs, movesHost: host !== undefined };
  };

  return {
    get,
    getToUse,

    async create(principal: Principal, request: NewConnectionRequest): Promise<ConnectionRecord> {
      if (!coversName(principal, request.name)) {
        throw new BrokerError(
          "forbidden",
          `name: this key may only create connections named ${principal.connections.join(", ")}.`,
        );
      }
      requireOwnLabels(principal, request.labels);
      const plan = await planConnection(parts, principal, request);
      // Waits until no replica serves the tokens of an earlier connection under this name.
      const hadItLast = await peers.untilForgotten(request.name);
      const id = randomUUID();
      const connectionSecrets = joinSecrets({ credentials: plan.credentials ?? {}, secretInputs: plan.secretInputs });
      const hasSecrets = Object.keys(connectionSecrets).length > 0;
      const { inputs, client } = plan;
      const inputsInForce = { ...inputs, ...client?.inputs };
      const row = { ...plan, id, parentId: null, clientRef: client?.id ?? null, inputsInForce };
      const definition = await usableDefinition(catalog, plan.provider);
      const place = secretsPlace(row, { revision: 0, hosts: hostInputs(definition) });
      const sealed = hasSecrets ? vault.sealCredentials(connectionSecrets, place) : null;
      try {
        if (!(await connections.insert({ ...plan, id, credentials: sealed }))) throw justChanged("The client");
      } catch (error) {
        if (!isUniqueViolation(error)) throw error;
        throw new BrokerError("conflict", `name: there is already a connection named "${request.name}".`);
      }
      if ((await peers.lastUnder(plan.name)) !== hadItLast) {
        await connections.discard(id);
        throw justChanged("The connection of this name");
      }
      if (definition.furtherTokens.length > 0) await accounts.ensureFurtherTokens(row, definition.furtherTokens);
      if (!rulesOfGrant(plan.grant).needsPerson) await fetchFirst(id, plan.name);
      return await get(principal, plan.name);
    },

    list: async (principal: Principal, page: PageRequest, filter: ConnectionFilter): Promise<ConnectionRecord[]> =>
      await connections.list(page, filter, boundsOf(principal)),

    async patch(principal: Principal, name: string, patch: ConnectionPatch): Promise<ConnectionRecord> {
      const record = await get(principal, name);
      vault.connections.check(record);
      if (patch.labels !== undefined) requireOwnLabels(principal, patch.labels);
      const { inputs: givenInputs, credentials: given } = patch;
      const definition = definitionOf(record);
      // Who may see the connection may also change labels and disable it. Everything else uses the client's secret.
      const usesClient = Object.keys(patch).some((field) => field !== "labels" && field !== "disabled");
      const client =
        usesClient || patch.disabled === false
          ? await clientFor(principal, record, patch.scopes ?? record.scopes)
          : null;
      const { inputs: checked, movesHost } =
        givenInputs === undefined ? noInputs : await checkInputs(record, givenInputs);
      const { open: openInputs, secret: secretInputs } = splitInputs(definition, checked);
      const inputs = givenInputs === undefined ? {} : { inputs: openInputs };
      const hasSecrets = given !== undefined || Object.keys(secretInputs).length > 0;
      const credentials = hasSecrets
        ? {
            credentials: sealedSecrets(vault, await tokenRow(record), {
              definition,
              credentials: given,
              secretInputs,
              openInputs,
            }),
          }
        : {};
      const { scopes, labels, disabled } = patch;
      const rest = {
        ...(scopes && { scopes }),
        ...(labels && { labels }),
        ...(disabled !== undefined && { disabled }),
      };
      const changes = { ...rest, ...inputs, ...credentials };
      const furtherTokens = disabled === undefined ? [] : await accounts.readFurtherTokens(record.id);
      const relabelled = labels === undefined ? [] : changedNames(record.labels, labels);
      const freeLabels = isAdmin(principal) ? [] : relabelled;
      const ofFile = freeLabels.find((label) => fileLabels.has(label));
      if (ofFile !== undefined) throw boundLabel(ofFile);
      const updated = await connections.update(record, changes, { client, movesHost, freeLabels, furtherTokens });
      if (updated === null) {
        const [bound] = freeLabels.length === 0 ? [] : await connections.bindingLabels(freeLabels);
        throw bound === undefined ? justChanged("The connection, or its client,") : boundLabel(bound);
      }
      cache.learn(updated);
      // With other labels it is not the same callers' any more, so replicas must not serve it as they have it in memory.
      if (disabled === true || relabelled.length > 0) await peers.announce({ kind: "connection", id: record.id });
      for (const { chain } of record.furtherTokens ?? []) cache.expire(furtherTokenName(name, chain));
      if (given !== undefined && updated.status === "pending") await tokens.tryRefresh(name).catch(stillPending);
      return await get(principal, name);
    },

    /** Returns the names of replicas that have not confirmed that they no longer serve its tokens. */
    async delete(principal: Principal, name: string, { revoke }: { revoke: boolean }): Promise<string[]> {
      const record = await find(principal, name); // one that somebody else has written can be deleted, too
      // An unconfirmed grant would be deleted with the connection, and nobody could revoke it any more.
      if (revoke) await authorizations.giveUpUnconfirmed(record.id);
      const deleted = await connections.delete(record.id);
      const [own] = deleted;
      for (const row of deleted) {
        cache.expire(row.name);
        marks.close(row.id, row.version);
      }
      if (own === undefined) throw connectionNotFound(name);
      const told = peers.tell({ kind: "connection", id: own.id });
      if (revoke) for (const row of deleted) await revokeGrant(revocation, { row, owner: own });
      return await told;
    },

    async importGrant(
      principal: Principal,
      name: string,
      { grant, verify }: { grant: Grant; verify: boolean },
    ): Promise<ConnectionRecord> {
      const record = await getToUse(principal, name);
      const offered = definitionOf(record).grants.includes("import");
      if (!rulesOfGrant(record.grant).needsPerson || !offered) throw notApplicable(record, "takes no imported tokens");
      requireEnabled(record);
      const target = await tokenRow(record);
      const row = await namingHolders(principal, () => authorizations.importGrant(target, grant));
      if (verify) await verifyImport(tokens, row);
      return await get(principal, name);
    },

    /** Accepts or declines the unconfirmed grant of another account. */
    async decideAccount(principal: Principal, name: string, accepted: boolean): Promise<ConnectionRecord> {
      const { id } = await (accepted ? getToUse : get)(principal, name);
      await namingHolders(principal, () => authorizations.decide({ connectionId: id }, accepted));
      return await get(principal, name);
    },

    /** A code that a person types in at the provider (RFC 8628). */
    async beginDevice(principal: Principal, name: string): Promise<DeviceCode> {
      const { id } = await getToUse(principal, name);
      return await devices.begin(id, null);
    },

    /** `wish`: what an operator says about the end of its grant. */
    async refresh(principal: Principal, name: string, wish?: EndedWish): Promise<ConnectionRecord> {
      // Who may see the connection may also end it. Everything else uses the client's secret.
      const { id } = wish?.kind === "end" ? await get(principal, name) : await getToUse(principal, name);
      if (wish === undefined) await tokens.refreshNow(name);
      else if (wish.kind === "end") await grantEnds.end(id, principal.callerId);
      else await grantEnds.retry(id, { by: principal.callerId, force: wish.force });
      return await get(principal, name);
    },

    async events(
      principal: Principal,
      name: string,
      page: { limit: number; before: bigint | null },
    ): Promise<ConnectionEventRow[]> {
      const { id } = await get(principal, name);
      // Only events that name connections ask for patterns, and a principal with labels is told of none of those.
      const patterns = binds(principal.labels) ? [] : likePatterns(principal);
      const events = await connections.events(id, { ...page, patterns });
      return events.map((event) => withoutForeignNames(principal, event));
    },
  };
}

type Patched = {
  definition: ProviderDefinition;
  credentials: Record<string, string> | undefined;
  secretInputs: Record<string, string>;
  /** Fields that change together with them. */
  openInputs: Record<string, string>;
};

/** The inputs that the sealed values of a row are bound to, whatever its definition says now. */
function boundInputs(vault: TokenVault, { accessToken, refreshToken, credentials }: TokenRow): string[] {
  return [accessToken, refreshToken, credentials].flatMap((record) => {
    try {
      return record === null ? [] : vault.hostsOf(record);
    } catch {
      return []; // it does not open with any inputs
    }
  });
}

/** The connection secrets after a change. They are sealed as a whole, so those that stay are sealed anew. */
function sealedSecrets(vault: TokenVault, row: TokenRow, given: Patched) {
  const { definition, credentials, secretInputs, openInputs } = given;
  const before = secretsBefore(vault, row, given);
  const checked =
    credentials === undefined
      ? before.credentials
      : requireCredentials(definition, row.grant as ConnectionGrant, credentials);
  if (checked === null) throw notApplicable(row, "has no credentials");
  const connectionSecrets = { credentials: checked, secretInputs: { ...before.secretInputs, ...secretInputs } };
  const after = { ...row, inputsInForce: { ...row.inputsInForce, ...openInputs } };
  const place = secretsPlace(after, { revision: row.credentialsRevision + 1, hosts: hostInputs(definition) });
  return vault.sealCredentials(joinSecrets(connectionSecrets), place);
}

/** Secrets that do not open are replaced as a whole, or stay as they are. @throws UnreadableSecretError if some of them would be lost */
function secretsBefore(
  vault: TokenVault,
  row: TokenRow,
  { definition, credentials, secretInputs }: Patched,
): ConnectionSecrets {
  try {
    return openSecrets(vault, row);
  } catch (error) {
    const secrets = Object.entries(definition.inputs).filter(([, input]) => input.secret && !input.optional);
    const needsCredentials = requiredCredentials(definition, row.grant as ConnectionGrant).length > 0;
    const isWhole = secrets.every(([name]) => Object.hasOwn(secretInputs, name));
    if (isWhole && (credentials !== undefined || !needsCredentials)) return { credentials: {}, secretInputs: {} };
    throw error instanceof UnreadableSecretError ? error.of(row.name) : error;
  }
}

async function verifyImport(tokens: TokenService, row: TokenRow): Promise<void> {
  const outcome = await tokens.tryRefresh(row.name);
  if (outcome.kind === "failed" && outcome.failure !== undefined) throw refusal(row, outcome.failure);
}

/** An event may name other connections. Those that the caller may not see are left out. */
function withoutForeignNames(principal: Principal, event: ConnectionEventRow): ConnectionEventRow {
  const { connections: names } = event.detail;
  if (!Array.isArray(names)) return event;
  const known = toldNames(
    principal,
    names.filter((name) => typeof name === "string"),
  );
  return { ...event, detail: { ...event.detail, connections: known } };
}

/** The names of labels that one of them lacks, or has with another value. */
function changedNames(before: Labels, after: Labels): string[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].filter(
    (name) => Object.hasOwn(before, name) !== Object.hasOwn(after, name) || before[name] !== after[name],
  );
}

function boundLabel(name: string): BrokerError {
  return new BrokerError(
    "forbidden",
    `labels: there are callers that are bound to "${name}"; only a key with "admin" that is bound to no labels changes it.`,
  );
}

const noInputs = { inputs: {}, movesHost: false };

function justChanged(what: string): BrokerError {
  return new BrokerError("conflict", `${what} was just changed by somebody else; look at it and try again.`);
}

/** If the provider is slow or the database away, the connection stays pending, and is tried again when it is read. */
function stillPending(error: unknown): null {
  if (error instanceof BrokerError) return null;
  throw error;
}

/** Best effort, after the row is deleted. The newest tokens are those that the DELETE returned. */
async function revokeGrant(
  { sender, vault, onUnrevoked }: Pick<ConnectionServiceParts, "sender" | "vault" | "onUnrevoked">,
  { row, owner }: { row: TokenRow; owner: TokenRow },
): Promise<void> {
  if (row.refreshToken === null && row.accessToken === null) return;
  const context = await sender.prepareFurtherToken(row).catch((error: unknown) => {
    onUnrevoked(row.name, error instanceof BrokerError ? error.message : "Its request could not be made.");
    return null;
  });
  if (context === null || context.definition.revocation === null) return;
  // Tokens that do not open cannot be revoked. The connection is deleted all the same.
  const place = placeOf(row);
  const refreshToken = openedOrNull(() => row.refreshToken && vault.openRefreshToken(row.refreshToken, place));
  const accessToken = openedOrNull(() => row.accessToken && vault.openAccessToken(row.accessToken, place));
  const isLost = (row.refreshToken !== null && refreshToken === null) || (refreshToken ?? accessToken) === null;
  if (isLost) onUnrevoked(row.name, "Its stored tokens do not open.");
  await sender.revokeGrant(
    { ...context, owner },
    { ...(refreshToken && { refreshToken }), ...(accessToken && { accessToken }) },
  );
}

function requireEnabled(record: ConnectionRecord): void {
  if (record.status !== "disabled") return;
  throw new BrokerError("connection_disabled", "This connection is disabled; enable it first.", {
    connection: record.name,
  });
}

function notApplicable({ name, grant }: Pick<ConnectionRecord, "name" | "grant">, why: string): BrokerError {
  return new BrokerError("grant_not_applicable", `A ${grant} connection ${why}.`, { connection: name });
}
