import { buildAuthorizationUrl, createPkce } from "../providers/authorization-request.ts";
import type { ConsumedRequest } from "../store/authorization-requests.ts";
import type { NotedAttempt } from "../store/consent-attempts.ts";
import { awaitEnding, conclude } from "./attempt.ts";
import { readAnswer, readLostError } from "./callback.ts";
import type { AuthorizationContext } from "./context.ts";
import { sha256 } from "./link-token.ts";
import { claimLink, endingOf, exchangeForLink, named, type ConsentForm, type OpenedLink } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { isBrowserOf, type Ending } from "./ticket.ts";

const stateSeconds = 600;
const stateBytes = 32;

/** What came in at a redirect URI. `browser` null: without our cookie. */
export type CallbackRequest = { provider: string; query: Readonly<Record<string, unknown>>; browser: string | null };

/** Where the person goes on: at the provider, or here, with a code to type in there. */
export type Onward = { kind: "redirect"; authorizationUrl: string } | { kind: "device" };

/** Claims the link and makes the way to the provider (RFC 6749, section 4.1.1; RFC 7636, section 4.3; RFC 8628, section 3.1). */
export async function begin(parts: ConsentParts, form: ConsentForm): Promise<Onward> {
  const { row, context } = await claimLink(parts, form);
  if (row.manual) throw new ConsentError("malformed", "The code is missing.");
  if (context.grant === "device_code") {
    await parts.devices.begin(row.connectionId, row.id);
    return { kind: "device" };
  }
  return { kind: "redirect", authorizationUrl: await beginRoundTrip(parts, form, { row, context }) };
}

async function beginRoundTrip(
  parts: ConsentParts,
  form: ConsentForm,
  { row, context }: Pick<OpenedLink, "row" | "context">,
): Promise<string> {
  const { random, publicUrl, vault } = parts;
  const { definition, clientId, inputs, scopes } = context;
  const pkce = createPkce({ definition, randomBytes: random.bytes });
  const state = Buffer.from(random.bytes(stateBytes)).toString("base64url");
  const redirectUri = `${publicUrl}/callback/${definition.id}`;
  const values = { client: { id: clientId }, inputs, redirectUri };
  const request = { values, state, codeChallenge: pkce, scopes };
  const authorizationUrl = definition.authorization?.pushed
    ? await parts.pushRequest(context, request)
    : buildAuthorizationUrl({ definition, ...request });
  const id = random.uuid();
  const retryAfterSeconds = await parts.requests.insert({
    id,
    stateHash: sha256(state),
    connectionId: row.connectionId,
    linkId: row.id,
    browserHash: sha256(form.browser),
    verifier: pkce && vault.sealVerifier(pkce.verifier, { requestId: id }),
    redirectUri,
    expiresInSeconds: stateSeconds,
    mostOpen: parts.openRequestsPerLink,
  });
  if (retryAfterSeconds !== null) throw new ConsentError("too_many_requests", null, { retryAfterSeconds });
  return authorizationUrl;
}

/**
 * The callback (RFC 6749, section 4.1.2; RFC 9207): consumes the state, then exchanges the code at once. The ticket of the page
 * that tells how it ended; to the same browser with the same state again and again.
 */
export async function complete(parts: ConsentParts, given: CallbackRequest): Promise<string> {
  const { attempt, request } = await consumeState(parts, given);
  if (request === null) return await awaitEnding(parts, attempt);
  return await conclude(
    parts,
    { attempt, connectionId: request.connectionId },
    async (context) => await endingOfCallback(parts, { given, request, context }),
  );
}

type Returned = { given: CallbackRequest; request: ConsumedRequest; context: AuthorizationContext };

async function endingOfCallback(parts: ConsentParts, { given, request, context }: Returned): Promise<Ending> {
  const { connectionId, redirectUri } = request;
  const answer = readAnswer(context, given.query);
  if (answer.kind === "denied") {
    await parts.recordEvent({ connectionId, type: "consent_denied", detail: {} });
    return { ...named(context), outcome: "denied" };
  }
  if (answer.kind === "failed") {
    await parts.recordEvent({ connectionId, type: "consent_failed", detail: { error: answer.error } });
    throw new ConsentError("provider_refused", answer.detail);
  }
  if (context.disabled) throw new ConsentError("connection_disabled");
  const { code, captured } = answer;
  const codeVerifier = request.verifier && parts.vault.openVerifier(request.verifier, { requestId: request.id });
  const exchange = { connectionId, code, captured, codeVerifier, redirectUri };
  return await endingOf(parts, context, await exchangeForLink(parts, request.linkId, exchange));
}

/** Hands the request of a state to exactly one callback, in the right browser and at the right redirect URI; to others the attempt. */
async function consumeState(parts: ConsentParts, { provider, query, browser }: CallbackRequest): Promise<Consumed> {
  const { requests, attempts } = parts;
  const { state } = query;
  const unknown = () => readLostError(parts.findDefinition(provider), query) ?? new ConsentError("invalid_state");
  if (typeof state !== "string" || state === "") throw unknown();
  const stateHash = sha256(state);
  const browserHash = sha256(browser ?? "");
  const request = await requests.consume({ stateHash, browserHash, provider });
  if (request) {
    const { linkId } = request;
    return { request, attempt: { attemptHash: stateHash, browserHash, linkId, ticket: null } };
  }
  const attempt = await attempts.find(stateHash);
  const isElsewhere =
    attempt === null ? await requests.waitsElsewhere(stateHash, browserHash) : !isBrowserOf(attempt, browser);
  if (isElsewhere) throw new ConsentError("wrong_browser");
  if (attempt === null) throw unknown();
  return { request: null, attempt };
}

/** `request` null: the state has come back before. */
type Consumed = { request: ConsumedRequest | null; attempt: NotedAttempt };
