import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";

type SeenRequest = { method: string; path: string; query: Record<string, string>; key: string; body: unknown };
type Answer = { status?: number; body?: unknown; raw?: string; headers?: Record<string, string> };

/** The answers of one route: the nth call gets the nth answer, and all later calls get the last one. */
type Routes = Record<string, Answer | Answer[]>;

/** A server that gives the answers that a test prepares, in the shapes of docs/api.md, and remembers the requests. */
export async function startStubBroker(routes: Routes) {
  const requests: SeenRequest[] = [];
  const calls = new Map<string, number>();
  const server = createServer((request, response) => void reply(request, response));
  const reply = async (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? "/", "http://stub");
    const sent = await text(request);
    const route = `${request.method} ${url.pathname}`;
    requests.push({
      method: request.method ?? "",
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      key: request.headers.authorization ?? "",
      body: sent === "" ? undefined : JSON.parse(sent),
    });
    const { status, body, raw, headers } = pick(routes[route], calls, route);
    response.writeHead(status, {
      "content-type": status < 400 ? "application/json" : "application/problem+json",
      ...headers,
    });
    response.end(raw ?? (body === undefined ? undefined : JSON.stringify(body)));
  };
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    /** The bodies that were sent to one route, in order. */
    sentTo: (route: string) =>
      requests.flatMap(({ method, path, body }) => (`${method} ${path}` === route ? [body] : [])),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => void server.close(resolve));
    },
  };
}

type ProviderFacts = {
  grants?: string[];
  needs?: Record<string, Record<string, unknown>>;
  inputs?: Record<string, unknown>;
  register?: string;
};

/** A provider as `GET /providers/:provider` shows it. `needs`: what differs from a client with a secret and nothing else. */
export function providerOf(id: string, facts: ProviderFacts = {}): Answer {
  const { grants = ["authorization_code"], needs = {}, inputs = {}, register } = facts;
  const usual = { client: true, client_secret: true, client_inputs: [], inputs: [], credentials: [] };
  return {
    body: {
      id,
      name: id,
      grants,
      default_grant: grants[0],
      needs: Object.fromEntries(grants.map((grant) => [grant, { ...usual, ...needs[grant] }])),
      redirect_uri: `https://broker.example/callback/${id}`,
      definition: { inputs, ...(register && { guide: { register } }) },
    },
  };
}

/** A problem (RFC 9457), as the broker sends it. */
export function problem(status: number, code: string, detail: string): Answer {
  return { status, body: { type: "about:blank", title: code, status, code, detail } };
}

function pick(answers: Answer | Answer[] | undefined, calls: Map<string, number>, route: string) {
  const call = calls.get(route) ?? 0;
  calls.set(route, call + 1);
  const answer = Array.isArray(answers) ? answers[Math.min(call, answers.length - 1)] : answers;
  const { status = 200, body, raw, headers } = answer ?? problem(404, "not_found", `No route ${route}`);
  return { status, body, raw, headers };
}
