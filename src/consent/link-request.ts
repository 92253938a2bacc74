import { BrokerError } from "../errors.ts";
import { readableLine } from "../readable.ts";
import type { AuthorizationContext } from "./context.ts";

export const defaultLinkSeconds = 3600;
const longestLinkSeconds = 7 * 24 * 3600;
const longestPurpose = 200;

/** What ops ask for when they make a link. Absent: the default. */
export type LinkRequest = {
  connectionId: string;
  expiresInSeconds?: number | undefined;
  returnTo?: string | null | undefined;
  manual?: boolean | undefined;
  /** What the person is asked for, shown to them as it is. */
  purpose?: string | null | undefined;
  /** Who asked: the name of a key, for the history. */
  createdBy: string;
};

/** @throws BrokerError `invalid_request` naming the field and what is allowed, or why this connection takes no consent */
export function checkLinkRequest(
  request: LinkRequest,
  { definition, disabled, connectionName, grant }: AuthorizationContext,
  returnOrigins: readonly string[],
): void {
  if (disabled) {
    throw new BrokerError("connection_disabled", "The connection is disabled; enable it before it is connected.", {
      connection: connectionName,
    });
  }
  if (grant !== "device_code") requireAuthorization(definition);
  const { expiresInSeconds = defaultLinkSeconds, returnTo = null, manual = false, purpose = null } = request;
  if (!Number.isInteger(expiresInSeconds) || expiresInSeconds < 1 || expiresInSeconds > longestLinkSeconds) {
    throw invalid(`expires_in must be a whole number of seconds from 1 to ${longestLinkSeconds} (7 days)`);
  }
  if (returnTo !== null) checkReturnTo(returnTo, returnOrigins);
  if (manual) requireManualCode(definition);
  if (purpose !== null) checkPurpose(purpose);
}

/** The definition's authorize page. @throws BrokerError where the provider offers no authorization code grant */
function requireAuthorization({ authorization, id }: AuthorizationContext["definition"]) {
  if (authorization !== null) return authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `The provider ${id} has no authorize page: nobody needs to consent there.`,
  );
}

/** @throws BrokerError where the provider shows no code to copy */
export function requireManualCode(definition: AuthorizationContext["definition"]) {
  const authorization = requireAuthorization(definition);
  if (authorization.manualCode) return authorization;
  throw new BrokerError(
    "grant_not_applicable",
    `The provider ${definition.id} shows no code to copy (its definition does not say manual_code); use a plain link.`,
  );
}

const purposeShape = new RegExp(readableLine(longestPurpose), "u");

function checkPurpose(purpose: string): void {
  if (purposeShape.test(purpose)) return;
  throw invalid(
    `purpose must be one line of 1 to ${longestPurpose} characters with a letter or a digit in it, without control or invisible characters`,
  );
}

function checkReturnTo(returnTo: string, returnOrigins: readonly string[]): void {
  if (returnOrigins.length === 0) {
    throw invalid("return_to is not allowed here: RETURN_ORIGINS names no origin");
  }
  const url = URL.canParse(returnTo) ? new URL(returnTo) : null;
  const allowed = url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  if (!allowed || !returnOrigins.includes(url.origin)) {
    throw invalid(`return_to must be an address at one of RETURN_ORIGINS: ${returnOrigins.join(", ")}`);
  }
}

const invalid = (detail: string) => new BrokerError("invalid_request", detail);
