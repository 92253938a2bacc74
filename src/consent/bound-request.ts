import { encryptionKeyMissing, UnreadableSecretError } from "../errors.ts";
import type { CodeDestination, ExpectedIssuer } from "../providers/oauth/authorization-request.ts";
import type { WaitingRequest } from "../store/consents.ts";
import type { CodeExchange } from "../tokens/person-grant.ts";
import type { TokenVault } from "../vault/vault.ts";

/** What a consent is bound to when the person leaves. The callback is compared with it. */
export type BoundRequest = {
  stateHash: string;
  connectionId: string;
  linkId: string;
  /** The id of the key that made the link. Absent in requests of an older version. */
  madeBy?: string;
  browserHash: string;
  /** The app that completes it. Absent: the link is a plain one. */
  app?: AppOfLink;
  redirectUri: string;
  codeVerifier: string | null;
  /** The nonce that an id_token must contain; null: none was sent. */
  nonce: string | null;
  issuer: ExpectedIssuer;
  destination: CodeDestination;
};

/** The app's user who alone may complete the consent, and where the browser comes back to. */
type AppOfLink = { endUser: string; returnTo: string };

/** The same with a code that waits for the app: sealed in the place of the request, so that it is bound to the same things. */
export type HeldBound = BoundRequest & {
  app: AppOfLink;
  held: { ticketHash: string; code: string; captured: Record<string, string> };
};

type Vault = Pick<TokenVault, "sealRequest" | "openRequest">;

export const hex = (hash: Uint8Array): string => Buffer.from(hash).toString("hex");

export function sealBound(vault: Vault, requestId: string, bound: BoundRequest | HeldBound): Uint8Array<ArrayBuffer> {
  return vault.sealRequest(JSON.stringify(bound), { requestId });
}

/** Null: it does not open, or somebody has changed the row's other columns. */
export function openBound(vault: Vault, row: WaitingRequest, stateHash: Uint8Array): BoundRequest | null {
  try {
    const bound = openOf(vault, row);
    const isWaiting = bound !== null && bound.stateHash === hex(stateHash) && bound.held === undefined;
    return isWaiting ? bound : null;
  } catch {
    return null;
  }
}

/**
 * The same for a request whose code is held, by its ticket.
 * @throws BrokerError encryption_key_missing if it is sealed with a key that this replica lacks: another one may complete it
 */
export function openHeld(vault: Vault, row: WaitingRequest, ticketHash: Uint8Array): HeldBound | null {
  try {
    const bound = openOf(vault, row);
    const isWhole = bound?.app !== undefined && bound.held?.ticketHash === hex(ticketHash);
    return isWhole ? (bound as HeldBound) : null;
  } catch (error) {
    if (!(error instanceof UnreadableSecretError)) throw error;
    if (error.reason === "unknown_key") throw encryptionKeyMissing("this ticket");
    return null;
  }
}

/** Null: a column of the row is not the one that was sealed with it. */
function openOf(vault: Vault, row: WaitingRequest): (BoundRequest & Partial<HeldBound>) | null {
  const bound = JSON.parse(vault.openRequest(row.request, { requestId: row.id })) as BoundRequest & Partial<HeldBound>;
  const isWhole =
    bound.connectionId === row.connectionId &&
    bound.linkId === row.linkId &&
    bound.browserHash === hex(row.browserHash);
  return isWhole ? bound : null;
}

/** What is sent with a code: what its consent is bound to. */
export function exchangeOf(
  { codeVerifier, redirectUri, destination, nonce, issuer }: BoundRequest,
  { code, captured }: Pick<CodeExchange, "code" | "captured">,
): Omit<CodeExchange, "connection" | "cannotWait"> {
  return { code, captured, codeVerifier, redirectUri, destination, idToken: { nonce, issuer: issuer.issuer } };
}
