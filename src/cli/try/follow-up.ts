import { describeApiRequest } from "../../providers/api-request.ts";
import { forChain, lookupsOf, type Lookup } from "../../providers/definition.ts";
import { readIntrospection } from "../../providers/introspection.ts";
import { readLookup } from "../../providers/lookup.ts";
import {
  buildIntrospectionRequest,
  buildLookupRequest,
  buildRevocationRequest,
  type NamedToken,
} from "../../providers/side-requests.ts";
import { fill } from "../../providers/template.ts";
import { describeExpiry, pairs } from "./reading.ts";
import { requestToken, valuesFor, valuesOf, type Trial } from "./trial.ts";

/** Whose account it is, by every lookup of the definition. The first that fails ends them, as at the broker. */
export async function lookUpAccount(trial: Trial): Promise<void> {
  for (const [index, lookup] of lookupsOf(trial.definition, trial.grant).entries()) {
    if (!(await runLookup(trial, `lookup ${index + 1}`, lookup))) return;
  }
}

async function runLookup(trial: Trial, heading: string, lookup: Lookup): Promise<boolean> {
  const { definition, report, masker } = trial;
  const { request } = lookup;
  if (request === null) {
    const account = fill(lookup.value ?? "", await valuesFor(trial, null));
    report.step("read", { of: heading, account }, [`= account: ${account}`]);
    return true;
  }
  const client = request.clientAuth;
  const values = await valuesFor(trial, client === null ? null : { ...request, clientAuth: client });
  const { ok, body, detail } = await trial.witness
    .client(heading, { open: true })
    .ask({ definition, request: buildLookupRequest(definition, request, values) });
  const found = ok ? readLookup(lookup, body, values) : null;
  if (found === null) {
    const why = ok ? `its answer has nothing at ${describePlace(lookup)}` : detail;
    report.problem(`${heading} tells no account: ${why}`);
    return false;
  }
  const { account, label, captured } = found;
  Object.assign(trial.account, captured);
  report.step("read", { of: heading, account, label, captured: masker.answer(captured, false) }, [
    `= account: ${account ?? "not named by this lookup"}${label === null ? "" : ` (${label})`}`,
    ...(Object.keys(captured).length > 0 ? [`= captured: ${pairs(captured)}`] : []),
  ]);
  return true;
}

function describePlace({ select, pointer }: Lookup): string {
  const entry = select === null ? "" : ` in the entry that \`select\` names`;
  return `${pointer ?? "its top"}${entry}`;
}

/** What the provider says of the token itself (RFC 7662). */
export async function introspect(trial: Trial): Promise<void> {
  const { definition, report } = trial;
  const { introspection } = definition;
  if (introspection === null) return;
  const token = named(trial, introspection.token);
  if (token === null) return report.note(`introspection is left out: there is no ${introspection.token}`);
  const values = await valuesFor(trial, introspection);
  const request = buildIntrospectionRequest({ definition, token, values });
  if (request === null) return;
  const { ok, body, detail } = await trial.witness.client("introspection").ask({ definition, request });
  if (!ok) return report.problem(`introspection failed: ${detail}`);
  const { active, expiry } = readIntrospection(introspection, body);
  report.step("read", { of: "introspection", active, expires: expiry }, [
    `= ${active ? "active" : "not active"}, ${describeExpiry(expiry)}`,
  ]);
  if (!active) report.problem("introspection says that a token is not active which has just been issued");
}

/** Extra tokens that are not in an answer but exchanged for (RFC 8693). */
export async function exchangeExtraTokens(trial: Trial): Promise<void> {
  for (const { name, exchange } of trial.definition.extraTokens) {
    if (exchange === null) continue;
    const definition = forChain(trial.definition, name);
    const { accessToken } = trial.tokens;
    const call = {
      heading: `extra token ${name}`,
      grant: "token_exchange",
      values: { accessToken },
      definition,
    } as const;
    const answer = await requestToken(trial, call);
    if (answer.kind === "granted") trial.extras[name] = answer.grant;
    else trial.report.problem(`the extra token ${name} was refused`);
  }
}

/** What a caller of the broker is told to send with an API request. */
export function describeApi(trial: Trial, accessToken: string): void {
  const { definition, report, masker } = trial;
  const request = describeApiRequest({ definition, values: { ...valuesOf(trial), accessToken } });
  const headers = masker.headers(request.headers);
  report.step("api", { ...request, headers }, [
    `= base address: ${request.base_url ?? "none named"}`,
    ...Object.entries(headers).map(([name, value]) => `= header ${name}: ${value}`),
    ...request.expired_when.map(
      ({ status, body }) =>
        `= the access token has run out on ${[
          ...(status === undefined ? [] : [`status ${status}`]),
          ...(body === undefined ? [] : [`a body that matches ${JSON.stringify(body)}`]),
        ].join(" with ")}`,
    ),
  ]);
}

/** Gives the grant back: the refresh token first, as the broker does. */
export async function revoke(trial: Trial): Promise<void> {
  const { definition, report } = trial;
  const { revocation } = definition;
  if (revocation === null) return report.note("nothing is revoked: the definition has no revocation");
  for (const hint of ["refresh_token", "access_token"] as const) {
    const token = named(trial, hint);
    const values = await valuesFor(trial, revocation);
    const request = token && buildRevocationRequest({ definition, token, values });
    if (request === null) continue;
    const { ok, detail } = await trial.witness.client(`revocation of the ${hint}`).ask({ definition, request });
    if (!ok) report.problem(`the revocation of the ${hint} failed: ${detail}`);
  }
}

function named({ tokens }: Trial, hint: NamedToken["hint"]): NamedToken | null {
  const value = hint === "access_token" ? tokens.accessToken : tokens.refreshToken;
  return value === undefined ? null : { hint, value };
}
