import { buildAuthorizationUrl, createNonce, createPkce } from "../providers/authorization-request.ts";
import { isSameCodeDestination } from "../providers/code-destination.ts";
import { expectedIssuer } from "../providers/issuer.ts";
import { redirectUriOf } from "../providers/redirect-uri.ts";
import type { NotedAttempt } from "../store/consent-attempts.ts";
import { awaitEnding, conclude } from "./attempt.ts";
import { hex, openBound, sealBound, type BoundRequest } from "./bound-request.ts";
import { endingOfRefusal, readAnswer, readLostError, refuse, type CodeAnswer, type Refusal } from "./callback.ts";
import type { AuthorizationContext } from "./context.ts";
import { sha256 } from "./link-token.ts";
import { claimLink, endingOf, exchangeForLink, type ConsentForm, type OpenedLink } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import { isBrowserOf, sealTicket, type Ending } from "./ticket.ts";

const stateSeconds = 600;
const stateBytes = 32;

/** What came in at a redirect URI. `browser` null: without our cookie. */
export type CallbackRequest = {
  provider: string;
  /** Whose own redirect URI it is; null: that of all clients of the provider. */
  client: string | null;
  query: Readonly<Record<string, unknown>>;
  browser: string | null;
};

/** Where the person goes on: at the provider, or here, with a code to type in there. */
export type Onward = { kind: "redirect"; authorizationUrl: string } | { kind: "device" };

/** Claims the link and makes the way to the provider (RFC 6749, section 4.1.1; RFC 7636, section 4.3; RFC 8628, section 3.1). */
export async function begin(parts: ConsentParts, form: ConsentForm): Promise<Onward> {
  const { row, context } = await claimLink(parts, form);
  if (row.manual) throw new ConsentError("malformed", "The code is missing.");
  if (context.grant === "device_code") {
    await parts.devices.begin(row.connectionId, { id: row.id, scopes: context.scopes });
    return { kind: "device" };
  }
  return { kind: "redirect", authorizationUrl: await beginRoundTrip(parts, form, { row, context }) };
}

async function beginRoundTrip(
  parts: ConsentParts,
  form: ConsentForm,
  { row, context }: Pick<OpenedLink, "row" | "context">,
): Promise<string> {
  const { random, vault } = parts;
  const { definition, clientId, inputs, scopes, redirectUri, destination } = context;
  const pkce = createPkce({ definition, randomBytes: random.bytes });
  const nonce = createNonce({ definition, scopes, randomBytes: random.bytes });
  const state = Buffer.from(random.bytes(stateBytes)).toString("base64url");
  const values = { client: { id: clientId }, inputs, redirectUri };
  const request = { values, state, nonce, codeChallenge: pkce, scopes };
  const authorizationUrl = definition.authorization?.pushed
    ? await parts.pushRequest(context, request)
    : buildAuthorizationUrl({ definition, ...request });
  const id = random.uuid();
  const [stateHash, browserHash] = [sha256(state), sha256(form.browser)];
  const { connectionId, id: linkId } = row;
  const bound = sealBound(vault, id, {
    stateHash: hex(stateHash),
    connectionId,
    linkId,
    browserHash: hex(browserHash),
    redirectUri,
    codeVerifier: pkce?.verifier ?? null,
    nonce,
    issuer: expectedIssuer(definition, values),
    destination,
  });
  const plain = { id, stateHash, connectionId, linkId, browserHash, expiresInSeconds: stateSeconds };
  const retryAfterSeconds = await parts.requests.insert({
    ...plain,
    request: bound,
    mostOpen: parts.openRequestsPerLink,
  });
  if (retryAfterSeconds !== null) throw new ConsentError("too_many_requests", null, { retryAfterSeconds });
  return authorizationUrl;
}

/**
 * The callback (RFC 6749, section 4.1.2; RFC 9207): judged by what was bound when the person was sent away; then the state is
 * consumed, and the code exchanged at once. The ticket of the page that tells how it ended; to the same browser with the same
 * state again and again.
 */
