import { CliError, UsageError } from "./errors.ts";
import type { Resource } from "./output.ts";
import type { Settings } from "./settings.ts";

const answerTimeoutMs = 60_000;

export type Query = Record<string, string | number | boolean | undefined>;
export type Page = { items: Resource[]; next_cursor: string | null };

/** The broker's HTTP API. Every call throws CliError with the broker's own detail and code. */
export type ApiClient = {
  get: (path: string, query?: Query) => Promise<Resource>;
  post: (path: string, body: Resource) => Promise<Resource>;
  delete: (path: string, query?: Query) => Promise<void>;
};

/** A client for the broker that the settings name. @throws UsageError when there is no key. */
export function createApiClient(settings: Settings): ApiClient {
  const key = settings.readKey();
  const call = (path: string, init: RequestInit & { query?: Query }) =>
    send(settings.brokerUrl, path, { ...init, headers: { ...init.headers, authorization: `Bearer ${key}` } });
  const json = { "content-type": "application/json" };
  return {
    get: (path, query = {}) => call(path, { query }),
    post: (path, body) => call(path, { method: "POST", headers: json, body: JSON.stringify(body) }),
    delete: async (path, query = {}) => void (await call(path, { method: "DELETE", query })),
  };
}

/** All items of a list, page by page. */
export async function collectItems(api: ApiClient, path: string, filters: Query = {}): Promise<Page> {
  const items: Resource[] = [];
  let cursor: string | undefined;
  do {
    const page = (await api.get(path, { ...filters, cursor })) as Page;
    items.push(...page.items);
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined);
  return { items, next_cursor: null };
}

/** One segment of a path. @throws UsageError for what a URL would drop, so that nothing else is ever addressed. */
export function segment(name: string): string {
  if (/^\.{0,2}$/.test(name)) throw new UsageError(`"${name}" is not a name`);
  return encodeURIComponent(name);
}

async function send(brokerUrl: string, path: string, init: RequestInit & { query?: Query }): Promise<Resource> {
  const { query = {}, ...request } = init;
  const given = Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as const]));
  const search = given.length === 0 ? "" : `?${new URLSearchParams(Object.fromEntries(given))}`;
  // Redirects are not followed: the key goes to the address that the person named.
  const options = { ...request, redirect: "manual", signal: AbortSignal.timeout(answerTimeoutMs) } as const;
  try {
    const response = await fetch(`${brokerUrl}${path}${search}`, options);
    return readAnswer(response.status, await response.text(), brokerUrl);
  } catch (error) {
    throw error instanceof CliError ? error : explainSilence(error, brokerUrl);
  }
}

function readAnswer(status: number, body: string, brokerUrl: string): Resource {
  if (status === 204) return {};
  const answer = parseObject(body);
  if (answer !== null && status >= 200 && status < 300) return answer;
  if (answer !== null && typeof answer["code"] === "string") {
    throw new CliError(String(answer["detail"] ?? answer["title"] ?? `Status ${status}`), answer["code"]);
  }
  throw new CliError(
    `${brokerUrl} answered ${status}, but not as a broker does: is FRESHET_URL right, and is a proxy in between?`,
    "unexpected_answer",
  );
}

function parseObject(text: string): Resource | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Resource) : null;
  } catch {
    return null;
  }
}

/** The cause's code is enough for a person; its message may hold more than that. */
function explainSilence(error: unknown, brokerUrl: string): CliError {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new CliError(`${brokerUrl} did not answer within ${answerTimeoutMs / 1000} s`, "timeout");
  }
  const reason = causeCode(error) ?? "connection failed";
  return new CliError(
    `No broker answers at ${brokerUrl} (${reason}): start it with "npm start" or "docker compose up", or set FRESHET_URL to where it runs`,
    "broker_unreachable",
  );
}

function causeCode(error: unknown): string | undefined {
  const cause = (error as { cause?: { code?: unknown } }).cause;
  return typeof cause?.code === "string" ? cause.code : undefined;
}
