import type { Static } from "typebox";
import type { AuditReport, AuditRow } from "../audit/entries.ts";
import type { EncryptionStatus, RotationStatus } from "../encryption/service.ts";
import { defaultGrant, type ProviderDefinition } from "../providers/format/definition.ts";
import { type Needs, needsOf } from "../providers/format/requirements.ts";
import { redirectUriOf, wantsOwnRedirectUri } from "../providers/oauth/authorization-request.ts";
import { type Attention, attentionOf, attentionOfTokens, missingOf } from "../services/attention.ts";
import type { SuspendedConnection, RestoredRowsService } from "../services/restored-rows.ts";
import type { ApiKeyRow } from "../store/api-keys.ts";
import type { ClientRow } from "../store/clients.ts";
import type { FurtherTokenRecord, ConnectionEventRow, ConnectionRecord } from "../store/connections.ts";
import { readableName } from "../text.ts";
import type { IssuedToken } from "../tokens/read.ts";
import type {
  clientSchema,
  encryptionSchema,
  heldSchema,
  keySchema,
  providerSchema,
  recoverySchema,
  rotationSchema,
} from "./admin-answers.ts";
import type { auditReportSchema, auditRowSchema } from "./audit-answers.ts";
import { type connectionSchema, type eventSchema, lastErrorCodes, type tokenSchema } from "./connection-answers.ts";

/** Rows as API answers: snake_case, times in ISO 8601, and no secret but the access token. */
export function viewToken(token: IssuedToken): Static<typeof tokenSchema> {
  return {
    connection: token.connection,
    ...(token.token !== null && { token: token.token }),
    access_token: token.accessToken,
    token_type: token.tokenType,
    expires_at: iso(token.expiresAt),
    expires_in: token.expiresInSeconds,
    scopes: token.scopes,
    missing_scopes: token.missingScopes,
    version: token.version,
    warnings: token.warnings,
  };
}

export function viewConnection(record: ConnectionRecord): Static<typeof connectionSchema> {
  return {
    name: record.name,
    provider: record.provider,
    client: record.clientName,
    grant: record.grant as Static<typeof connectionSchema>["grant"],
    status: record.status,
    scopes: record.scopes,
    granted_scopes: record.grantedScopes,
    missing_scopes: missingOf(record),
    inputs: textsOf(record.inputs),
    labels: textsOf(record.labels),
    account: record.account,
    account_label: readableName(record.accountLabel),
    ...(record.furtherTokens && {
      tokens: Object.fromEntries(record.furtherTokens.map((one) => [one.chain, viewFurtherToken(one)])),
    }),
    version: record.version,
    expires_at: iso(record.expiresAt),
    refresh_token_expires_at: iso(record.refreshTokenExpiresAt),
    last_refreshed_at: iso(record.lastRefreshedAt),
    next_refresh_at: iso(record.nextRefreshAt),
    consecutive_failures: record.consecutiveFailures,
    last_error: viewError(record),
    attention: viewAttention(attentionOf(record)),
    created_at: record.createdAt.toISOString(),
    updated_at: record.updatedAt.toISOString(),
  };
}

function viewFurtherToken(furtherToken: FurtherTokenRecord) {
  return {
    status: furtherToken.status,
    granted_scopes: furtherToken.grantedScopes,
    version: furtherToken.version,
    expires_at: iso(furtherToken.expiresAt),
    refresh_token_expires_at: iso(furtherToken.refreshTokenExpiresAt),
    consecutive_failures: furtherToken.consecutiveFailures,
    last_error: viewError(furtherToken),
    attention: viewAttention(attentionOfTokens(furtherToken)),
  };
}

function viewAttention(attention: Attention | null) {
  return attention && { ...attention, since: attention.since.toISOString() };
}

function viewError(of: Pick<ConnectionRecord, "lastErrorCode" | "lastErrorAt" | "lastErrorDetail">) {
  const { lastErrorCode, lastErrorAt, lastErrorDetail } = of;
  const code = lastErrorCodes.find((known) => known === lastErrorCode);
  if (code === undefined || lastErrorAt === null) return null;
  return { code, at: lastErrorAt.toISOString(), detail: lastErrorDetail ?? "" };
}

export function viewEvent({ id, at, type, detail }: ConnectionEventRow): Static<typeof eventSchema> {
  return { id: String(id), at: at.toISOString(), type, detail: isMap(detail) ? detail : {} };
}

export function viewClient(client: ClientRow, publicUrl: string): Static<typeof clientSchema> {
  return {
    name: client.name,
    provider: client.provider,
    client_id: client.clientId,
    has_secret: client.secret !== null,
    secret_rotating: client.previousSecret !== null,
    secret_rotating_since: iso(client.secretRotatingSince),
    old_secret_in_use_since: iso(client.oldSecretSince),
    scopes: client.scopes,
    connections: client.patterns,
    inputs: textsOf(client.inputs),
    own_redirect_uri: client.ownRedirectUri,
    redirect_uri: redirectUriOf(publicUrl, {
      provider: client.provider,
      client: client.ownRedirectUri ? client.name : null,
    }),
    created_at: client.createdAt.toISOString(),
    updated_at: client.updatedAt.toISOString(),
  };
}

