import { parseAnswer } from "../../providers/answer-body.ts";
import type { TokenRequest } from "../../providers/assemble.ts";
import type { Egress } from "../../providers/egress.ts";
import type { Grant } from "../../providers/grant.ts";
import { createOAuthClient, sentHeaders, type OAuthClient } from "../../providers/oauth-client.ts";
import type { TokenResponse } from "../../providers/token-response.ts";
import type { Masker } from "./mask.ts";
import type { Report } from "./report.ts";

const mostCharacters = 4_000;

/** A client whose exchanges are told, without their secrets. */
export type Witness = {
  /** `purpose` heads what is told. `open`: the answer is the account's own data, or public, and names its secrets. */
  client: (purpose: string, options?: { open: boolean }) => OAuthClient;
  /** The newest answer as it came, secrets and all; null: none did. */
  answer: () => TokenResponse | null;
};

export function createWitness(parts: { egress: Egress; masker: Masker; report: Report }): Witness {
  const { egress, masker, report } = parts;
  let latest: TokenResponse | null = null;
  const oauth = createOAuthClient({
    egress,
    observe: (outcome) => void (latest = outcome.kind === "answered" ? outcome.response : null),
  });

  const tellRequest = (purpose: string, request: TokenRequest): void => {
    masker.learn(request.secrets);
    const { method } = request;
    const headers = masker.headers(sentHeaders(request));
    const url = masker.url(request.url);
    const body = maskRequestBody(masker, request);
    const tls = request.tls === undefined ? {} : { tls: "the client's certificate" };
    report.step("request", { of: purpose, method, url, headers, ...(body === null ? {} : { body }), ...tls }, [
      `> ${method} ${url}${request.tls === undefined ? "" : " (with the client's certificate)"}`,
      ...Object.entries(headers).map(([name, value]) => `> ${name}: ${value}`),
      ...(body === null ? [] : [">", `> ${body}`]),
    ]);
  };

  const tellAnswer = (purpose: string, given: { open: boolean; detail: string }): void => {
    if (latest === null) {
      return report.step("answer", { of: purpose, none: given.detail }, [`< none: ${given.detail}`]);
    }
    const { status, headers } = latest;
    const type = masker.words(headers["content-type"] ?? "without a content type");
    const body = maskAnswerBody(masker, latest, given.open);
    const text = typeof body === "string" ? body : JSON.stringify(body, null, 2);
    const shown = text.length > mostCharacters ? `${text.slice(0, mostCharacters)} …` : text;
    report.step("answer", { of: purpose, status, content_type: type, body: text === shown ? body : shown }, [
      `< ${status} ${type}`,
      ...shown.split("\n").map((line) => `< ${line}`),
    ]);
  };

  return {
    answer: () => latest,
    client: (purpose, { open } = { open: false }) => ({
      async requestToken(call) {
        tellRequest(purpose, call.request);
        const answer = await oauth.requestToken(call);
        if (answer.kind === "granted") masker.learn(tokensOf(answer.grant));
        tellAnswer(purpose, { open, detail: answer.kind === "failed" ? answer.failure.detail : "" });
        return answer;
      },
      async ask(call) {
        tellRequest(purpose, call.request);
        const asked = await oauth.ask(call);
        tellAnswer(purpose, { open, detail: asked.detail });
        return asked;
      },
    }),
  };
}

/** Every token of a grant, extra ones included. */
function tokensOf({ accessToken, refreshToken, extras = {} }: Grant): string[] {
  const own = [accessToken, refreshToken].filter((token) => token !== undefined);
  return [...own, ...Object.values(extras).flatMap(tokensOf)];
}

function maskRequestBody(masker: Masker, { body, headers }: TokenRequest): string | null {
  if (body === undefined) return null;
  if (headers["content-type"] !== "application/json") return masker.pairs(new URLSearchParams(body));
  const fields = Object.entries(JSON.parse(body) as Record<string, string>);
  return JSON.stringify(Object.fromEntries(fields.map(([name, value]) => [name, masker.value(name, value)])));
}

/** What cannot be read as fields is not shown: nobody can tell where its secrets are. */
function maskAnswerBody(masker: Masker, response: TokenResponse, open: boolean): unknown {
  const body = parseAnswer(response, "auto");
  return body === null
    ? `(${response.body.length} bytes that are neither JSON nor a form; they are not shown, since they may hold tokens)`
    : masker.answer(body, !open);
}
