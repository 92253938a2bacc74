import { randomBytes } from "node:crypto";
import { BrokerError } from "../../errors.ts";
import { rulesOfGrant } from "../../grant-types.ts";
import { forFurtherToken, type Lookup, type ProviderDefinition } from "../../providers/format/definition.ts";
import { lookupsOf } from "../../providers/format/requirements.ts";
import { fill } from "../../providers/format/template.ts";
import { createDiscovery } from "../../providers/oauth/discovery.ts";
import type { TokenAnswer } from "../../providers/oauth/token-answer.ts";
import {
  buildIntrospectionRequest,
  buildLookupRequest,
  buildRevocationRequest,
  describeApiRequest,
  type NamedToken,
  readIntrospection,
  readLookup,
} from "../../providers/oauth/side-requests.ts";
import { CliError, UsageError } from "../errors.ts";
import type { Session } from "../session.ts";
import { type Loopback, openLoopback, tryAuthorizationCode, tryDeviceCode } from "./authorize.ts";
import {
  checkOptions,
  chooseGrant,
  isPasted,
  loadDefinition,
  openEgress,
  prepareTrial,
  type TryOptions,
} from "./prepare.ts";
import { describeExpiry, pairs } from "./reading.ts";
import { createReport, keepGrant, requestToken, type Trial, valuesFor, valuesOf } from "./trial.ts";
import { createMasker, createRecorder, type Masker } from "./recorder.ts";

const usualPort = 8090;

/**
 * Takes one connection through a definition file: the person's consent or another grant, lookups, introspection, a
 * refresh, and what to send to the API. Everything stays in this process and ends with it.
 * @throws CliError when a step failed; its text holds no secret
 */
export async function tryDefinition(
  session: Session,
  { file, builtinFolder, options }: { file: string; builtinFolder: string; options: TryOptions },
): Promise<void> {
  checkOptions(options);
  const definition = loadDefinition(session, file, builtinFolder);
  const grant = chooseGrant(definition, options);
  const masker = createMasker();
  const report = createReport(session.terminal, { json: session.output.json, masker });
  const recorder = createRecorder({ egress: openEgress(session, masker), masker, report });
  const opened = rulesOfGrant(grant).consent === "redirect" && !isPasted(options);
  const loopback = opened
    ? await openLoopback({ port: options.port ?? usualPort, id: definition.id, takesPost: takesPost(definition) })
    : null;
  try {
    const redirectUri = loopback?.redirectUri ?? options.redirectUri ?? manualRedirectUri(definition, options);
    const trial = await prepareTrial(
      { session, options, report, masker, recorder },
      { definition, grant, redirectUri },
    );
    report.step("definition", { file, id: definition.id, grant, redirect_uri: redirectUri }, [
      `= ${file} is right: ${definition.name} (${definition.id}), grant ${grant}`,
      ...(redirectUri === null ? [] : [`= redirect URI, to be registered at the provider: ${redirectUri}`]),
    ]);
    await walk(trial, loopback);
  } catch (error) {
    throw withoutSecrets(error, masker);
  } finally {
    loopback?.close();
  }
  const [first, ...more] = report.problems;
  if (first === undefined) return;
  throw new CliError(more.length === 0 ? first : `${first}, and ${more.length} more`, "try_failed");
}

function takesPost({ authorization }: ProviderDefinition): boolean {
  return authorization?.responseMode === "form_post";
}

/** Null: none is sent, and the provider uses the one it knows. */
function manualRedirectUri({ authorization, id }: ProviderDefinition, { manual }: TryOptions): string | null {
  if (manual && !authorization?.manualCode) throw new UsageError(`${id} shows no code to copy: leave out --manual`);
  return manual ? (authorization?.manualRedirectUri ?? null) : null;
}

async function walk(trial: Trial, loopback: Loopback | null): Promise<void> {
  const { session, recorder, options } = trial;
  const oauth = recorder.client("metadata", { open: true });
  const discovery = createDiscovery({ oauth, clock: { monotonicMs: session.nowMs } });
  trial.definition = await discovery.complete(trial.definition, valuesOf(trial));
  const answer = await firstToken(trial, loopback);
  if (answer.kind === "failed") {
    throw new CliError(`No token was granted: ${answer.failure.detail}`, "try_failed");
  }
  if (trial.grant !== "import") keepGrant(trial, answer.grant);
  await followUp(trial, { refreshes: options.refresh && trial.grant !== "import" });
}

