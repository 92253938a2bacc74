import { withDeadline } from "../clock.ts";
import { BrokerError, type ErrorCode } from "../errors.ts";
import {
  buildAuthorizationUrl,
  createNonce,
  createPkce,
  expectedIssuer,
} from "../providers/oauth/authorization-request.ts";
import type { Attempt } from "../store/consents.ts";
import type { ConsentParts } from "./consent-service.ts";
import type { AuthorizationContext, ExchangedCode } from "./context.ts";
import {
  claimLink,
  type ConsentForm,
  derivedBytes,
  endingOf,
  exchangeForLink,
  formOf,
  type LinkPage,
  parseLinkToken,
  requireManualCode,
  sha256,
} from "./links.ts";
import { awaitEnding, conclude, openTicket } from "./outcome.ts";
import { ConsentError } from "./problem.ts";
import { type CodeAnswer, readPasted, type Refusal, refuse } from "./round-trip.ts";

/** What came of a code, sealed for whoever hands in the same one again. */
type Outcome =
  | { kind: "exchanged"; exchanged: ExchangedCode }
  | { kind: "failed"; code: ErrorCode; detail: string; retryAfterSeconds?: number };

const noteMs = 2000;
const waitMs = 10_000;
const firstLookMs = 100;
const longestLookMs = 1000;

/**
 * A copied code that ops hand over without a browser. It is exchanged once: who hands in the same one meanwhile, on whatever replica,
 * waits for what comes of it; who does so after the provider's verdict is told that. @throws BrokerError also where it would need PKCE
 */
export async function exchangeHandedCode(
  parts: ConsentParts,
  { connectionId, code: pasted }: { connectionId: string; code: string },
): Promise<ExchangedCode> {
  const context = await parts.loadContext(connectionId);
  const { definition, clientId, inputs, destination } = context;
  const { pkce } = requireManualCode(definition);
  if (pkce === "required") {
    const detail = `The provider ${definition.id} wants PKCE: use a consent link with manual.`;
    throw new BrokerError("grant_not_applicable", detail);
  }
  const issuer = expectedIssuer(definition, { client: { id: clientId }, inputs });
  const answer = readPasted(context, pasted, { state: null, issuer });
  // Kept as a proof that only this broker can make: codes may be short.
  const about = JSON.stringify([connectionId, destination, pasted.trim()]);
  const attemptHash = sha256(parts.formKeys.sign("handed code", about));
  if (!(await begins(parts, attemptHash))) return await told(parts, context, await awaitOutcome(parts, attemptHash));
  try {
    const exchanged = await exchange(parts, context, { answer, issuer: issuer.issuer });
    await note(parts, attemptHash, { kind: "exchanged", exchanged });
    return exchanged;
  } catch (error) {
    await note(parts, attemptHash, failureOf(error));
    throw error;
  }
}

/** The first time, or what came of the time before was no word of the provider's about the code. */
async function begins(parts: ConsentParts, attemptHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
  if (await parts.attempts.beginHanded(attemptHash)) return true;
  const ticket = await parts.attempts.findHanded(attemptHash);
  if (ticket === null) return false;
  const outcome = openOutcome(parts, attemptHash, ticket);
  const isFinal = outcome?.kind === "exchanged" || outcome?.code === "provider_rejected";
  return !isFinal && (await parts.attempts.beginAgain(attemptHash, ticket));
}

async function exchange(
  { recordEvent, exchangeCode }: ConsentParts,
  { connectionId, definition, destination }: AuthorizationContext,
  { answer, issuer }: { answer: CodeAnswer | Refusal; issuer: string | null },
): Promise<ExchangedCode> {
  if (answer.kind !== "code") {
    const [error, said] =
      answer.kind === "denied" ? ["access_denied", "access was denied"] : [answer.error, answer.detail];
    const type = answer.kind === "denied" ? "consent_denied" : "consent_failed";
    await recordEvent({ connectionId, type, detail: answer.kind === "denied" ? {} : { error } });
    throw new BrokerError("provider_rejected", `The address holds no code that counts: ${said}`);
  }
  const { code, captured } = answer;
  const { manualRedirectUri: redirectUri } = requireManualCode(definition);
  // Nobody knows which nonce it was asked for with; whose and for whom an id_token is can be told.
  const idToken = { nonce: null, issuer };
  const sent = { connectionId, code, captured, codeVerifier: null, redirectUri, destination, idToken };
  return await exchangeCode({ ...sent, cannotWait: false });
}

/** Null: it is still under way. */
async function awaitOutcome(parts: ConsentParts, attemptHash: Uint8Array<ArrayBuffer>): Promise<Outcome | null> {
  const { attempts, clock } = parts;
  const deadlineMs = clock.monotonicMs() + waitMs;
  for (let lookMs = firstLookMs; ; lookMs = Math.min(lookMs * 2, longestLookMs)) {
    const ticket = await attempts.findHanded(attemptHash);
    if (ticket !== null) return openOutcome(parts, attemptHash, ticket);
    if (clock.monotonicMs() >= deadlineMs) return null;
    await clock.sleep(lookMs);
  }
}

async function told(
  parts: ConsentParts,
  { connectionName }: AuthorizationContext,
  outcome: Outcome | null,
): Promise<ExchangedCode> {
  const context = { connection: connectionName };
  if (outcome === null) {
    const detail = "This very code is being exchanged right now; look at the connection, or ask again.";
    throw new BrokerError("conflict", detail, { ...context, retryAfterSeconds: 1 });
  }
  if (outcome.kind === "failed") {
    const { code, detail, retryAfterSeconds } = outcome;
    throw new BrokerError(code, detail, { ...context, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) });
  }
  const { exchanged } = outcome;
  const { held } = exchanged;
  if (held === null || (await parts.findHeld({ attemptId: held.attemptId })) !== null) return exchanged;
  const detail = "This code was exchanged before, and the other account that it gave was accepted or declined.";
  throw new BrokerError("conflict", detail, context);
}

function failureOf(error: unknown): Outcome {
  if (!(error instanceof BrokerError)) return { kind: "failed", code: "internal_error", detail: "" };
  const { code, message: detail, context } = error;
  return { kind: "failed", code, detail, ...context };
}

/** For whoever comes again. With Postgres away they are told that it is under way until it is forgotten. */
async function note(parts: ConsentParts, attemptHash: Uint8Array<ArrayBuffer>, outcome: Outcome): Promise<void> {
  const sealed = parts.ticketKeys.seal(JSON.stringify(outcome), placeOf(attemptHash));
  const noted = parts.attempts.endHanded(attemptHash, Buffer.from(sealed).toString("base64url"));
  await withDeadline(
    noted.catch(() => undefined),
    noteMs,
    parts.clock,
  );
}

/** Null: it is none of ours. Others may write to the table. */
function openOutcome(
  { ticketKeys }: ConsentParts,
  attemptHash: Uint8Array<ArrayBuffer>,
  ticket: string,
): Outcome | null {
  try {
    return JSON.parse(ticketKeys.open(Buffer.from(ticket, "base64url"), placeOf(attemptHash))) as Outcome;
  } catch {
    return null;
  }
}

const placeOf = (attemptHash: Uint8Array) => ({
  table: "consent_attempts",
  row: Buffer.from(attemptHash).toString("hex"),
  column: "ticket",
  revision: 0,
});

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
    const given = {
      connectionId,
      code,
      captured,
      codeVerifier,
      redirectUri,
      destination,
      idToken,
      cannotWait: false,
    };
    return await endingOf(parts, context, await exchangeForLink(parts, row.id, given));
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
