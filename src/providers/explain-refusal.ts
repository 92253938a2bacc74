import { parseAnswer } from "./answer-body.ts";
import { classifyRefusal, decidingRule } from "./classify.ts";
import type { ErrorRule, ProviderDefinition } from "./definition.ts";
import type { FailureCode } from "./grant.ts";
import type { TokenResponse } from "./token-response.ts";

/** What a refusal was taken to mean, in the words of a definition's `errors`; codes without such a word stand for themselves. */
export const meanings: Readonly<Partial<Record<FailureCode, Exclude<ErrorRule["means"], "access_token_expired">>>> = {
  invalid_grant: "needs_reauthorization",
  invalid_client: "client_rejected",
  rate_limited: "rate_limited",
  blocked: "blocked",
  provider_unavailable: "transient",
};

/** What decided how a token endpoint's answer without a token was classified, for whoever writes the definition. */
export function explainRefusal(definition: ProviderDefinition, response: TokenResponse): string {
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
