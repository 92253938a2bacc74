import type { RefreshRules } from "../providers/definition.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { SendPlan } from "./sending.ts";

/** The request by which a connection gets its next token; null: only a person can give it one. */
export function firstPlan(row: Pick<TokenRow, "refreshToken" | "grant" | "credentials">): SendPlan | null {
  if (row.refreshToken !== null) return { grant: "refresh_token", secretIndex: 0 };
  if (row.grant === "token_exchange") return { grant: "token_exchange", secretIndex: 0 };
  if (row.grant === "client_credentials") return { grant: "client_credentials", secretIndex: 0 };
  if (row.grant === "password" && row.credentials !== null) return { grant: "password", secretIndex: 0 };
  return null;
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
  const isLacking = refreshToken === null ? firstPlan({ ...base, refreshToken }) === null : base.rotation === "always";
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
