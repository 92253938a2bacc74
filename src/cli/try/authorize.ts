import { randomBytes } from "node:crypto";
import {
  buildAuthorizationUrl,
  createNonce,
  createPkce,
  readCallback,
  type AuthorizationRequest,
} from "../../providers/authorization-request.ts";
import type { TokenAnswer } from "../../providers/grant.ts";
import { expectedIssuer, judgeIssuer } from "../../providers/issuer.ts";
import { buildPushedRequest, readPushedAnswer } from "../../providers/pushed-request.ts";
import type { TemplateValues } from "../../providers/template.ts";
import { CliError } from "../errors.ts";
import type { Session } from "../session.ts";
import { type Loopback, type Query, readQuery } from "./loopback.ts";
import { pairs } from "./reading.ts";
import { requestToken, valuesFor, valuesOf, type Trial } from "./trial.ts";

const usualTimeoutSeconds = 600;

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
  const timeoutMs = (options.timeout ?? usualTimeoutSeconds) * 1000;
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
  const { ok, body, detail } = await trial.witness.client("pushed authorization").ask({
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

/** Reads what came back, as the broker does. @throws CliError when it is no code, or another issuer's */
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
