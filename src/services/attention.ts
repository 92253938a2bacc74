import type { FurtherTokenRecord, ConnectionRecord } from "../store/connections.ts";
import { explainNoRefreshToken, mayEndWithItsToken } from "../tokens/row-rules.ts";
import { missingScopes } from "../providers/format/requirements.ts";

export const attentionCodes = [
  "restored",
  "probably_dead",
  "no_refresh_token",
  "old_secret_in_use",
  "missing_scopes",
] as const;

/** What a person should look at, even if tokens are still served. */
export type Attention = { code: (typeof attentionCodes)[number]; since: Date; detail: string };

/** The scopes that were asked for and not granted; empty before the first grant. */
export function missingOf(record: ConnectionRecord): string[] {
  const granted = record.generation === 0 ? null : record.grantedScopes;
  return missingScopes(record.scopes, { granted, hasRefreshToken: record.holdsRefresh, grant: record.grant });
}

/** The most serious one; null: there is none, or the status says already that a person must act. */
export function attentionOf(record: ConnectionRecord): Attention | null {
  if (record.status !== "connected") return null;
  const { goneBackAt, missingScopesSince, updatedAt } = record;
  if (goneBackAt !== null) return { code: "restored", since: goneBackAt, detail: restored };
  const ofTokens = attentionOfTokens(record);
  if (ofTokens !== null) return ofTokens;
  const { newestRefusedSince: since } = record;
  if (since !== null) return { code: "old_secret_in_use", since, detail: oldSecret };
  const missing = missingOf(record);
  if (missing.length === 0) return null;
  const detail = `Not granted: ${missing.join(", ")}. Connect the account again and grant them, or take them off the connection's scopes.`;
  return { code: "missing_scopes", since: missingScopesSince ?? updatedAt, detail };
}

const restored =
  "The broker's database was restored from before this connection's newest token set. It is not refreshed until an operator runs freshet recover, or a person connects the account again.";

const probablyDead =
  "The provider gives the same refusal again and again without saying why, and the access token has run out: the grant is probably over. " +
  "Look at last_error. Connect the account again; or end the connection with POST /connections/:connection/refresh {end: true}; or tell what the answer means under `errors` of the definition.";

const oldSecret =
  "The provider refuses the newest secret of this connection's client; the one before it works still, and is used. Give the client the right one with PATCH /clients/:client {client_secret}.";

/**
 * What a person should look at because of the tokens. For a further token this is all: its scopes were not asked for one by one, so none can be
 * missing.
 */
export function attentionOfTokens(record: TokenState): Attention | null {
  const { status, noRefreshTokenSince: since, probablyDeadSince } = record;
  if (status !== "connected") return null;
  if (probablyDeadSince !== null) return { code: "probably_dead", since: probablyDeadSince, detail: probablyDead };
  if (since === null || !mayEndWithItsToken(record)) return null;
  return {
    code: "no_refresh_token",
    since,
    detail: explainNoRefreshToken({ ...record, hasRefreshToken: record.holdsRefresh }),
  };
}

type TokenState = Pick<
  FurtherTokenRecord,
  | "status"
  | "probablyDeadSince"
  | "noRefreshTokenSince"
  | "expiresAt"
  | "grant"
  | "scopes"
  | "grantedScopes"
  | "holdsRefresh"
>;
