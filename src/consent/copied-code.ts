import { buildAuthorizationUrl, createNonce, createPkce } from "../providers/authorization-request.ts";
import { expectedIssuer } from "../providers/issuer.ts";
import type { Attempt } from "../store/consent-attempts.ts";
import { awaitEnding, conclude } from "./attempt.ts";
import { derivedBytes } from "./browser.ts";
import { readPasted, refuse } from "./callback.ts";
import { requireManualCode } from "./link-request.ts";
import { parseLinkToken, sha256 } from "./link-token.ts";
import { claimLink, endingOf, exchangeForLink, formOf, type ConsentForm, type LinkPage } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { openTicket } from "./ticket.ts";

/** Where a person gets a code to copy. The same for a form as for its POST, since a GET stores nothing: all of it is derived. */
export function copiedCodeRequest(
  parts: Pick<ConsentParts, "formKeys" | "organisation">,
  opened: LinkPage,
  form: ConsentForm,
) {
  const { context } = opened;
  const { definition, clientId, inputs, scopes } = context;
  const { manualRedirectUri: redirectUri } = requireManualCode(definition);
  const { browser, link } = formOf(parts, form, opened);
  const derived = (purpose: string) => derivedBytes(parts.formKeys, purpose, { browser, link, csrf: form.csrf });
  const pkce = createPkce({ definition, randomBytes: derived("verifier") });
  const nonce = createNonce({ definition, scopes, randomBytes: derived("nonce") });
  const state = derived("state")(32).toString("base64url");
  const values = { client: { id: clientId }, inputs, redirectUri: redirectUri ?? undefined };
  const authorizationUrl = buildAuthorizationUrl({ definition, values, state, nonce, codeChallenge: pkce, scopes });
  const issuer = expectedIssuer(definition, values);
  return { authorizationUrl, state, nonce, codeVerifier: pkce?.verifier ?? null, redirectUri, issuer };
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
  const asked = copiedCodeRequest(parts, opened, form);
  const answer = readPasted(context, pasted, asked);
  const isFirst = await beginOrAgain(parts, attempt, form.browser);
  if (!isFirst) return await awaitEnding(parts, { ...attempt, ticket: null, isOverdue: false });
  const { connectionId } = row;
  return await conclude(parts, { attempt, connectionId }, async () => {
    if (answer.kind !== "code") return await refuse(parts, context, answer);
    const { code, captured } = answer;
    const { codeVerifier, redirectUri, nonce } = asked;
    const idToken = { nonce, issuer: asked.issuer.issuer };
    const { destination } = context;
    const exchange = {
      connectionId,
      code,
      captured,
      codeVerifier,
      redirectUri,
      destination,
      idToken,
      cannotWait: false,
    };
    return await endingOf(parts, context, await exchangeForLink(parts, row.id, exchange));
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
