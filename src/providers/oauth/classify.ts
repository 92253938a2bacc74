import type { ErrorRule, ProviderDefinition } from "../format/definition.ts";
import { parseAnswer, readPointer, strictText } from "./answer-body.ts";
import type { Failure, FailureClass, FailureCode } from "./token-answer.ts";
import type { HttpResponse } from "../http/exchange.ts";

type Verdict = { class: FailureClass; code: FailureCode; isUnexplained?: true };

const verdicts = {
  needs_reauthorization: { class: "refused_for_good", code: "invalid_grant" },
  client_rejected: { class: "client_rejected", code: "invalid_client" },
  rate_limited: { class: "refused_for_now", code: "rate_limited" },
  blocked: { class: "refused_for_now", code: "blocked" },
  transient: { class: "refused_for_now", code: "provider_unavailable" },
  unexplained: { class: "refused_for_now", code: "provider_unavailable", isUnexplained: true },
} as const satisfies Record<string, Verdict>;

/** The codes of RFC 6749, section 5.2, that say something about the grant or the client, and two of section 4.1.2.1. */
const oauthErrors: Record<string, Verdict> = {
  invalid_grant: verdicts.needs_reauthorization,
  invalid_client: verdicts.client_rejected,
  unauthorized_client: verdicts.client_rejected,
  temporarily_unavailable: verdicts.transient,
  server_error: verdicts.transient,
};

type Refusal = { definition: ProviderDefinition; response: HttpResponse; body: unknown };

/** Step 7 of docs/refresh-protocol.md for an answer without a token: the definition's rules first, then RFC 6749, then the status. */
export function classifyRefusal(options: Refusal): Verdict & Pick<Failure, "retryAfterSeconds" | "oauthError"> {
  const { definition, response, body } = options;
  const error = readPointer(body, "/error");
  const answer = answerOf(response, body);
  const rule = decidingRule(options);
  const verdict: Verdict = isLostByProxy(response)
    ? { class: "unknown", code: "outcome_unknown" }
    : rule && rule.means !== "access_token_expired"
      ? verdicts[rule.means]
      : byProtocol({ ...answer, status: effectiveStatus(definition, { response, body }) });
  const retryAfterSeconds = readRetryAfter(response.headers);
  const oauthError = typeof error === "string" && /^[a-z_]{1,60}$/.test(error) ? error : undefined;
  return {
    ...verdict,
    ...(retryAfterSeconds !== null && { retryAfterSeconds }),
    ...(oauthError !== undefined && { oauthError }),
  };
}

/** The rule of the definition that says what an answer without a token means, if one does. */
function decidingRule({ definition, response, body }: Refusal): ErrorRule | undefined {
  if (isLostByProxy(response)) return undefined;
  const answer = answerOf(response, body);
  return definition.errors.find(
    (rule) => rule.endpoint === "token" && mayDecide(rule, answer) && matches(rule, answer),
  );
}

/** Answers of a forwarding proxy that has lost the provider's answer. A rule could take its words for the provider's. */
function isLostByProxy({ relayedBy, status }: HttpResponse): boolean {
  return relayedBy !== undefined && status >= 500;
}

type Answer = { status: number; body: unknown; text: string };

function answerOf(response: HttpResponse, body: unknown): Answer {
  return { status: response.status, body, text: strictText(response)?.text ?? "" };
}

/** Statuses about the way and the server, not about the grant: a rule that ends grants must name one of them to be asked there. */
function isAboutTheWay(status: number): boolean {
  return status >= 500 || [407, 408, 425, 429].includes(status);
}

/** Words that some servers add to those for a dead refresh token, if another client asked or the server cannot decrypt the token. */
const otherCause = /is not linked to client|cannot decrypt the refresh token/iu;

/** Whether a rule may end the grant: a living grant must not be ended by mistake, since only a person can connect it again. */
function mayDecide({ means, status: named }: ErrorRule, { status, text }: Answer): boolean {
  if (means !== "needs_reauthorization") return true;
  return !otherCause.test(text) && (named !== undefined || !isAboutTheWay(status));
}

function matches(rule: ErrorRule, given: Answer): boolean {
  const { status, body } = given;
  if (rule.status !== undefined && rule.status !== status) return false;
  if (rule.body !== undefined && !new RegExp(rule.body, "u").test(given.text)) return false;
  if (rule.pointer === undefined) return true;
  const text = textAt(body, rule.pointer);
  if (text === null) return false;
  return rule.regex === undefined ? text === rule.equals : new RegExp(rule.regex, "u").test(text);
}

