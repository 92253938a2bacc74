import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { joinScopes } from "../../providers/format/requirements.ts";
import type { TemplateValues } from "../../providers/format/template.ts";
import {
  type AuthorizationRequest,
  buildAuthorizationUrl,
  buildPushedRequest,
  createNonce,
  createPkce,
  expectedIssuer,
  judgeIssuer,
  readCallback,
  readPushedAnswer,
} from "../../providers/oauth/authorization-request.ts";
import type { TokenAnswer } from "../../providers/oauth/token-answer.ts";
import { readDeviceAuthorization, readPollState } from "../../providers/oauth/side-requests.ts";
import { buildRequest } from "../../providers/oauth/token-request.ts";
import { cliTimes, consentTimes } from "../../time.ts";
import { CliError, errorCode, UsageError } from "../errors.ts";
import type { Session } from "../session.ts";
import { pairs } from "./reading.ts";
import { requestToken, type Trial, valuesFor, valuesOf } from "./trial.ts";

/** The authorization code grant, from the address to open to the exchange. `loopback` null: the person pastes what came back. */
export async function tryAuthorizationCode(trial: Trial, loopback: Loopback | null): Promise<TokenAnswer> {
  const { definition, redirectUri, options, masker, scopes } = trial;
  const pkce = createPkce({ definition, randomBytes });
  const state = randomBytes(32).toString("base64url");
  masker.learn([pkce?.verifier]);
  const values: TemplateValues = { ...valuesOf(trial), redirectUri: redirectUri ?? undefined };
  const nonce = createNonce({ definition, scopes, randomBytes });
  const url = await authorizationUrl(trial, { definition, values, state, nonce, codeChallenge: pkce, scopes });
  trial.report.plain("open", { url }, [`Open this address and allow the access:`, url]);
  const timeoutMs = (options.timeout ?? cliTimes.tryTimeoutSeconds) * 1000;
  const query = loopback === null ? await readPasted(trial, state) : await loopback.wait({ state, timeoutMs });
  const { code, captured } = readCode(trial, query, values);
  Object.assign(trial.tokens.captured, captured);
  const own = { redirectUri: redirectUri ?? undefined, code, codeVerifier: pkce?.verifier };
  return await requestToken(trial, { heading: "token", grant: "authorization_code", values: own });
}

async function authorizationUrl(trial: Trial, request: AuthorizationRequest): Promise<string> {
  const { definition, values } = request;
  const pushed = definition.authorization?.pushed;
  if (!pushed) return buildAuthorizationUrl(request);
  const { client } = await valuesFor(trial, pushed);
  const pushedRequest = buildPushedRequest({ ...request, values: { ...values, client } });
  const { ok, body, detail } = await trial.recorder.client("pushed authorization").ask({
    definition,
    request: pushedRequest,
  });
  if (!ok) throw new CliError(`The pushed authorization request was refused: ${detail}`, "try_failed");
  return readPushedAnswer({ definition, values, body });
}

/** The whole address with its state, or the code alone, which has none to check. */
async function readPasted({ definition, session }: Trial, state: string): Promise<Query> {
  const pasted = (await askFor(session, "Paste the whole address that the browser ended at, or the code")).trim();
  if (!/^[a-z][\w+.-]*:\/\//i.test(pasted)) {
    const isCode = /^[\x21-\x7e]{1,4096}$/.test(pasted);
    if (!isCode) throw new CliError("That is neither an address nor a code", "try_failed");
    return { [definition.authorization?.callback.code ?? "code"]: pasted };
  }
  const query = readQuery(URL.parse(pasted)?.searchParams ?? new URLSearchParams());
  if (query["state"] === state) return query;
  throw new CliError("The address has not the state of this request: it belongs to another one", "try_failed");
}

async function askFor({ terminal, output }: Session, question: string): Promise<string> {
  if (terminal.interactive) return await terminal.askHidden(`${question} (not shown): `);
  output.note(`${question}, on stdin.`);
  return await terminal.readLine();
}

/** Reads the callback as the broker does. @throws CliError if it has no code, or comes from another issuer */
function readCode(
  trial: Trial,
  query: Query,
  values: TemplateValues,
): { code: string; captured: Record<string, string> } {
  const { definition, client, masker } = trial;
  masker.learn([query[definition.authorization?.callback.code ?? "code"]].flat());
  const read = readCallback(definition, query, () => client?.secret ?? null);
  const whose = judgeIssuer(expectedIssuer(definition, values), read.iss);
  if (read.kind === "code" && whose === "ours") {
    const { code, captured } = read;
    tellCallback(trial, query, [
      `= code: ${code.length} characters`,
      ...(Object.keys(captured).length > 0 ? [`= captured: ${pairs(captured)}`] : []),
    ]);
    return { code, captured };
  }
  const error = read.kind === "error" ? read.error : whose === "unsaid" ? "issuer_missing" : "issuer_mismatch";
  tellCallback(trial, query, [`= refused: ${error}`]);
  const said = read.kind === "error" && read.description !== "" ? `: ${read.description}` : "";
  throw new CliError(`The callback was read as ${error}${said}`, "try_failed");
}

