import { didYouMean } from "../text.ts";
import { cliTimes } from "../time.ts";
import { CliError, errorCode, UsageError } from "./errors.ts";
import { linesIn } from "./lines.ts";
import { parseResource, type Resource, resourcesIn, textOf } from "./resource.ts";
import type { Settings } from "./settings.ts";

export type Query = Record<string, string | number | boolean | undefined>;
export type Page = { items: Resource[]; next_cursor: null };

type Call = { method?: string; query?: Query; body?: Resource };

/** The broker's HTTP API. Every call throws CliError with the broker's own detail and code. */
export type ApiClient = {
  get: (path: string, query?: Query) => Promise<Resource>;
  post: (path: string, body: Resource) => Promise<Resource>;
  patch: (path: string, body: Resource) => Promise<Resource>;
  /** The lines of an answer that may take long and be long, as they come. */
  lines: (path: string, call?: Call) => AsyncGenerator<string>;
  /** Returns the replicas that have not confirmed that they know of it; empty if all have. */
  delete: (path: string, query?: Query) => Promise<string>;
};

/** A client for the broker that the settings name. @throws UsageError when there is no key. */
export function createApiClient(settings: Settings): ApiClient {
  const key = settings.readKey();
  const plain = async (path: string, request: Call) => {
    try {
      return await send(settings.brokerUrl, path, { ...request, key });
    } catch (error) {
      if (!(error instanceof CliError) || error.code !== "unauthenticated") throw error;
      throw new CliError(`${error.message} The key was taken from ${settings.keyPlace()}.`, error.code);
    }
  };
  const names = { get: async (path: string, query: Query = {}) => (await plain(path, { query })).body };
  const sendNamed = async (path: string, request: Call) => {
    try {
      return await plain(path, request);
    } catch (error) {
      throw await suggestFor(names, path, error);
    }
  };
  const call = async (path: string, request: Call) => (await sendNamed(path, request)).body;
  return {
    get: (path, query = {}) => call(path, { query }),
    post: (path, body) => call(path, { method: "POST", body }),
    patch: (path, body) => call(path, { method: "PATCH", body }),
    lines: (path, request = {}) => receiveLines(settings.brokerUrl, path, { ...request, key }),
    async delete(path, query = {}) {
      const { headers } = await sendNamed(path, { method: "DELETE", query });
      return headers.get("freshet-unconfirmed") ?? "";
    },
  };
}

/** All items of a list, page by page. */
export async function collectItems(api: ApiClient, path: string, filters: Query = {}): Promise<Page> {
  const items: Resource[] = [];
  let cursor: string | undefined;
  do {
    const page = await api.get(path, { ...filters, cursor });
    items.push(...resourcesIn(page["items"]));
    cursor = textOf(page["next_cursor"]) || undefined;
  } while (cursor !== undefined);
  return { items, next_cursor: null };
}

/** One segment of a path. @throws UsageError for a segment that a URL would drop, since the request would then address something else. */
export function segment(name: string): string {
  if (/^\.{0,2}$/.test(name)) throw new UsageError(`"${name}" is not a name`);
  return encodeURIComponent(name);
}

/** The lists whose names a mistyped name in a path may be meant for. */
const lists: Readonly<Record<string, string>> = {
  tokens: "/connections",
  connections: "/connections",
  clients: "/clients",
};

/** An unknown connection or client: the failure, with the name that may have been meant. */
async function suggestFor(api: Pick<ApiClient, "get">, path: string, failure: unknown): Promise<unknown> {
  const isUnknown = failure instanceof CliError && /^(connection_)?not_found$/.test(failure.code);
  const [, root = "", name = ""] = /^\/(\w+)\/([^/]+)/.exec(path) ?? [];
  const list = lists[root];
  if (!isUnknown || list === undefined) return failure;
  return await withSuggestion(api, failure, { name: decodeURIComponent(name), path: list });
}

async function send(
  brokerUrl: string,
  path: string,
  call: Call & { key: string },
): Promise<{ body: Resource; headers: Headers }> {
  try {
    const response = await ask(brokerUrl, path, { ...call, signal: AbortSignal.timeout(cliTimes.answerMs) });
    return { body: readAnswer(response.status, await response.text(), brokerUrl), headers: response.headers };
  } catch (error) {
    throw error instanceof CliError ? error : explainSilence(error, brokerUrl);
  }
}

