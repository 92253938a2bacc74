import { BrokerError } from "../errors.ts";
import { buildAuthorizationUrl, createPkce } from "../providers/authorization-request.ts";
import { derivedBytes, type FormKeys } from "./browser.ts";
import { readPastedCode } from "./callback.ts";
import type { ConsentAnswer } from "./consent-service.ts";
import { askAboutAccount } from "./other-account.ts";
import type { AuthorizationContext, ExchangedCode } from "./context.ts";
import { requireManualCode } from "./link-request.ts";
import { claimLink, exchangeForLink, type ConsentForm } from "./open-link.ts";
import type { ConsentParts } from "./parts.ts";
import { ConsentError } from "./problem.ts";

/** Where a person gets a code to copy. The same for a form as for its POST, since a GET stores nothing: all of it is derived. */
export function copiedCodeRequest(
  { definition, clientId, inputs, scopes }: AuthorizationContext,
  { formKeys, form }: { formKeys: FormKeys; form: ConsentForm },
): { authorizationUrl: string; codeVerifier: string | null; redirectUri: string | null } {
  const { manualRedirectUri } = requireManualCode(definition);
  const pkce = createPkce({ definition, randomBytes: derivedBytes(formKeys, "verifier", form) });
  const authorizationUrl = buildAuthorizationUrl({
    definition,
    values: { client: { id: clientId }, inputs, redirectUri: manualRedirectUri ?? undefined },
    state: derivedBytes(formKeys, "state", form)(32).toString("base64url"),
    codeChallenge: pkce,
    scopes,
  });
  return { authorizationUrl, codeVerifier: pkce?.verifier ?? null, redirectUri: manualRedirectUri };
}

/** Takes a code that the person copied from the provider's page, or the whole address that holds it. */
export async function completeManually(parts: ConsentParts, form: ConsentForm, pasted: string): Promise<ConsentAnswer> {
  const { row, context } = await claimLink(parts, form);
  if (!row.manual) throw new ConsentError("malformed", "This link takes no code.");
  const code = readPastedCode(context.definition, pasted);
  const { codeVerifier, redirectUri } = copiedCodeRequest(context, { formKeys: parts.formKeys, form });
  const exchange = { connectionId: row.connectionId, code, captured: {}, codeVerifier, redirectUri };
  const held = await exchangeForLink(parts, row.id, exchange);
  const { connectionName, definition } = context;
  const ended = { connectionName, providerName: definition.name, returnTo: row.returnTo };
  if (held === null) return { ...ended, outcome: "connected" };
  const question = askAboutAccount(parts, { held, context, browser: form.browser, linkId: row.id });
  return { ...ended, outcome: "other_account", question };
}

/** A copied code that ops hand over without a browser. @throws BrokerError also where it would need PKCE */
export async function exchangeCopiedCode(
  { loadContext, exchangeCode }: ConsentParts,
  given: { connectionId: string; code: string },
): Promise<ExchangedCode> {
  const { definition } = await loadContext(given.connectionId);
  const { pkce, manualRedirectUri } = requireManualCode(definition);
  if (pkce === "required") {
    const detail = `The provider ${definition.id} wants PKCE: use a consent link with manual.`;
    throw new BrokerError("grant_not_applicable", detail);
  }
  const code = readPastedCode(definition, given.code);
  return await exchangeCode({ ...given, code, codeVerifier: null, redirectUri: manualRedirectUri, captured: {} });
}
