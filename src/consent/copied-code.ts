import { BrokerError } from "../errors.ts";
import { buildAuthorizationUrl, createPkce } from "../providers/authorization-request.ts";
import { derivedBytes, type FormKeys } from "./browser.ts";
import type { Attempt } from "../store/consent-attempts.ts";
import { awaitEnding, conclude } from "./attempt.ts";
import { readPastedCode } from "./callback.ts";
import type { AuthorizationContext, ExchangedCode } from "./context.ts";
import { requireManualCode } from "./link-request.ts";
import { claimLink, endingOf, exchangeForLink, type ConsentForm } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { parseLinkToken, sha256 } from "./link-token.ts";
import { openTicket } from "./ticket.ts";

/** Where a person gets a code to copy. The same for a form as for its POST, since a GET stores nothing: all of it is derived. */
export function copiedCodeRequest(
  { definition, clientId, inputs, scopes }: AuthorizationContext,
  { formKeys, form }: { formKeys: FormKeys; form: ConsentForm },
): { authorizationUrl: string; codeVerifier: string | null; redirectUri: string | null } {
  const { manualRedirectUri } = requireManualCode(definition);
  const pkce = createPkce({ definition, randomBytes: derivedBytes(formKeys, "verifier", form) });
  const authorizationUrl = buildAuthorizationUrl({
    definition,
    values: { client: { id: clientId }, inputs, redirectUri: manualRedirectUri ?? undefined },
    state: derivedBytes(formKeys, "state", form)(32).toString("base64url"),
    codeChallenge: pkce,
    scopes,
  });
  return { authorizationUrl, codeVerifier: pkce?.verifier ?? null, redirectUri: manualRedirectUri };
}

/**
 * Takes a code that the person copied from the provider's page, or the whole address that holds it; the ticket of the page that
 * tells what came of it. The same text a second time is told the same.
 */
export async function completeManually(parts: ConsentParts, form: ConsentForm, pasted: string): Promise<string> {
  const attempt = copiedAttempt(parts, form, pasted);
  const opened = await claimLink(parts, form).catch(async (error: unknown) => {
    const noted = isUsedLink(error) ? await parts.attempts.find(attempt.attemptHash) : null;
    if (noted === null) throw error;
    return noted;
  });
  if ("ticket" in opened) return await awaitEnding(parts, opened);
  const { row, context } = opened;
  if (!row.manual) throw new ConsentError("malformed", "This link takes no code.");
  const code = readPastedCode(context.definition, pasted);
  const isFirst = await beginOrAgain(parts, attempt, form.browser);
  if (!isFirst) return await awaitEnding(parts, { ...attempt, ticket: null });
  const { codeVerifier, redirectUri } = copiedCodeRequest(context, { formKeys: parts.formKeys, form });
  const exchange = { connectionId: row.connectionId, code, captured: {}, codeVerifier, redirectUri };
  return await conclude(parts, { attempt, connectionId: row.connectionId }, async () => {
    const exchanged = await exchangeForLink(parts, row.id, exchange);
    return await endingOf(parts, context, exchanged);
  });
}

/** A code that is pasted is kept as a proof that only this broker can make: codes may be short. */
function copiedAttempt(parts: ConsentParts, { link, browser }: ConsentForm, pasted: string): Attempt {
  const proof = parts.formKeys.sign("copied code", JSON.stringify([link, browser, pasted.trim()]));
  return { attemptHash: sha256(proof), browserHash: sha256(browser), linkId: parseLinkToken(link)?.id ?? "" };
}

/** Whether this is the first time, or what came of the time before was no word of the provider's about the code. */
async function beginOrAgain(parts: ConsentParts, attempt: Attempt, browser: string): Promise<boolean> {
  if (await parts.attempts.begin(attempt)) return true;
  const noted = await parts.attempts.find(attempt.attemptHash);
  if (noted === null || noted.ticket === null) return false;
  const { ending } = openTicket(parts, { ticket: noted.ticket, browser });
  const isFinal = ending.outcome !== "problem" || ending.problem === "provider_refused";
  return !isFinal && (await parts.attempts.beginAgain(attempt.attemptHash, noted.ticket));
}

function isUsedLink(error: unknown): boolean {
  return error instanceof ConsentError && error.problem === "used_link";
}

/** A copied code that ops hand over without a browser. @throws BrokerError also where it would need PKCE */
export async function exchangeCopiedCode(
  { loadContext, exchangeCode }: ConsentParts,
  given: { connectionId: string; code: string },
): Promise<ExchangedCode> {
  const { definition } = await loadContext(given.connectionId);
  const { pkce, manualRedirectUri } = requireManualCode(definition);
  if (pkce === "required") {
    const detail = `The provider ${definition.id} wants PKCE: use a consent link with manual.`;
    throw new BrokerError("grant_not_applicable", detail);
  }
  const code = readPastedCode(definition, given.code);
  return await exchangeCode({ ...given, code, codeVerifier: null, redirectUri: manualRedirectUri, captured: {} });
}
