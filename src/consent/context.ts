import type { ProviderDefinition } from "../providers/definition.ts";

/** What a consent needs to know of a connection. Holds no secret. */
export type AuthorizationContext = {
  connectionId: string;
  connectionName: string;
  definition: ProviderDefinition;
  clientId: string;
  /** Those of connection and client together. */
  inputs: Record<string, string>;
  scopes: string[];
  disabled: boolean;
};

/** @throws BrokerError `connection_not_found`, `client_rejected` (no client) */
export type LoadAuthorizationContext = (connectionId: string) => Promise<AuthorizationContext>;

/**
 * Exchanges a code (RFC 6749, section 4.1.3) and stores what it gave.
 * @throws BrokerError `provider_rejected`, `provider_unavailable`, `client_rejected`, `connection_disabled`, `duplicate_grant`,
 * `storage_unavailable`
 */
export type ExchangeCode = (given: {
  connectionId: string;
  code: string;
  codeVerifier: string | null;
  redirectUri: string | null;
  captured: Record<string, string>;
}) => Promise<{ connectionName: string }>;

/** Adds to a connection's history. */
export type RecordConsentEvent = (event: {
  connectionId: string;
  type: "consent_link_created" | "consent_denied" | "consent_failed";
  detail: Record<string, string>;
}) => Promise<void>;