export async function complete(parts: ConsentParts, given: CallbackRequest): Promise<string> {
  const { attempt, request } = await findRequest(parts, given);
  if (request === null) return await awaitEnding(parts, attempt);
  const { id, bound } = request;
  const { connectionId } = bound;
  const context = await parts.loadContext(connectionId);
  const answer = readAnswer(context, { query: given.query, issuer: bound.issuer });
  // Shown, and ends nothing: the state goes on waiting for the answer of the server that was asked.
  if (answer.kind !== "code" && !answer.isProven) {
    await recordUnproven(parts, request, answer);
    return sealTicket(parts, attempt, endingOfRefusal(context, answer));
  }
  if (!(await parts.requests.consume(id))) return await awaitEnding(parts, attempt);
  return await conclude(parts, { attempt, connectionId }, async (now) =>
    answer.kind === "code"
      ? await endingOfCode(parts, { context: now, bound, answer })
      : await refuse(parts, now, answer),
  );
}

/** Once for a request, of which a link has few: whoever has made it up may come with it again and again. */
async function recordUnproven(
  { requests, recordEvent }: ConsentParts,
  { id, bound: { connectionId } }: NonNullable<Found["request"]>,
  answer: Refusal,
): Promise<void> {
  if (!(await requests.noteError(id))) return;
  const said = answer.kind === "denied" ? "access_denied" : answer.error;
  await recordEvent({ connectionId, type: "consent_failed", detail: { error: "issuer_missing", said } });
}

type Returned = { context: AuthorizationContext; bound: BoundRequest; answer: CodeAnswer };

async function endingOfCode(parts: ConsentParts, { context, bound, answer }: Returned): Promise<Ending> {
  if (context.disabled) throw new ConsentError("connection_disabled");
  const { connectionId, linkId, codeVerifier, redirectUri, destination, nonce, issuer } = bound;
  if (!isSameCodeDestination(destination, context.destination)) {
    throw new ConsentError("invalid_state", "The client or the inputs of this connection were changed meanwhile.");
  }
  const { code, captured } = answer;
  const idToken = { nonce, issuer: issuer.issuer };
  const exchange = { connectionId, code, captured, codeVerifier, redirectUri, destination, idToken, cannotWait: true };
  return await endingOf(parts, context, await exchangeForLink(parts, linkId, exchange));
}

/** `request` null: the state has come back before. */
type Found = { attempt: NotedAttempt; request: { id: string; bound: BoundRequest } | null };

/** The request of a state, in the right browser and at its own redirect URI. Changes nothing. */
async function findRequest(parts: ConsentParts, { provider, client, query, browser }: CallbackRequest): Promise<Found> {
  const { requests, attempts, vault, publicUrl } = parts;
  const { state } = query;
  const unknown = () => readLostError(parts.findDefinition(provider), query) ?? new ConsentError("invalid_state");
  if (typeof state !== "string" || state === "") throw unknown();
  const stateHash = sha256(state);
  const row = await requests.find(stateHash);
  if (row === null) {
    const attempt = await attempts.find(stateHash);
    if (attempt === null) throw unknown();
    if (!isBrowserOf(attempt, browser)) throw new ConsentError("wrong_browser");
    return { attempt, request: null };
  }
  const bound = openBound(vault, row, stateHash);
  if (bound === null) throw unknown();
  const { linkId } = bound;
  const attempt = {
    attemptHash: stateHash,
    browserHash: sha256(browser ?? ""),
    linkId,
    ticket: null,
    isOverdue: false,
  };
  if (bound.browserHash !== hex(attempt.browserHash)) throw new ConsentError("wrong_browser");
  if (bound.redirectUri !== redirectUriOf(publicUrl, { provider, client })) throw new ConsentError("invalid_state");
  return { attempt, request: { id: row.id, bound } };
}
