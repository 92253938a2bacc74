import { BrokerError } from "../errors.ts";
import { isDenial, readCallback } from "../providers/authorization-request.ts";
import type { ProviderDefinition } from "../providers/definition.ts";
import { judgeIssuer, type ExpectedIssuer } from "../providers/issuer.ts";
import type { AuthorizationContext } from "./context.ts";
import { named } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";
import type { Ending } from "./ticket.ts";

export type CodeAnswer = { kind: "code"; code: string; captured: Record<string, string> };

/** `detail` is for people. */
export type Refusal = { kind: "denied" } | { kind: "failed"; error: string; detail: string };

/** What came back with the browser, judged. */
type CallbackAnswer = CodeAnswer | Refusal;

/** `isProven` false: an error that does not say whose it is where it must. Anybody may have made it up, so it ends nothing. */
type JudgedAnswer = (CodeAnswer & { isProven: true }) | (Refusal & { isProven: boolean });

/**
 * Tells a code, a denial (RFC 6749, section 4.1.2.1) and a failure apart. An answer that names another issuer than the one
 * asked, and a code that names none where it must, are failures (RFC 9207, section 2.4), whatever else they say: the name is
 * not repeated.
 */
export function readAnswer(
  context: AuthorizationContext,
  { query, issuer }: { query: Readonly<Record<string, unknown>>; issuer: ExpectedIssuer },
): JudgedAnswer {
  const { definition } = context;
  const callback = readCallback(definition, query, context.clientSecrets);
  const whose = judgeIssuer(issuer, callback.iss);
  const isProven = whose === "ours";
  if (whose === "other") {
    const detail = `The answer names another issuer than ${definition.name}.`;
    return { kind: "failed", error: "issuer_mismatch", detail, isProven: true };
  }
  if (callback.kind === "code") {
    if (isProven) return { ...callback, isProven };
    const detail = `The answer does not name its issuer (iss), as those of ${definition.name} do.`;
    return { kind: "failed", error: "issuer_missing", detail, isProven: true };
  }
  if (isDenial(definition, callback.error)) return { kind: "denied", isProven };
  const said = withoutSecrets([callback.error, callback.description].filter((part) => part !== "").join(": "), query);
  return { kind: "failed", error: withoutSecrets(callback.error, query), detail: said, isProven };
}

/** What a person is told of an answer without a code. */
export function endingOfRefusal(context: AuthorizationContext, answer: Refusal): Ending {
  const subject = named(context);
  if (answer.kind === "denied") return { ...subject, outcome: "denied" };
  return { outcome: "problem", problem: "provider_refused", detail: answer.detail, subject };
}

/** The same for one that ends its attempt, which the history has, too. */
export async function refuse(
  { recordEvent }: Pick<ConsentParts, "recordEvent">,
  context: AuthorizationContext,
  answer: Refusal,
): Promise<Ending> {
  const { connectionId } = context;
  await recordEvent(
    answer.kind === "denied"
      ? { connectionId, type: "consent_denied", detail: {} }
      : { connectionId, type: "consent_failed", detail: { error: answer.error } },
  );
  return endingOfRefusal(context, answer);
}

/**
 * An error that came without a usable state of this browser; null: none did. Anybody can write such an address: what it says is
 * shown as text, and changes nothing.
 */
export function readLostError(
  definition: ProviderDefinition | undefined,
  query: Readonly<Record<string, unknown>>,
): ConsentError | null {
  if (!definition?.authorization) return null;
  const callback = readCallback(definition, { ...query, code: undefined });
  if (callback.kind !== "error" || query["error"] === undefined || query["error"] === "") return null;
  const said = withoutSecrets([callback.error, callback.description].filter((part) => part !== "").join(": "), query);
  return new ConsentError(isDenial(definition, callback.error) ? "lost_denial" : "lost_error", said);
}

const longestCode = 4096;

/**
 * What a person pasted: a code, or the whole address that the browser ended at, which is judged like a callback. `state`: that of
 * the request, where the page that asks knows it.
 * @throws BrokerError `invalid_request` for what is neither, for another page's address, and for one with another state
 */
export function readPasted(
  context: AuthorizationContext,
  pasted: string,
  { state, issuer }: { state: string | null; issuer: ExpectedIssuer },
): CallbackAnswer {
  const { authorization } = context.definition;
  const text = pasted.trim();
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) {
    return { kind: "code", code: checkedCode(text), captured: {} };
  }
  const address = URL.parse(text);
  if (address === null) throw noCode();
  requirePage(address, authorization?.manualRedirectUri ?? null);
  const query = readQuery(address.searchParams);
  if (query["state"] !== undefined && query["state"] !== state) throw otherState(state);
  const isAnswer = query["error"] !== undefined || query[authorization?.callback.code ?? "code"] !== undefined;
  if (!isAnswer) throw noCode();
  const answer = readAnswer(context, { query, issuer });
  return answer.kind === "code" ? { ...answer, code: checkedCode(answer.code) } : answer;
}

function checkedCode(code: string): string {
  if (/^[\x21-\x7e]+$/.test(code) && code.length <= longestCode) return code;
  throw noCode();
}

/** Where the definition says which page shows the code, another one's address is none. */
function requirePage({ origin, pathname }: URL, manualRedirectUri: string | null): void {
  const page = manualRedirectUri === null ? null : URL.parse(manualRedirectUri);
  if (page === null || (page.origin === origin && page.pathname === pathname)) return;
  throw invalid(`code: the address must be that of the page that shows the code, ${page.origin}${page.pathname}`);
}

/** A parameter that comes twice counts for nothing (RFC 6749, section 3.1). */
function readQuery(params: URLSearchParams): Record<string, string> {
  const names = [...params.keys()];
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return Object.fromEntries(params);
  throw invalid("code: a parameter of the address comes more than once");
}

function otherState(state: string | null): BrokerError {
  const detail =
    state === null
      ? "code: the address has a state, which belongs to the page of a consent link: paste it there"
      : "code: the address belongs to another sign-in than the one that this page has begun; open the address that this page shows, and paste what it leads to";
  return invalid(detail);
}

function noCode(): BrokerError {
  const allowed = `the code that the provider showed (up to ${longestCode} characters, no spaces), or the address that holds it`;
  return invalid(`code must be ${allowed}`);
}

const invalid = (detail: string) => new BrokerError("invalid_request", detail);

/** A provider may repeat in its message what it was sent. */
function withoutSecrets(text: string, { state, code }: Readonly<Record<string, unknown>>): string {
  return [state, code].reduce<string>(
    (rest, secret) => (typeof secret === "string" && secret !== "" ? rest.replaceAll(secret, "…") : rest),
    text,
  );
}
