import { BrokerError } from "../errors.ts";
import { isDenial, issuerMatches, readCallback } from "../providers/authorization-request.ts";
import type { ProviderDefinition } from "../providers/definition.ts";
import type { AuthorizationContext } from "./context.ts";
import { ConsentError } from "./problem.ts";

/** What came back with the browser, judged. `detail` is for people. */
type CallbackAnswer =
  | { kind: "code"; code: string; captured: Record<string, string> }
  | { kind: "denied" }
  | { kind: "failed"; error: string; detail: string };

/** Tells a code, a denial (RFC 6749, section 4.1.2.1) and a failure apart; another issuer's answer counts as a failure. */
export function readAnswer(context: AuthorizationContext, query: Readonly<Record<string, unknown>>): CallbackAnswer {
  const { definition, clientId, inputs } = context;
  const callback = readCallback(definition, query, context.clientSecrets);
  const values = { client: { id: clientId }, inputs };
  if (callback.iss !== undefined && !issuerMatches({ definition, values, iss: callback.iss })) {
    const detail = `The answer names another issuer than ${definition.name}.`;
    return { kind: "failed", error: "issuer_mismatch", detail };
  }
  if (callback.kind === "code") return callback;
  if (isDenial(definition, callback.error)) return { kind: "denied" };
  const said = withoutSecrets([callback.error, callback.description].filter((part) => part !== "").join(": "), query);
  return { kind: "failed", error: withoutSecrets(callback.error, query), detail: said };
}

/**
 * What a provider said where nobody can tell which attempt it is about; null: it said nothing of an error. Anybody can write such
 * an address: it is shown as text, and changes nothing.
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

/** Takes the code out of what a person pasted. @throws BrokerError `invalid_request` when there is none */
export function readPastedCode({ authorization }: ProviderDefinition, pasted: string): string {
  const text = pasted.trim();
  const query = /^https?:\/\//i.test(text) ? URL.parse(text)?.searchParams : undefined;
  const code = query ? (query.get(authorization?.callback.code ?? "code") ?? "") : text;
  if (/^[\x21-\x7e]+$/.test(code) && code.length <= longestCode) return code;
  const allowed = `the code that the provider showed (up to ${longestCode} characters, no spaces), or the address that holds it`;
  throw new BrokerError("invalid_request", `code must be ${allowed}`);
}

/** A provider may repeat in its message what it was sent. */
function withoutSecrets(text: string, { state, code }: Readonly<Record<string, unknown>>): string {
  return [state, code].reduce<string>(
    (rest, secret) => (typeof secret === "string" && secret !== "" ? rest.replaceAll(secret, "…") : rest),
    text,
  );
}
