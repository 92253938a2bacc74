import type { Egress } from "../../providers/http/egress.ts";
import { type HttpRequest, type HttpResponse, sentHeaders } from "../../providers/http/exchange.ts";
import { parseAnswer } from "../../providers/oauth/answer-body.ts";
import type { Grant } from "../../providers/oauth/token-answer.ts";
import { createOAuthClient, type OAuthClient } from "../../providers/oauth/oauth-client.ts";
import { scrub } from "../../providers/oauth/scrub.ts";
import { isResource } from "../resource.ts";
import type { Report } from "./trial.ts";

const mostCharacters = 4_000;

/** An OAuth client that prints its exchanges, without their secrets. */
export type ExchangeRecorder = {
  /** `purpose` is the heading. `open`: the answer is the account's own data, or public, and its fields say which values are secrets. */
  client: (purpose: string, options?: { open: boolean }) => OAuthClient;
  /** The newest answer as it came, with its secrets; null: none came. */
  answer: () => HttpResponse | null;
};

export function createRecorder(parts: { egress: Egress; masker: Masker; report: Report }): ExchangeRecorder {
  const { egress, masker, report } = parts;
  let latest: HttpResponse | null = null;
  const oauth = createOAuthClient({
    egress,
    observe: (outcome) => void (latest = outcome.kind === "answered" ? outcome.response : null),
  });

  const tellRequest = (purpose: string, request: HttpRequest): void => {
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

/** Every token of a grant, further tokens included. */
function tokensOf({ accessToken, refreshToken, furtherTokens = {} }: Grant): string[] {
  const own = [accessToken, refreshToken].filter((token) => token !== undefined);
  return [...own, ...Object.values(furtherTokens).flatMap(tokensOf)];
}

function maskRequestBody(masker: Masker, { body, headers }: HttpRequest): string | null {
  if (body === undefined) return null;
  if (headers["content-type"] !== "application/json") return masker.pairs(new URLSearchParams(body));
  const fields = Object.entries(JSON.parse(body) as Record<string, string>);
  return JSON.stringify(Object.fromEntries(fields.map(([name, value]) => [name, masker.value(name, value)])));
}

/** A body that has no fields is not shown: its secrets could be anywhere. */
function maskAnswerBody(masker: Masker, response: HttpResponse, open: boolean): unknown {
  const body = parseAnswer(response, "auto");
  return body === null
    ? `(${response.body.length} bytes that are neither JSON nor a form; they are not shown, since they may hold tokens)`
    : masker.answer(body, !open);
}

/** What stands where a secret was. */
const mask = "••••";

/** A shorter secret is masked only where it is the whole value. Inside of texts it would match parts of words. */
const shortestInText = 6;
const deepest = 8;

/** Hides every known secret, and every value that is called like a secret or looks like one. */
export type Masker = {
  learn: (secrets: readonly unknown[]) => void;
  /** A text without the known secrets, also as they are written in a URL, a form or JSON. */
  text: (text: string) => string;
  /** The value of a field, header or parameter. */
  value: (name: string, value: string) => string;
  headers: (headers: Readonly<Record<string, string>>) => Record<string, string>;
  /** The values of a query or a form. */
  pairs: (pairs: Iterable<[string, string]>) => string;
  url: (text: string) => string;
  /** A provider's answer, as JSON or form. `strict`: texts are hidden, since they may be tokens, except in fields that people have to read. */
  answer: (body: unknown, strict: boolean) => unknown;
  /** A provider's words. Everything that looks like a token is hidden. */
  words: (text: string) => string;
};

export function createMasker(): Masker {
  const known = new Set<string>();
  let spelt: string[] = [];

  const learn: Masker["learn"] = (secrets) => {
    for (const secret of secrets) if (typeof secret === "string" && secret !== "") known.add(secret);
    const inTexts = [...known].filter((secret) => secret.length >= shortestInText);
    spelt = [...new Set(inTexts.flatMap(spellings))].sort((a, b) => b.length - a.length);
  };

  const text: Masker["text"] = (given) => spelt.reduce((rest, secret) => rest.replaceAll(secret, mask), given);

  const value: Masker["value"] = (name, given) => (isSecretName(name) || known.has(given) ? mask : text(given));

  const pairs: Masker["pairs"] = (given) => {
    const written = Array.from(given, ([name, raw]) => {
      const shown = value(name, raw);
      return `${encode(name)}=${shown.split(mask).map(encode).join(mask)}`;
    });
    return written.join("&");
  };

  const words: Masker["words"] = (given) => scrub(given, [...known]).replaceAll("[…]", mask);

  const answer = (body: unknown, strict: boolean, at = { name: "", depth: 0 }): unknown => {
    if (typeof body === "string") {
      if (isSecretName(at.name) || known.has(body)) return body === "" ? body : mask;
      if (looksSecret(body) || (strict && !isHarmless(at.name))) return body === "" ? body : mask;
      return strict ? words(body) : text(body);
    }
    if (at.depth > deepest) return mask;
    const below = (name: string, inner: unknown) => answer(inner, strict, { name, depth: at.depth + 1 });
    if (Array.isArray(body)) return body.map((inner) => below(at.name, inner));
    if (!isResource(body)) return body;
    const shown = (name: string) => (strict && !/^[\w.-]{1,40}$/.test(name) ? mask : words(name));
    return Object.fromEntries(Object.entries(body).map(([name, inner]) => [shown(name), below(name, inner)]));
  };

  return {
    learn,
    text,
    value,
    pairs,
    answer(body, strict) {
      if (strict) learn(secretsIn(body, { name: "", depth: 0 }));
      return answer(body, strict);
    },
    words,
    headers: (headers) =>
      Object.fromEntries(
        Object.entries(headers).map(([name, given]) => [name, headerValue(name, given) ?? value(name, given)]),
      ),
    url: (given) => {
      const url = URL.parse(given);
      if (url === null) return text(given);
      const query = pairs(url.searchParams);
      return `${text(`${url.origin}${url.pathname}`)}${query === "" ? "" : `?${query}`}`;
    },
  };
}

/** Of `Authorization` and similar headers only the scheme is shown. */
function headerValue(name: string, value: string): string | null {
  if (/cookie|key$/i.test(name)) return mask;
  if (!/authorization/i.test(name)) return null;
  const scheme = /^([\w-]+) \S/.exec(value)?.[1];
  return scheme === undefined ? mask : `${scheme} ${mask}`;
}

/** Fields that hold a secret. Fields about a secret do not count, such as `token_type` and `refresh_token_expires_in`. */
function isSecretName(name: string): boolean {
  return (
    /token|secret|passw|assertion|verifier|device_code|^hmac$/i.test(name) &&
    !/type|expir|life|endpoint|hint|supported|ur[il]$|_(at|in)$/i.test(name)
  );
}

/** The values that an answer itself calls secrets. They may stand in its other texts, too. */
function secretsIn(body: unknown, at: { name: string; depth: number }): string[] {
  if (typeof body === "string") return isSecretName(at.name) ? [body] : [];
  if (typeof body !== "object" || body === null || at.depth > deepest) return [];
  return Object.entries(body).flatMap(([name, inner]) =>
    secretsIn(inner, { name: Array.isArray(body) ? at.name : name, depth: at.depth + 1 }),
  );
}

/** Fields whose values people have to read, however long they are. */
function isHarmless(name: string): boolean {
  return /scope|^error|description|message|title|detail|status|code$|ur[il]$|(grant|token)_type|expir|_(at|in)$/i.test(
    name,
  );
}

function looksSecret(value: string): boolean {
  return /^eyJ[\w-]+\.[\w-]+\./.test(value);
}

function spellings(secret: string): string[] {
  return [
    secret,
    JSON.stringify(secret).slice(1, -1),
    encode(secret),
    new URLSearchParams({ v: secret }).toString().slice(2),
  ];
}

function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}
