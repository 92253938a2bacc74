import { type TokenGrant } from "../../grant-types.ts";
import type { ConnectionGrant, ProviderDefinition, ProviderRequest } from "../../providers/format/definition.ts";
import { joinScopes } from "../../providers/format/requirements.ts";
import { capturedValues, type TemplateValues } from "../../providers/format/template.ts";
import type { Grant, TokenAnswer } from "../../providers/oauth/token-answer.ts";
import { buildTokenRequest, exchangeFor, withAssertion } from "../../providers/oauth/token-request.ts";
import { createOutput, type Output, printable, type Terminal } from "../output.ts";
import { type Resource, textOf } from "../resource.ts";
import type { Session } from "../session.ts";
import type { TryOptions } from "./prepare.ts";
import { readGrant, readRefusal } from "./reading.ts";
import type { Masker, ExchangeRecorder } from "./recorder.ts";

/** One run through a definition. Holds plain secrets, and stores them nowhere. */
export type Trial = {
  session: Session;
  options: TryOptions;
  report: Report;
  masker: Masker;
  recorder: ExchangeRecorder;
  definition: ProviderDefinition;
  grant: ConnectionGrant;
  /** Null for an import: no browser comes back. */
  redirectUri: string | null;
  scopes: readonly string[];
  client: { id: string; secret: string | undefined } | null;
  inputs: Readonly<Record<string, string>>;
  secretInputs: Readonly<Record<string, string>>;
  credentials: Readonly<Record<string, string>>;
  /** What has been granted so far; captured values of the callback and of all answers included. */
  tokens: { accessToken?: string; refreshToken?: string; captured: Record<string, string> };
  /** The refresh token before the newest one. */
  usedRefreshToken?: string;
  furtherTokens: Record<string, Grant>;
  /** Captured by lookups. */
  account: Record<string, string>;
};

/** The values for templates, without the one secret that a request spends. */
export function valuesOf(trial: Trial): TemplateValues {
  const { definition, client, inputs, secretInputs, tokens, account } = trial;
  const captured = capturedValues(definition, { captured: tokens.captured, account, inputs });
  return { client, inputs, secretInputs, ...captured };
}

/** The same with the access token and what authenticates the client for this request. */
export async function valuesFor(trial: Trial, request: ProviderRequest | null): Promise<TemplateValues> {
  const values = { ...valuesOf(trial), accessToken: trial.tokens.accessToken };
  if (request === null) return values;
  return await withAssertion(request, values, { definition: trial.definition, nowMs: trial.session.nowMs() });
}

/** One token request, printed with how its answer was read. `heading` names it; `definition`: as a further token sees it. */
export async function requestToken(
  trial: Trial,
  call: {
    heading: string;
    grant: TokenGrant;
    values: TemplateValues;
    definition?: ProviderDefinition;
  },
): Promise<TokenAnswer> {
  const { heading, grant, definition = trial.definition } = call;
  const wanted = { definition, grant, obtainedBy: trial.grant };
  const all = { ...valuesOf(trial), scope: joinScopes(definition, trial.scopes), ...call.values };
  const signed = { definition: trial.definition, nowMs: trial.session.nowMs() };
  const values = await withAssertion(exchangeFor(wanted), all, signed);
  const request = buildTokenRequest({ ...wanted, values });
  const oauth = trial.recorder.client(heading);
  const answer = await oauth.requestToken({ definition, request, mayStillSend: () => true });
  const read = { definition, response: trial.recorder.answer() };
  const spent = grant === "refresh_token" ? (call.values.refreshToken ?? null) : null;
  const { resource, lines } =
    answer.kind === "granted"
      ? readGrant(answer.grant, { ...read, scopes: definition === trial.definition ? trial.scopes : [], spent })
      : readRefusal(answer.failure, read);
  trial.report.step("read", { of: heading, ...resource }, lines);
  return answer;
}

/** Replaces the tokens by those of a grant. */
export function keepGrant(trial: Trial, grant: Grant): void {
  const { accessToken, refreshToken = trial.tokens.refreshToken, captured, furtherTokens } = grant;
  const before = trial.tokens.refreshToken;
  if (before !== undefined && before !== refreshToken) trial.usedRefreshToken = before;
  trial.tokens = {
    captured: { ...trial.tokens.captured, ...captured },
    ...(accessToken !== undefined && { accessToken }),
    ...(refreshToken !== undefined && { refreshToken }),
  };
  trial.furtherTokens = { ...trial.furtherTokens, ...furtherTokens };
}

/** Prints steps one after the other: a JSON document per line with `--json`, lines for people without. */
export type Report = {
  /** `lines` for people; `resource` for programs, whose `of` says which exchange it belongs to. Known secrets are masked in both once more. */
  step: (name: string, resource: Resource, lines: readonly string[]) => void;
  /** The same without masking, for what a person needs as it is, such as the address to open. */
  plain: (name: string, resource: Resource, lines: readonly string[]) => void;
  /** A remark on stderr. */
  note: (text: string) => void;
  /** A problem that does not end the run; printed at once. */
  problem: (text: string) => void;
  problems: readonly string[];
  /** Buffers what is printed from now on, until it is shown or dropped. */
  hold: () => { show: () => void; drop: () => void };
};

export function createReport(terminal: Terminal, options: { json: boolean; masker: Masker }): Report {
  const { json, masker } = options;
  const hidden = createOutput({ ...terminal, out: (text) => terminal.out(masker.text(text)) }, json);
  const open = createOutput(terminal, json);
  const problems: string[] = [];
  let held: (() => void)[] | null = null;

  const say = (output: Output, step: Resource, lines: readonly string[]) => {
    const heading = [textOf(step["of"]), textOf(step["step"])].join(" ").trim();
    const print = () => output.done(`${[heading, ...lines].map(printable).join("\n")}\n`, step);
    if (held) held.push(print);
    else print();
  };
  const note: Report["note"] = (text) => open.note(masker.text(text));

  return {
    step: (name, resource, lines) => say(hidden, { step: name, ...resource }, lines),
    plain: (name, resource, lines) => say(open, { step: name, ...resource }, lines),
    note,
    problems,
    problem: (text) => {
      problems.push(masker.text(text));
      say(hidden, { step: "problem", text }, [`! ${text}`]);
    },
    hold: () => {
      const kept: (() => void)[] = [];
      held = kept;
      return {
        show: () => {
          held = null;
          for (const print of kept) print();
        },
        drop: () => {
          held = null;
        },
      };
    },
  };
}
