import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Egress } from "../../../src/providers/http/egress.ts";

type RawMessage = { first: string; headers: [string, string][]; body: string };

/** Sent by every HTTP client by itself: they say nothing about the exchange. */
const ownHeaders = new Set(["content-length", "connection", "accept-encoding"]);

/** A server that knows only the next request of a transcript. It reports every difference, and answers 418 to it. */
export type StrictServer = {
  expect(request: string, answer: string): void;
  /** How what came differs from what was expected; null: not at all. */
  fault(): string | null;
  /** Leads every address to this server. The request's Host holds the name that was meant. */
  egress: Egress;
  close(): Promise<void>;
};

export async function openStrictServer(): Promise<StrictServer> {
  let expected: { request: RawMessage; answer: RawMessage } | null = null;
  let fault: string | null = "no request came";
  const server = createServer((request, response) => {
    void readBody(request).then((body) => {
      fault =
        expected === null
          ? "a request came that the transcript does not have"
          : compare(request, body, expected.request);
      if (expected === null || fault !== null) return response.writeHead(418).end();
      const { first, headers, body: text } = expected.answer;
      expected = null;
      const [, status = "", ...reason] = first.split(" ");
      response.sendDate = false;
      return response.writeHead(Number(status), reason.join(" "), headers.flat()).end(text);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    expect(request, answer) {
      expected = { request: readRaw(request), answer: readRaw(answer) };
      fault = "no request came";
    },
    fault: () => fault,
    egress: {
      route(text) {
        const url = new URL(text);
        url.protocol = "http:";
        url.port = String(port);
        return {
          url,
          host: url.hostname,
          port,
          proxy: null,
          lookup: (_host, options, answer) =>
            options.all ? answer(null, [{ address: "127.0.0.1", family: 4 }]) : answer(null, "127.0.0.1", 4),
        };
      },
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

function readRaw(text: string): RawMessage {
  const [head = "", ...rest] = text.split(/\r?\n\r?\n/);
  const [first = "", ...lines] = head.split(/\r?\n/);
  const headers = lines
    .filter((line) => line.trim() !== "")
    .map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
    });
  return { first: first.trim(), headers, body: rest.join("\n\n").replace(/\r?\n$/, "") };
}

function compare(request: IncomingMessage, body: string, expected: RawMessage): string | null {
  const sent = {
    line: `${request.method} ${request.url} HTTP/${request.httpVersion}`,
    headers: headerLines(pairsOf(request.rawHeaders)),
    body,
  };
  const wanted = { line: expected.first, headers: headerLines(expected.headers), body: expected.body };
  const differing = (["line", "headers", "body"] as const).filter((part) => sent[part] !== wanted[part]);
  if (differing.length === 0) return null;
  return differing.map((part) => `${part}:\n  expected ${wanted[part]}\n  was sent ${sent[part]}`).join("\n");
}

function pairsOf(raw: readonly string[]): [string, string][] {
  return raw.flatMap((name, index) => (index % 2 === 0 ? [[name, raw[index + 1] ?? ""] as [string, string]] : []));
}

function headerLines(headers: readonly [string, string][]): string {
  return headers
    .map(([name, value]): [string, string] => [name.toLowerCase(), value])
    .filter(([name, value]) => !ownHeaders.has(name) && !(name === "user-agent" && value.startsWith("freshet/")))
    .map(([name, value]) => `${name}: ${name === "host" ? value.replace(/:\d+$/, "") : value}`)
    .sort()
    .join("\n           ");
}
