import type { ProviderDefinition } from "./definition.ts";
import { fillUrl, type TemplateValues } from "./template.ts";

/** Whose answer a consent waits for. Fixed when it begins: metadata that are read at the callback may be another server's. */
export type ExpectedIssuer = {
  /** Null: neither the definition nor metadata name one. */
  issuer: string | null;
  /** The authorize page, without its parameters. */
  authorizationUrl: string;
  /** Whether an answer without `iss` is refused. */
  required: boolean;
};

/** As it is known when the person is sent away. @throws BrokerError naming a value that is lacking */
export function expectedIssuer(definition: ProviderDefinition, values: TemplateValues): ExpectedIssuer {
  const { authorization } = definition;
  return {
    issuer: authorization?.issuer ? fillUrl(authorization.issuer, values) : null,
    authorizationUrl: authorization ? new URL(fillUrl(authorization.url, values)).href : "",
    required: authorization?.iss === "required",
  };
}

/**
 * Whose answer a callback's `iss` says that it is (RFC 9207, section 2.4). `unsaid`: it must say so and does not.
 * The comparison is letter by letter (RFC 3986, section 6.2.1): `…/other-tenant` is another issuer. Where no issuer is known,
 * it must be one that the authorize page lies under.
 */
export function judgeIssuer(expected: ExpectedIssuer, iss: string | undefined): "ours" | "unsaid" | "other" {
  const { issuer, authorizationUrl, required } = expected;
  if (iss === undefined) return required ? "unsaid" : "ours";
  if (issuer !== null) return iss === issuer ? "ours" : "other";
  const url = URL.parse(iss);
  const isIssuer = url !== null && url.search === "" && url.hash === ""; // RFC 8414, section 2
  return isIssuer && authorizationUrl.startsWith(iss.endsWith("/") ? iss : `${iss}/`) ? "ours" : "other";
}