async function ask(
  brokerUrl: string,
  path: string,
  { method = "GET", query = {}, body, key, signal }: Call & { key: string; signal: AbortSignal },
): Promise<Response> {
  return await fetch(`${brokerUrl}${path}${formatQuery(query)}`, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body && { "content-type": "application/json" }) },
    ...(body && { body: JSON.stringify(body) }),
    // Redirects are not followed: the key goes only to the address that the person named.
    redirect: "manual",
    signal,
  });
}

/** @throws CliError also for an answer that breaks off, and for one in which nothing comes for as long as other answers may take */
async function* receiveLines(brokerUrl: string, path: string, call: Call & { key: string }): AsyncGenerator<string> {
  const silence = new AbortController();
  const state = { hasBegun: false, isWaiting: true };
  // Whoever takes the lines may take their time.
  const expire = () => (state.isWaiting ? silence.abort() : timer.refresh());
  const timer = setTimeout(expire, cliTimes.answerMs);
  try {
    const response = await ask(brokerUrl, path, { ...call, signal: silence.signal });
    if (!response.ok) readAnswer(response.status, await response.text(), brokerUrl);
    state.hasBegun = true;
    for await (const line of linesIn(response.body?.pipeThrough(new TextDecoderStream()) ?? [])) {
      state.isWaiting = false;
      yield line;
      state.isWaiting = true;
      timer.refresh();
    }
  } catch (error) {
    if (error instanceof CliError) throw error;
    if (silence.signal.aborted) throw explainSilence(new DOMException("", "TimeoutError"), brokerUrl);
    if (!state.hasBegun) throw explainSilence(error, brokerUrl);
    throw new CliError(`The answer of ${brokerUrl} broke off: it is not complete`, "incomplete_answer");
  } finally {
    clearTimeout(timer);
  }
}

function formatQuery(query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  if (given.length === 0) return "";
  return `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)] as [string, string])).toString()}`;
}

function readAnswer(status: number, body: string, brokerUrl: string): Resource {
  if (status === 204) return {};
  const answer = parseResource(body);
  if (answer !== null && status >= 200 && status < 300) return answer;
  if (answer !== null && typeof answer["code"] === "string") {
    throw new CliError(textOf(answer["detail"]) || `The broker answered ${status}`, answer["code"]);
  }
  throw new CliError(
    `${brokerUrl} answered ${status}, but not as a broker does: is FRESHET_URL right, and is a proxy in between?`,
    "unexpected_answer",
  );
}

function explainSilence(error: unknown, brokerUrl: string): CliError {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new CliError(`${brokerUrl} did not answer within ${cliTimes.answerMs / 1000} s`, "timeout");
  }
  const reason = errorCode(error instanceof Error ? error.cause : undefined);
  const remedy = 'start it with "npm start" or "docker compose up", or set FRESHET_URL to where it runs';
  return new CliError(`No broker answers at ${brokerUrl} (${reason}): ${remedy}`, "broker_unreachable");
}

/** The largest page of a list. */
const mostNames = 200;

/**
 * The same failure, with the name that may have been meant. Only names that the key itself can list are compared, so the key learns nothing
 * new. If it can list none, or `name` is among them, the failure stays as it is.
 */
export async function withSuggestion(
  api: Pick<ApiClient, "get">,
  failure: unknown,
  { name, path }: { name: string; path: string },
): Promise<unknown> {
  if (!(failure instanceof CliError) || failure.exitCode !== 1 || name === "") return failure;
  const names = await namesAt(api, path);
  if (names.includes(name)) return failure;
  const advice = didYouMean(name, names);
  return advice === "" ? failure : new CliError(`${failure.message}${advice}`, failure.code);
}

async function namesAt(api: Pick<ApiClient, "get">, path: string): Promise<string[]> {
  try {
    const { items } = await api.get(path, { limit: mostNames });
    return resourcesIn(items).map((item) => textOf(item["name"]));
  } catch (error) {
    if (error instanceof CliError) return []; // only the first failure is reported
    throw error;
  }
}
