import { BrokerError } from "../errors.ts";
import { readPointer } from "./answer-body.ts";
import { assemble, type TokenRequest } from "./assemble.ts";
import { authorizationParams, type AuthorizationRequest } from "./authorization-request.ts";
import { fill, fillAll, fillUrl, type TemplateValues } from "./template.ts";
import type { ProviderDefinition } from "./definition.ts";

/**
 * The parameters of an authorization request, sent ahead of the person (RFC 9126, section 2.1).
 * @throws BrokerError `grant_not_applicable` where the definition pushes none, or naming a value that is lacking
 */
export function buildPushedRequest(request: AuthorizationRequest): TokenRequest {
  const { authorization, id } = request.definition;
  if (!authorization?.pushed) {
    throw new BrokerError("grant_not_applicable", `provider ${id} takes no pushed authorization requests`);
  }
  const { pushed } = authorization;
  const params = authorizationParams(request);
  const own = fillAll(pushed.fields, request.values);
  // The client's id is among the parameters: authenticating must not send it twice.
  const fields = { ...pushed.fields, client_id: "{client.id}" };
  return assemble({ ...pushed, fields }, request.values, [...params, ...own]);
}

/** The address for the person, of the reference that came back (RFC 9126, sections 2.2 and 4). @throws BrokerError `provider_rejected` */
export function readPushedAnswer(given: {
  definition: ProviderDefinition;
  values: TemplateValues;
  body: unknown;
}): string {
  const { definition, values, body } = given;
  const reference = readPointer(body, "/request_uri");
  if (typeof reference !== "string" || reference === "") {
    throw new BrokerError(
      "provider_rejected",
      "The provider's answer to the pushed authorization request has no request_uri.",
    );
  }
  const url = new URL(fillUrl(definition.authorization?.url ?? "", values));
  url.searchParams.set("client_id", fill("{client.id}", values) ?? "");
  url.searchParams.set("request_uri", reference);
  return url.href;
}
