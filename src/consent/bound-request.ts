import type { CodeDestination } from "../providers/code-destination.ts";
import type { ExpectedIssuer } from "../providers/issuer.ts";
import type { WaitingRequest } from "../store/authorization-requests.ts";
import type { TokenVault } from "../vault/token-vault.ts";

/** What a consent binds when the person is sent away, and what the callback is held against. */
export type BoundRequest = {
  stateHash: string;
  connectionId: string;
  linkId: string;
  browserHash: string;
  redirectUri: string;
  codeVerifier: string | null;
  /** What an id_token must repeat; null: none was asked for. */
  nonce: string | null;
  issuer: ExpectedIssuer;
  destination: CodeDestination;
};

type Vault = Pick<TokenVault, "sealRequest" | "openRequest">;

export const hex = (hash: Uint8Array): string => Buffer.from(hash).toString("hex");

export function sealBound(vault: Vault, requestId: string, bound: BoundRequest): Uint8Array<ArrayBuffer> {
  return vault.sealRequest(JSON.stringify(bound), { requestId });
}

/** Null: it does not open, or the row's columns are not those that it was sealed with, so that somebody has changed it. */
export function openBound(vault: Vault, row: WaitingRequest, stateHash: Uint8Array): BoundRequest | null {
  let bound: BoundRequest;
  try {
    bound = JSON.parse(vault.openRequest(row.request, { requestId: row.id })) as BoundRequest;
  } catch {
    return null;
  }
  const isWhole =
    bound.stateHash === hex(stateHash) &&
    bound.connectionId === row.connectionId &&
    bound.linkId === row.linkId &&
    bound.browserHash === hex(row.browserHash);
  return isWhole ? bound : null;
}
