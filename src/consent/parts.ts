import type { AuthorizationRequests } from "../store/authorization-requests.ts";
import type { Clock } from "../clock.ts";
import type { ProviderDefinition } from "../providers/definition.ts";
import type { ConsentAttempts } from "../store/consent-attempts.ts";
import type { ConsentLinks } from "../store/consent-links.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import type { FormKeys } from "./browser.ts";
import type {
  DecideAccount,
  DeviceCalls,
  FindHeld,
  ExchangeCode,
  LoadAuthorizationContext,
  PushRequest,
  RecordConsentEvent,
} from "./context.ts";
import type { TicketParts } from "./ticket.ts";

/** What a consent works with. */
export type ConsentParts = TicketParts & {
  links: ConsentLinks;
  attempts: ConsentAttempts;
  clock: Pick<Clock, "monotonicMs" | "sleep">;
  requests: AuthorizationRequests;
  vault: Pick<TokenVault, "sealRequest" | "openRequest">;
  loadContext: LoadAuthorizationContext;
  /** The definition in force of a provider. */
  findDefinition: (provider: string) => ProviderDefinition | undefined;
  exchangeCode: ExchangeCode;
  decideAccount: DecideAccount;
  findHeld: FindHeld;
  pushRequest: PushRequest;
  devices: DeviceCalls;
  recordEvent: RecordConsentEvent;
  /** An origin, without a trailing slash. */
  publicUrl: string;
  /** Who asks, as the pages say it. */
  organisation: { name: string | null; contact: string | null };
  returnOrigins: readonly string[];
  /** Authorization requests of one link that may wait for their callback at a time. */
  openRequestsPerLink: number;
  random: { bytes: (size: number) => Uint8Array; uuid: () => string };
  /** Forms and hand-copied codes are bound by them. */
  formKeys: FormKeys;
};