async function firstToken(trial: Trial, loopback: Loopback | null): Promise<TokenAnswer> {
  const { grant, credentials } = trial;
  switch (grant) {
    case "authorization_code":
      return await tryAuthorizationCode(trial, loopback);
    case "device_code":
      return await tryDeviceCode(trial);
    case "import":
      return await refresh(trial);
    default:
      return await requestToken(trial, { heading: "token", grant, values: { credentials } });
  }
}

/** If this fails, the rest is still tried, above all the revocation. */
async function followUp(trial: Trial, { refreshes }: { refreshes: boolean }): Promise<void> {
  await attempt(trial, "the lookups", async () => await lookUpAccount(trial));
  await attempt(trial, "the introspection", async () => await introspect(trial));
  await attempt(trial, "the further tokens", async () => await exchangeFurtherTokens(trial));
  if (refreshes) await attempt(trial, "the refresh", async () => await refreshOnce(trial));
  const { accessToken } = trial.tokens;
  if (accessToken === undefined) trial.report.problem("no access token came at all");
  else await attempt(trial, "the API request", async () => describeApi(trial, accessToken));
  if (trial.options.refresh) await attempt(trial, "the dead tokens", async () => await presentDeadTokens(trial));
  if (trial.options.revoke) await attempt(trial, "the revocation", async () => await revoke(trial));
}

async function attempt({ report }: Trial, what: string, step: () => Promise<void>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error;
    report.problem(`${what}: ${error.message}`);
  }
}

function withoutSecrets(error: unknown, masker: Masker): unknown {
  if (error instanceof BrokerError) return new CliError(masker.text(error.message), "try_failed");
  if (!(error instanceof CliError) || error.exitCode === 2) return error;
  return new CliError(masker.text(error.message), error.code);
}

