import { BrokerError } from "../../errors.ts";
import type { ProviderDefinition } from "../../providers/definition.ts";
import { createDiscovery } from "../../providers/discovery.ts";
import type { TokenAnswer } from "../../providers/grant.ts";
import { CliError, UsageError } from "../errors.ts";
import type { Session } from "../session.ts";
import { tryAuthorizationCode } from "./authorize.ts";
import { tryDeviceCode } from "./device.ts";
import { describeApi, exchangeExtraTokens, introspect, lookUpAccount, revoke } from "./follow-up.ts";
import { type Loopback, openLoopback } from "./loopback.ts";
import { createMasker, type Masker } from "./mask.ts";
import { checkOptions, isPasted, type TryOptions } from "./options.ts";
import { chooseGrant, loadDefinition, openEgress, prepareTrial } from "./prepare.ts";
import { presentDeadTokens, refresh, refreshOnce } from "./refresh.ts";
import { createReport } from "./report.ts";
import { keepGrant, requestToken, valuesOf, type Trial } from "./trial.ts";
import { createWitness } from "./witness.ts";

const usualPort = 8090;

/**
 * Walks one connection through a definition file: the person's consent or another grant, lookups, introspection, a
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
  const witness = createWitness({ egress: openEgress(session, masker), masker, report });
  const opened = grant === "authorization_code" && !isPasted(options);
  const loopback = opened
    ? await openLoopback({ port: options.port ?? usualPort, id: definition.id, takesPost: takesPost(definition) })
    : null;
  try {
    const redirectUri = loopback?.redirectUri ?? options.redirectUri ?? manualRedirectUri(definition, options);
    const trial = await prepareTrial({ session, options, report, masker, witness }, { definition, grant, redirectUri });
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
  const { session, witness, options } = trial;
  const oauth = witness.client("metadata", { open: true });
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

/** What fails here does not keep the rest from being tried, least of all the revocation. */
async function followUp(trial: Trial, { refreshes }: { refreshes: boolean }): Promise<void> {
  await attempt(trial, "the lookups", async () => await lookUpAccount(trial));
  await attempt(trial, "the introspection", async () => await introspect(trial));
  await attempt(trial, "the extra tokens", async () => await exchangeExtraTokens(trial));
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