function tellCallback({ masker, report }: Trial, query: Query, read: string[]): void {
  const shown = Object.entries(query).map(([name, value]) => [name, masker.value(name, String(value))] as const);
  const lines = shown.map(([name, value]) => `< ${name}=${value}`);
  report.step("callback", { query: Object.fromEntries(shown), read: read.map((line) => line.slice(2)) }, [
    ...lines,
    ...read,
  ]);
}

/** The parameters that a browser brought back; one that came twice is a list, and counts as absent. */
type Query = Record<string, string | string[]>;

/** A listener for one callback, on this machine alone (RFC 8252, section 7.3). */
export type Loopback = {
  redirectUri: string;
  /** The first callback with the right state. @throws CliError when none has come in time */
  wait: (options: { state: string; timeoutMs: number }) => Promise<Query>;
  close: () => void;
};

const longestForm = 16 * 1024;

/**
 * Listens for `http://localhost:PORT/callback/ID`. Port 0: any that is free. `takesPost`: the answer may come as a form (OAuth 2.0
 * Form Post Response Mode). @throws UsageError when the port is taken
 */
export async function openLoopback({
  port,
  id,
  takesPost,
}: {
  port: number;
  id: string;
  takesPost: boolean;
}): Promise<Loopback> {
  const path = `/callback/${id}`;
  const came = Promise.withResolvers<Query>();
  let expected: string | null = null;
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const url = URL.parse(request.url ?? "", "http://localhost");
    const isPosted = takesPost && request.method === "POST";
    if ((request.method !== "GET" && !isPosted) || url?.pathname !== path) {
      return reply(response, 404, "There is nothing here.");
    }
    const params = isPosted ? await readForm(request) : url.searchParams;
    if (params === null) return reply(response, 413, "The answer is larger than 16 KiB.");
    const query = readQuery(params);
    if (expected === null || query["state"] !== expected) {
      return reply(response, 400, "This is not the answer that freshet waits for: its state is another one.");
    }
    reply(response, 200, "Freshet has the provider's answer: go on in the terminal. This page can be closed.");
    came.resolve(query);
  };
  const first = await listen("127.0.0.1", port, answer);
  const { port: taken } = first.address() as AddressInfo;
  // Browsers take either of localhost's addresses; not every machine has the second.
  const second = await listen("::1", taken, answer).catch(() => null);
  return {
    redirectUri: `http://localhost:${taken}${path}`,
    wait: async ({ state, timeoutMs }) => {
      expected = state;
      const deadline = AbortSignal.timeout(timeoutMs);
      deadline.addEventListener("abort", () => came.reject(notInTime(timeoutMs)), { once: true });
      return await came.promise;
    },
    close: () => {
      for (const server of [first, second]) if (server !== null) closeSoon(server);
    },
  };
}

/** Null: it is too large. */
async function readForm(request: IncomingMessage): Promise<URLSearchParams | null> {
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) {
    body += String(chunk);
    if (body.length > longestForm) return null;
  }
  return new URLSearchParams(body);
}

/** The parameters of a query. */
function readQuery(params: URLSearchParams): Query {
  const names = [...new Set(params.keys())];
  return Object.fromEntries(
    names.map((name) => {
      const values = params.getAll(name);
      return [name, values.length === 1 ? (values[0] ?? "") : values];
    }),
  );
}

async function listen(
  host: string,
  port: number,
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<Server> {
  // A browser that closes the connection in the middle of a form gets no answer.
  const server = createServer((request, response) => void answer(request, response).catch(() => response.destroy()));
  const { promise, resolve, reject } = Promise.withResolvers<Server>();
  server.once("error", (error) => {
    reject(new UsageError(`Port ${port} cannot be listened on (${errorCode(error)}): name another one with --port`));
  });
  server.listen({ host, port }, () => resolve(server));
  return await promise;
}

/** Waits a moment for answers that are being sent, then closes connections that a browser opened and never used. */
function closeSoon(server: Server): void {
  server.close();
  setTimeout(() => server.closeAllConnections(), cliTimes.tryLingerMs).unref();
}

function reply(response: ServerResponse, status: number, sentence: string): void {
  response.writeHead(status, {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    connection: "close",
  });
  response.end(`<!doctype html><html lang="en"><title>Freshet</title><p>${sentence}</p></html>\n`);
}

function notInTime(timeoutMs: number): CliError {
  return new CliError(`Nobody came back from the provider within ${timeoutMs / 1000} s`, "not_connected");
}

/** The device authorization grant: a code to type in at the provider, then polls until somebody has. */
export async function tryDeviceCode(trial: Trial): Promise<TokenAnswer> {
  const { definition, session, masker, report } = trial;
  const { device } = definition;
  if (device === null) throw new CliError("The definition has no device authorization endpoint", "try_failed");
  const values = { ...(await valuesFor(trial, device)), scope: joinScopes(definition, trial.scopes) };
  const request = buildRequest(device, values);
  const { ok, body, detail } = await trial.recorder.client("device authorization").ask({ definition, request });
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

/** The first answer that says "not yet" is printed in full, later ones are not. */
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
    if (state === "slow_down") intervalSeconds += consentTimes.deviceSlowDownSeconds;
  }
  throw new CliError("Nobody has typed the code in, in time", "not_connected");
}