/** Whose account it is, by every lookup of the definition. The first that fails ends them, as at the broker. */
async function lookUpAccount(trial: Trial): Promise<void> {
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
  const { ok, body, detail } = await trial.recorder
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

/** Introspection: what the provider says of the token (RFC 7662). */
async function introspect(trial: Trial): Promise<void> {
  const { definition, report } = trial;
  const { introspection } = definition;
  if (introspection === null) return;
  const token = named(trial, introspection.token);
  if (token === null) return report.note(`introspection is left out: there is no ${introspection.token}`);
  const values = await valuesFor(trial, introspection);
  const request = buildIntrospectionRequest({ definition, token, values });
  if (request === null) return;
  const { ok, body, detail } = await trial.recorder.client("introspection").ask({ definition, request });
  if (!ok) return report.problem(`introspection failed: ${detail}`);
  const { active, expiry } = readIntrospection(introspection, body);
  report.step("read", { of: "introspection", active, expires: expiry }, [
    `= ${active ? "active" : "not active"}, ${describeExpiry(expiry)}`,
  ]);
  if (!active) report.problem("introspection says that a token is not active which has just been issued");
}

/** Further tokens that come by token exchange (RFC 8693). */
async function exchangeFurtherTokens(trial: Trial): Promise<void> {
  for (const { name, exchange } of trial.definition.furtherTokens) {
    if (exchange === null) continue;
    const definition = forFurtherToken(trial.definition, name);
    const { accessToken } = trial.tokens;
    const call = {
      heading: `further token ${name}`,
      grant: "token_exchange",
      values: { accessToken },
      definition,
    } as const;
    const answer = await requestToken(trial, call);
    if (answer.kind === "granted") trial.furtherTokens[name] = answer.grant;
    else trial.report.problem(`the further token ${name} was refused`);
  }
}

/** What a caller of the broker is told to send with an API request. */
function describeApi(trial: Trial, accessToken: string): void {
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
async function revoke(trial: Trial): Promise<void> {
  const { definition, report } = trial;
  const { revocation } = definition;
  if (revocation === null) return report.note("nothing is revoked: the definition has no revocation");
  for (const hint of ["refresh_token", "access_token"] as const) {
    const token = named(trial, hint);
    const values = await valuesFor(trial, revocation);
    const request = token && buildRevocationRequest({ definition, token, values });
    if (request === null) continue;
    const { ok, detail } = await trial.recorder.client(`revocation of the ${hint}`).ask({ definition, request });
    if (!ok) report.problem(`the revocation of the ${hint} failed: ${detail}`);
  }
}

function named({ tokens }: Trial, hint: NamedToken["hint"]): NamedToken | null {
  const value = hint === "access_token" ? tokens.accessToken : tokens.refreshToken;
  return value === undefined ? null : { hint, value };
}

/** One refresh of the set, and of each further token that has a refresh token of its own. Without a refresh token: a new set. */
async function refreshOnce(trial: Trial): Promise<void> {
  const { definition, report, grant } = trial;
  const { minAgeSeconds } = definition.refresh;
  if (minAgeSeconds > 0) {
    return report.note(
      `the refresh is left out: refresh.min_age_s says that none works before ${minAgeSeconds} s are over`,
    );
  }
  const answer = trial.tokens.refreshToken === undefined ? await fetchAgain(trial) : await refresh(trial);
  if (answer === null) {
    return report.note(`the refresh is left out: no refresh token came, and ${grant} gives none without a person`);
  }
  if (answer.kind === "failed") return report.problem("the refresh was refused");
  for (const name of Object.keys(trial.furtherTokens)) await refreshFurther(trial, name);
}

/** Refreshes by `tokens.refreshToken`. A granted set replaces `tokens`. */
async function refresh(trial: Trial): Promise<TokenAnswer> {
  const { refreshToken } = trial.tokens;
  const values = { refreshToken, redirectUri: trial.redirectUri ?? undefined };
  const answer = await requestToken(trial, { heading: "refresh", grant: "refresh_token", values });
  if (answer.kind === "failed") return answer;
  const { rotation } = trial.definition.refresh;
  const isNew = answer.grant.refreshToken !== undefined && answer.grant.refreshToken !== refreshToken;
  if (rotation === "always" && !isNew) trial.report.note("refresh.rotation says always, and no new refresh token came");
  if (rotation === "never" && isNew) trial.report.note("refresh.rotation says never, and a new refresh token came");
  keepGrant(trial, answer.grant);
  return answer;
}

/**
 * How this provider refuses a refresh token that is not, or no longer, valid. A broker that does not understand the refusal asks again and
 * again. This comes last, since sending a used token may end the whole grant.
 */
async function presentDeadTokens(trial: Trial): Promise<void> {
  const { definition, grant, report } = trial;
  if (definition.refreshes[grant] === undefined || trial.tokens.refreshToken === undefined) return;
  await presentDead(trial, "a junk refresh token", randomBytes(32).toString("base64url"));
  const { usedRefreshToken } = trial;
  if (usedRefreshToken !== undefined) return await presentDead(trial, "the used refresh token", usedRefreshToken);
  report.note("no used refresh token is presented: none has been replaced by a new one");
}

async function presentDead(trial: Trial, what: string, refreshToken: string): Promise<void> {
  const values = { refreshToken, redirectUri: trial.redirectUri ?? undefined };
  const answer = await requestToken(trial, { heading: what, grant: "refresh_token", values });
  if (answer.kind === "granted") {
    // It becomes the newest set, which is what gets revoked in the end.
    keepGrant(trial, answer.grant);
    return trial.report.note(`${what} was taken: nothing is to be seen of how this provider refuses one`);
  }
  const { class: kind, isUnexplained } = answer.failure;
  if (kind === "refused_for_good") return;
  const why = isUnexplained ? "nothing in the answer says that the grant is over" : `the answer is read as ${kind}`;
  trial.report.note(
    `${what} does not end a connection: ${why}. If this provider answers dead grants so, add a rule with means: needs_reauthorization under errors`,
  );
}

/** The request for a new set where no person is needed (RFC 6749, section 4.4.3); null: this grant type needs a person. */
async function fetchAgain(trial: Trial): Promise<TokenAnswer | null> {
  const { grant, credentials } = trial;
  if (grant === "import" || rulesOfGrant(grant).needsPerson) return null;
  const answer = await requestToken(trial, { heading: "new token", grant, values: { credentials } });
  if (answer.kind === "granted") keepGrant(trial, answer.grant);
  return answer;
}

async function refreshFurther(trial: Trial, name: string): Promise<void> {
  const refreshToken = trial.furtherTokens[name]?.refreshToken;
  if (refreshToken === undefined) return;
  const definition = forFurtherToken(trial.definition, name);
  const values = { refreshToken, redirectUri: trial.redirectUri ?? undefined };
  const call = { heading: `refresh of the further token ${name}`, grant: "refresh_token", values, definition } as const;
  const answer = await requestToken(trial, call);
  if (answer.kind === "failed") return trial.report.problem(`the refresh of the further token ${name} was refused`);
  trial.furtherTokens[name] = { ...trial.furtherTokens[name], ...answer.grant };
}
