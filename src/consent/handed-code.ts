import { withDeadline } from "../clock.ts";
import { BrokerError, type ErrorCode } from "../errors.ts";
import { expectedIssuer } from "../providers/issuer.ts";
import { readPasted, type CodeAnswer, type Refusal } from "./callback.ts";
import type { AuthorizationContext, ExchangedCode } from "./context.ts";
import { requireManualCode } from "./link-request.ts";
import { sha256 } from "./link-token.ts";
import type { ConsentParts } from "./parts.ts";

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
