import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { CliError, errorCode, UsageError } from "../errors.ts";

/** The parameters that a browser brought back; one that came twice is a list, and counts as absent. */
export type Query = Record<string, string | string[]>;

/** A listener for one callback, on this machine alone (RFC 8252, section 7.3). */
export type Loopback = {
  redirectUri: string;
  /** The first callback with the right state. @throws CliError when none has come in time */
  wait: (options: { state: string; timeoutMs: number }) => Promise<Query>;
  close: () => void;
};

const lingerMs = 1000;
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
export function readQuery(params: URLSearchParams): Query {
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
  // Who hangs up in the middle of a form is told nothing.
  const server = createServer((request, response) => void answer(request, response).catch(() => response.destroy()));
  const { promise, resolve, reject } = Promise.withResolvers<Server>();
  server.once("error", (error) => {
    reject(new UsageError(`Port ${port} cannot be listened on (${errorCode(error)}): name another one with --port`));
  });
  server.listen({ host, port }, () => resolve(server));
  return await promise;
}

/** Answers on their way get a moment; connections that a browser opened and never used would keep this process alive. */
function closeSoon(server: Server): void {
  server.close();
  setTimeout(() => server.closeAllConnections(), lingerMs).unref();
}

function reply(response: ServerResponse, status: number, sentence: string): void {
  response.writeHead(status, {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'",
    connection: "close",
  });
  response.end(`<!doctype html><html lang="en"><title>Freshet</title><p>${sentence}</p></html>\n`);
}

function notInTime(timeoutMs: number): CliError {
  return new CliError(`Nobody came back from the provider within ${timeoutMs / 1000} s`, "not_connected");
}
