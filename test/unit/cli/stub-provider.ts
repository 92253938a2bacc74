import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { temporaryFolder } from "../../support/services/guardian.ts";

export type SeenCall = {
  route: string;
  query: Record<string, string>;
  headers: IncomingMessage["headers"];
  fields: Record<string, string>;
};
type Answer = { status?: number; body: unknown; type?: string; headers?: Record<string, string> };
type Routes = Record<string, Answer | Answer[]>;

const secretFields = [
  "client_secret",
  "client_assertion",
  "code",
  "code_verifier",
  "device_code",
  "refresh_token",
  "password",
  "token",
];

/** A provider that gives the answers that a test prepares, the last one again and again. It remembers every secret that it has received or given. */
export async function startStubProvider(routes: Routes) {
  const calls: SeenCall[] = [];
  const secrets = new Set<string>();
  const server = createServer((request, response) => void reply(request, response));
  const reply = async (request: IncomingMessage, response: ServerResponse) => {
    const call = await readCall(request);
    const before = calls.filter(({ route }) => route === call.route).length;
    calls.push(call);
    for (const secret of secretsSent(call)) secrets.add(secret);
    const answers = [routes[call.route] ?? { status: 404, body: { error: "no_route" } }].flat();
    const { status = 200, body, type = "application/json", headers } = answers[Math.min(before, answers.length - 1)]!;
    for (const secret of secretsGiven(body)) secrets.add(secret);
    response.writeHead(status, { "content-type": type, ...headers });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  const url = `http://127.0.0.1:${address.port}`;
  return {
    url,
    calls,
    secrets,
    /** The routes that were called, in order. */
    called: () => calls.map(({ route }) => route),
    /** Changes what is answered from now on. */
    answer: (route: string, answers: Answer | Answer[]) => void (routes[route] = answers),
    /** Writes a definition of this provider into a file. */
    define: async (definition: Record<string, unknown>) => {
      const path = join((await temporaryFolder("try")).path, "stub.yaml");
      await writeFile(path, stringify({ id: "stub", token: { url: `${url}/token` }, ...definition }));
      return path;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => void server.close(resolve));
    },
  };
}

async function readCall(request: IncomingMessage): Promise<SeenCall> {
  const url = new URL(request.url ?? "/", "http://stub");
  const body = await text(request);
  const isJson = request.headers["content-type"] === "application/json";
  const fields = isJson ? (JSON.parse(body) as Record<string, string>) : Object.fromEntries(new URLSearchParams(body));
  const query = Object.fromEntries(url.searchParams);
  return { route: `${request.method} ${url.pathname}`, query, headers: request.headers, fields };
}

function secretsSent({ headers, fields }: SeenCall): string[] {
  const basic = /^Basic (.+)$/.exec(headers.authorization ?? "")?.[1];
  const decoded = Buffer.from(basic ?? "", "base64")
    .toString("utf8")
    .split(":")[1];
  const sent = secretFields.map((name) => fields[name]);
  return [basic, decoded, headers.authorization?.split(" ")[1], ...sent].filter((secret) => secret !== undefined);
}

function secretsGiven(body: unknown): string[] {
  if (typeof body !== "object" || body === null) return [];
  return Object.entries(body).flatMap(([name, value]: [string, unknown]) =>
    typeof value === "string" && /token$|device_code/.test(name) ? [value] : secretsGiven(value),
  );
}
