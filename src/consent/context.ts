import type { AuthorizationRequest } from "../providers/authorization-request.ts";
import type { ProviderDefinition } from "../providers/definition.ts";
import type { CodeDestination } from "../providers/code-destination.ts";
import type { ExpectedIdToken } from "../providers/id-token.ts";
import type { DeviceCode } from "../tokens/devices.ts";

/** What a consent needs to know of a connection. */
export type AuthorizationContext = {
  connectionId: string;
  connectionName: string;
  definition: ProviderDefinition;
  clientId: string;
  /** Opens the client's secret, for callbacks that are signed with it, and the one before as long as that may count. */
  clientSecrets: () => readonly string[];
  /** Those of connection and client together. */
  inputs: Record<string, string>;
  scopes: string[];
  disabled: boolean;
  /** How its tokens are got: by a code, or by a user code that is typed in elsewhere. */
  grant: string;
  /** Who it is connected as; null: nobody, or nobody knows. */
  account: string | null;
  /** It is connected without a refresh token: the access ends with its first token. */
  endsSoon: boolean;
  /** Where the provider sends the browser back to. */
  redirectUri: string;
  destination: CodeDestination;
};

/** @throws BrokerError `connection_not_found`, `client_rejected` (no client) */
export type LoadAuthorizationContext = (connectionId: string) => Promise<AuthorizationContext>;

/**
 * Exchanges a code (RFC 6749, section 4.1.3) and stores what it gave.
 * @throws BrokerError `provider_rejected`, `provider_unavailable`, `client_rejected`, `connection_disabled`, `duplicate_grant`,
 * `storage_unavailable`, `conflict` (client or inputs have changed since the consent began)
 */
export type ExchangeCode = (given: {
  connectionId: string;
  code: string;
  codeVerifier: string | null;
  redirectUri: string | null;
  captured: Record<string, string>;
  destination: CodeDestination;
  idToken: ExpectedIdToken;
  /** Nobody can bring this code again: limits count it and do not hold it back. */
  cannotWait: boolean;
}) => Promise<ExchangedCode>;

/** `held`: the account is another one than the connection's; nothing changes before the person has confirmed it. */
/** `endsSoon`: no refresh token came, so that the access ends with its first token. */
export type ExchangedCode = { connectionName: string; held: OtherAccount | null; endsSoon: boolean };
export type OtherAccount = { attemptId: string; account: string | null; label: string | null };

/** A person's word on another account. @throws BrokerError `not_found` when it waits no more */
export type DecideAccount = (
  attemptId: string,
  accepted: boolean,
) => Promise<{ connectionName: string; providerName: string; account: string | null; endsSoon: boolean }>;

/** A grant of another account that waits for a person's word: the newest of a link, or a certain one. `accepted`: it has it. `label` is for people.
 */
export type FindHeld = (
  of: { connectionId: string; linkId: string } | { attemptId: string },
) => Promise<(OtherAccount & { connectionId: string; accepted: boolean }) | null>;

/** Sends an authorization request ahead of the person (RFC 9126); the address to go to. */
export type PushRequest = (
  context: AuthorizationContext,
  request: Omit<AuthorizationRequest, "definition">,
) => Promise<string>;

/** Asks for, or looks up, the user code of a connection (RFC 8628). */
export type DeviceCalls = {
  /** @throws BrokerError `conflict` where the scopes are no longer those that the link's page showed */
  begin(connectionId: string, link: { id: string; scopes: readonly string[] } | null): Promise<DeviceCode>;
  pending(connectionId: string): Promise<(DeviceCode & { linkId: string | null }) | null>;
};

/** Adds to a connection's history. */
export type RecordConsentEvent = (event: {
  connectionId: string;
  type: "consent_link_created" | "consent_denied" | "consent_failed";
  detail: Record<string, string>;
}) => Promise<void>;