export function viewProvider(
  definition: ProviderDefinition,
  { publicUrl, providerNetworks }: { publicUrl: string; providerNetworks: readonly string[] },
): Static<typeof providerSchema> {
  const { id, name, docs, usable, grants, networks, file } = definition;
  return {
    id,
    name,
    docs,
    usable,
    grants: [...grants],
    default_grant: defaultGrant(definition),
    needs: Object.fromEntries(grants.map((grant) => [grant, viewNeeds(needsOf(definition, grant))])),
    redirect_uri: redirectUriOf(publicUrl, {
      provider: id,
      client: wantsOwnRedirectUri(definition) ? "{client}" : null,
    }),
    networks: [...(networks ?? providerNetworks)],
    definition: { ...file },
  };
}

function viewNeeds({ clientSecret, clientInputs, ...rest }: Needs) {
  return { ...rest, client_secret: clientSecret, client_inputs: clientInputs };
}

/** `lastUsedAt` is absent for a key that was just made. */
export function viewKey(key: ApiKeyRow & { lastUsedAt?: Date | null }): Static<typeof keySchema> {
  return {
    id: key.id,
    name: key.name,
    abilities: key.abilities,
    connections: key.connections,
    labels: textsOf(key.labels),
    expires_at: iso(key.expiresAt),
    revoked_at: iso(key.revokedAt),
    created_at: key.createdAt.toISOString(),
    last_used_at: iso(key.lastUsedAt ?? null),
  };
}

export function viewAuditRow({ at, ...row }: AuditRow): Static<typeof auditRowSchema> {
  // Rows may come from a newer version of this broker, which knows further kinds and actions.
  return { ...row, at: at.toISOString() } as Static<typeof auditRowSchema>;
}

export function viewAuditReport(report: AuditReport): Static<typeof auditReportSchema> {
  const { ok, chains, rows, faults, openEnds, appendOnly } = report;
  const ends = openEnds.map(({ process, seq, at }) => ({ process, seq, at: at.toISOString() }));
  return { ok, chains, rows, faults, open_ends: ends, append_only: appendOnly };
}

function viewSuspended(suspended: SuspendedConnection): Static<typeof heldSchema> {
  return {
    name: suspended.name,
    provider: suspended.provider,
    status: suspended.status as "connected",
    sets_lost: suspended.setsLost,
    access_token_expires_at: iso(suspended.accessTokenExpiresAt),
  };
}

export function viewRecovery({
  suspended,
  keys,
}: Awaited<ReturnType<RestoredRowsService["list"]>>): Static<typeof recoverySchema> {
  return {
    items: suspended.map(viewSuspended),
    notice: keys === null ? null : keysMayBeBack,
    keys: (keys ?? []).map(({ id, name, abilities, createdAt, expiresAt }) => ({
      id,
      name,
      abilities,
      created_at: createdAt.toISOString(),
      expires_at: iso(expiresAt),
    })),
  };
}

export function viewRotation(rotation: RotationStatus): Static<typeof rotationSchema> {
  const { targetKey, begunBy, begunAt, finishedAt, pass, place, seen, moved, waitsFor, unopened, forgotten } = rotation;
  return {
    target_key: targetKey,
    state: finishedAt === null ? "running" : "finished",
    begun_by: begunBy,
    begun_at: begunAt.toISOString(),
    finished_at: iso(finishedAt),
    pass,
    place,
    seen,
    moved,
    waits_for: waitsFor,
    unopened: unopened.map(({ table, id, name, column, keyId }) => ({ table, id, name, column, key: keyId })),
    forgotten,
  };
}

export function viewEncryption({ keys, replicas, rotation }: EncryptionStatus): Static<typeof encryptionSchema> {
  return {
    current_key: keys.find(({ isCurrent }) => isCurrent)?.id ?? "",
    keys: keys.map(({ id, isCurrent, isHere, isNamed, tables, marks, spooled, instances, isFree, reasons }) => ({
      id,
      current: isCurrent,
      here: isHere,
      named: isNamed,
      tables,
      marks,
      spooled,
      instances,
      free: isFree,
      reasons,
    })),
    replicas: replicas.map(({ id, name, keyIds, currentKey, heldKeyIds, isPresent, seenAt, leftAt }) => ({
      id,
      name,
      keys: keyIds,
      current_key: currentKey,
      held_keys: heldKeyIds,
      present: isPresent,
      seen_at: seenAt.toISOString(),
      left_at: iso(leftAt),
    })),
    rotation: rotation && viewRotation(rotation),
  };
}

const keysMayBeBack =
  "The database is from before: keys that were revoked since work again. Look through keys, and revoke again which should not " +
  "work: DELETE /keys/:id, or freshet keys revoke ID.";

/** A JSON column may hold anything that somebody wrote there by hand. Values that are no text are left out, so that no list fails. */
function textsOf(value: unknown): Record<string, string> {
  if (!isMap(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function iso(date: Date | null): string | null {
  return date?.toISOString() ?? null;
}
