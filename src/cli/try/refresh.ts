import { randomBytes } from "node:crypto";
import { forChain } from "../../providers/definition.ts";
import type { TokenAnswer } from "../../providers/grant.ts";
import { keepGrant, requestToken, type Trial } from "./trial.ts";

/** One refresh of the set, and of each extra token that has a refresh token of its own; or a new set where there is no other way. */
export async function refreshOnce(trial: Trial): Promise<void> {
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
  for (const name of Object.keys(trial.extras)) await refreshExtra(trial, name);
}

/** The refresh of what `tokens.refreshToken` holds; a granted set takes its place. */
export async function refresh(trial: Trial): Promise<TokenAnswer> {
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
 * How this provider refuses what is no refresh token of its own any more: a broker that does not understand it asks on and on. Last of
 * all, since a used one may end the whole grant.
 */
export async function presentDeadTokens(trial: Trial): Promise<void> {
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
    // What is given back afterwards is the newest.
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

/** Grants that need no person are asked for anew (RFC 6749, section 4.4.3); null: this one needs one. */
async function fetchAgain(trial: Trial): Promise<TokenAnswer | null> {
  const { grant, credentials } = trial;
  if (grant !== "client_credentials" && grant !== "password") return null;
  const answer = await requestToken(trial, { heading: "new token", grant, values: { credentials } });
  if (answer.kind === "granted") keepGrant(trial, answer.grant);
  return answer;
}

async function refreshExtra(trial: Trial, name: string): Promise<void> {
  const refreshToken = trial.extras[name]?.refreshToken;
  if (refreshToken === undefined) return;
  const definition = forChain(trial.definition, name);
  const values = { refreshToken, redirectUri: trial.redirectUri ?? undefined };
  const call = { heading: `refresh of the extra token ${name}`, grant: "refresh_token", values, definition } as const;
  const answer = await requestToken(trial, call);
  if (answer.kind === "failed") return trial.report.problem(`the refresh of the extra token ${name} was refused`);
  trial.extras[name] = { ...trial.extras[name], ...answer.grant };
}
