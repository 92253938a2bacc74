import type { ConnectionGrant, ProviderDefinition, RefreshRules } from "../providers/definition.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { SendPlan } from "./sending.ts";
import { isUnattended } from "./unavailable.ts";

type Holding = Pick<TokenRow, "grant" | "credentials"> & { refreshToken: unknown };

/** The request by which a connection gets its next token; null: only a person can give it one. */
export function firstPlan(row: Holding, definition: Pick<ProviderDefinition, "refreshes">): SendPlan | null {
  const isSent = row.refreshToken !== null && !isUselessTo(definition, row.grant);
  return isSent ? { grant: "refresh_token", secretIndex: 0 } : anewPlan(row);
}

/** The request that needs no refresh token; null: only a person can ask anew. */
export function anewPlan({ grant, credentials }: Pick<Holding, "grant" | "credentials">): SendPlan | null {
  if (grant === "token_exchange" || grant === "client_credentials") return { grant, secretIndex: 0 };
  return grant === "password" && credentials !== null ? { grant, secretIndex: 0 } : null;
}

/** Whether a connection can get its next token without a person. */
export function canRenew(row: Holding): boolean {
  return row.refreshToken !== null || anewPlan(row) !== null;
}

/**
 * Whether a refresh token that comes along is of no use: what it would get is asked for anew, and the definition has no request to
 * send it with. RFC 6749, section 4.4.3, wants none in an answer to client credentials, and some servers send one.
 */
export function isUselessTo({ refreshes }: Pick<ProviderDefinition, "refreshes">, grant: string): boolean {
  return isUnattended(grant) && refreshes[grant as ConnectionGrant] === undefined;
}

/** What tells whether a set without a new refresh token leaves its connection without a way on. */
export type LackingBase = Pick<TokenRow, "grant" | "credentials" | "noRefreshTokenSince"> & {
  /** The one that stays in force; null: there is none. */
  refreshToken: string | null;
  rotation: RefreshRules["rotation"];
};

/**
 * Since when a connection lacks a refresh token, with a set that held none; null: it does not. Where a definition says that
 * every answer holds a new one, the one that was sent has most likely been spent.
 */
export function lackingSince(base: LackingBase, { sentAt, expiresAt }: { sentAt: Date; expiresAt: Date | null }) {
  if (expiresAt === null) return null;
  const { refreshToken } = base;
  const isLacking = refreshToken === null ? anewPlan(base) === null : base.rotation === "always";
  return isLacking ? (base.noRefreshTokenSince ?? sentAt) : null;
}

type Lacking = Pick<TokenRow, "noRefreshTokenSince" | "expiresAt">;

/** Whether the connection ends with its access token, as far as anybody knows. A life may turn out to be endless later. */
export function lacksRefreshToken({ noRefreshTokenSince, expiresAt }: Lacking): boolean {
  return noRefreshTokenSince !== null && expiresAt !== null;
}

/** The same where there is none at all: nothing of an earlier consent is left to be tried. */
export function endsWithItsToken(row: Pick<TokenRow, "noRefreshTokenSince" | "expiresAt" | "refreshToken">): boolean {
  return row.refreshToken === null && lacksRefreshToken(row);
}

type Told = Pick<TokenRow, "grant" | "scopes" | "grantedScopes"> & { hasRefreshToken: boolean };

/** What that means, and what a person can do about it. */
export function explainLacking({ grant, scopes, grantedScopes, hasRefreshToken }: Told): string {
  if (hasRefreshToken) {
    return "The provider's newest answer held no refresh token. The one from before is kept and sent next; if the provider refuses it, this connection ends with its access token and must be connected again.";
  }
  const ends = "There is no refresh token: this connection ends with its access token.";
  if (grant === "import") return `${ends} Import a token set that holds one.`;
  const wasRefused = scopes.includes("offline_access") && !grantedScopes.includes("offline_access");
  const scope = wasRefused
    ? "The scope offline_access, which asks for one, was not granted."
    : "Some providers give one only for a scope, often offline_access: add it to the connection's scopes.";
  return `${ends} ${scope} Some give one only with the first consent: remove this application's access in the account's settings at the provider. Then connect it again.`;
}