/** A 2xx without the value that `ok_when` expects is a refusal. */
function effectiveStatus(
  { response: { okWhen } }: ProviderDefinition,
  { response: { status }, body }: { response: HttpResponse; body: unknown },
): number {
  if (okWhen === null || status >= 300 || body === null) return status;
  return textAt(body, okWhen.pointer) === okWhen.equals ? status : 400;
}

function textAt(body: unknown, pointer: string): string | null {
  const value = readPointer(body, pointer);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  return typeof value === "string" ? value : null;
}

/**
 * Many servers answer invalid_request to a dead refresh token. It ends the grant only if its text calls the refresh token itself dead and says
 * nothing else. A refresh token that is missing, or sent twice, is a mistake in the request.
 */
const deadInWords =
  /^(?:(?:the )?refresh[ _]token (?:is |was |has )?(?:been )?(?:invalid|expired|revoked)(?:(?:,| or|, or) (?:invalid|expired|revoked))*|invalid "?refresh[ _]token"?(?: in request)?)[.!]?$/iu;

function saysDead({ status, body, text }: Answer): boolean {
  const description = readPointer(body, "/error_description");
  if (![400, 401, 403].includes(status) || readPointer(body, "/error") !== "invalid_request") return false;
  return typeof description === "string" && deadInWords.test(description) && !otherCause.test(text);
}

/** After a 500 and similar statuses nobody knows what happened, whatever the body says. */
function byProtocol(answer: Answer): Verdict {
  const { status, body } = answer;
  const error = readPointer(body, "/error");
  if (status === 429) return verdicts.rate_limited;
  if (status === 503 || (status >= 300 && status < 400)) return verdicts.transient;
  if (status >= 500) return { class: "unknown", code: "outcome_unknown" };
  if (typeof error === "string" && Object.hasOwn(oauthErrors, error)) return oauthErrors[error] ?? verdicts.transient;
  if (saysDead(answer)) return verdicts.needs_reauthorization;
  // 407, Request Timeout and Too Early are about the transport and not the grant (RFC 9110, sections 15.5.8 and 15.5.9; RFC 8470, 5.2).
  if (status === 407 || status === 408 || status === 425) return verdicts.transient;
  if (status >= 400) return verdicts.unexplained;
  return { class: "unknown", code: "unreadable_answer" };
}

/** Seconds until the provider wants to be asked again (RFC 9110, section 10.2.3); a date counts from the answer's own. */
export function readRetryAfter(headers: Readonly<Record<string, string>>): number | null {
  const value = headers["retry-after"]?.trim() ?? "";
  // Whole seconds, by the RFC; some write parts of one.
  if (/^\d{1,9}(\.\d+)?$/.test(value)) return Math.ceil(Number(value));
  const seconds = (Date.parse(value) - Date.parse(headers["date"] ?? "")) / 1000;
  return /^[A-Z][a-z]{2}/.test(value) && Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}

/** How a refusal was classified, in the words of `errors`; a code without such a word is returned as it is. */
export const meanings: Readonly<Partial<Record<FailureCode, Exclude<ErrorRule["means"], "access_token_expired">>>> = {
  invalid_grant: "needs_reauthorization",
  invalid_client: "client_rejected",
  rate_limited: "rate_limited",
  blocked: "blocked",
  provider_unavailable: "transient",
};

/** What decided the classification of an answer without a token, for the author of the definition. */
export function explainRefusal(definition: ProviderDefinition, response: HttpResponse): string {
  const body = parseAnswer(response, definition.response.format);
  const verdict = (errors: readonly ErrorRule[], said: unknown) =>
    classifyRefusal({ definition: { ...definition, errors }, response, body: said });
  const rule = decidingRule({ definition, response, body });
  if (rule) return `errors[${definition.errors.indexOf(rule)}] of the definition: ${describeRule(rule)}`;
  const plain = verdict([], body);
  const unnamed = typeof body === "object" && body !== null ? { ...body, error: undefined } : body;
  if (plain.oauthError !== undefined && plain.code !== verdict([], unnamed).code) {
    return `error "${plain.oauthError}" (RFC 6749, section 5.2)`;
  }
  if (plain.code === "unreadable_answer") {
    return `status ${response.status} without a token at ${definition.response.accessToken}`;
  }
  const { okWhen } = definition.response;
  return response.status < 300 && okWhen !== null
    ? `response.ok_when: ${okWhen.pointer} is not ${JSON.stringify(okWhen.equals)}`
    : `status ${response.status}, since no rule of the definition matches`;
}

function describeRule({ endpoint: _endpoint, means, ...conditions }: ErrorRule): string {
  const said = Object.entries(conditions).map(([name, value]) => `${name} ${JSON.stringify(value)}`);
  return `${said.join(", ")}, means ${means}`;
}
