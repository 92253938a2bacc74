import { readDeviceAuthorization, readPollState } from "../../providers/device-authorization.ts";
import type { TokenAnswer } from "../../providers/grant.ts";
import { joinScopes } from "../../providers/scopes.ts";
import { sideRequest } from "../../providers/side-requests.ts";
import { CliError } from "../errors.ts";
import { requestToken, valuesFor, type Trial } from "./trial.ts";

/** RFC 8628, section 3.5. */
const slowDownSeconds = 5;

/** The device authorization grant: a code to type in at the provider, then polls until somebody has. */
export async function tryDeviceCode(trial: Trial): Promise<TokenAnswer> {
  const { definition, session, masker, report } = trial;
  const { device } = definition;
  if (device === null) throw new CliError("The definition has no device authorization endpoint", "try_failed");
  const values = { ...(await valuesFor(trial, device)), scope: joinScopes(definition, trial.scopes) };
  const request = sideRequest(device, values);
  const { ok, body, detail } = await trial.witness.client("device authorization").ask({ definition, request });
  const read = ok ? readDeviceAuthorization(body) : null;
  if (read === null) {
    const why = ok ? "its answer holds no user code" : detail;
    throw new CliError(`The provider gives no user code: ${why}`, "try_failed");
  }
  masker.learn([read.deviceCode]);
  const { userCode, verificationUri, verificationUriComplete, expiresInSeconds, intervalSeconds } = read;
  const shown = { user_code: userCode, verification_uri: verificationUri };
  const times = { expires_in: expiresInSeconds, interval: intervalSeconds };
  report.plain("open", { ...shown, verification_uri_complete: verificationUriComplete, ...times }, [
    `Open ${verificationUri} and type in the code ${userCode}`,
    ...(verificationUriComplete === null ? [] : [`or open ${verificationUriComplete}`]),
    `= works for ${expiresInSeconds} s, asked about every ${intervalSeconds} s`,
  ]);
  const timeoutSeconds = trial.options.timeout ?? expiresInSeconds;
  const deadlineMs = session.nowMs() + Math.min(timeoutSeconds, expiresInSeconds) * 1000;
  return await poll(trial, { deviceCode: read.deviceCode, intervalSeconds, deadlineMs });
}

/** The first answer that says "not yet" is told in full, those that follow are not. */
async function poll(
  trial: Trial,
  given: { deviceCode: string; intervalSeconds: number; deadlineMs: number },
): Promise<TokenAnswer> {
  const { session, report, definition } = trial;
  const { deviceCode, deadlineMs } = given;
  let { intervalSeconds } = given;
  for (let polls = 0; session.nowMs() < deadlineMs; polls++) {
    await session.sleep(intervalSeconds * 1000);
    const held = report.hold();
    const answer = await requestToken(trial, { heading: "token", grant: "device_code", values: { deviceCode } });
    const state = answer.kind === "failed" ? readPollState(definition, answer.failure.oauthError) : null;
    const isWaiting = state === "authorization_pending" || state === "slow_down";
    if (isWaiting && polls > 0) held.drop();
    else held.show();
    if (!isWaiting) return answer;
    if (state === "slow_down") intervalSeconds += slowDownSeconds;
  }
  throw new CliError("Nobody has typed the code in, in time", "not_connected");
}
