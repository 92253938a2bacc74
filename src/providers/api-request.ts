import type { ErrorRule, ProviderDefinition } from "./definition.ts";
import { fillHeaders, fillUrl, type TemplateValues } from "./template.ts";

/** What to send with an API call, and on which answers to come back with `rejected_version`. Holds the access token. */
export type ApiRequest = {
  base_url: string | null;
  headers: Record<string, string>;
  /** `status` absent: any; `body`: a regular expression that the body matches. */
  expired_when: { status?: number; body?: string }[];
};

/**
 * The request that a definition describes (RFC 6750, section 2.1, unless it says otherwise), so that a caller needs to
 * know nothing about the provider. A 401 always counts as an access token that has run out (section 3.1).
 * @throws BrokerError naming a value that is lacking, or that no header can carry
 */
export function describeApiRequest(options: { definition: ProviderDefinition; values: TemplateValues }): ApiRequest {
  const { definition, values } = options;
  const { api, errors } = definition;
  return {
    base_url: api.baseUrl === null ? null : fillUrl(api.baseUrl, values),
    headers: {
      [api.authorization.header]: "",
      ...fillHeaders({ [api.authorization.header]: api.authorization.value, ...api.headers }, values),
    },
    expired_when: [{ status: 401 }, ...errors.filter((rule) => rule.endpoint === "api").map(answerOf)],
  };
}

function answerOf(rule: ErrorRule): { status?: number; body?: string } {
  const { status, body } = rule;
  return { ...(status !== undefined && { status }), ...(body !== undefined && { body }) };
}
