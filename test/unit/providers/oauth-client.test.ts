import http from "node:http";
import net from "node:net";
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { isUsualHost } from "../../../src/providers/format/places.ts";
import { createEgress, parseNetworks } from "../../../src/providers/http/egress.ts";
import { type ExchangeTimeouts, type HttpRequest, mostInterimBytes } from "../../../src/providers/http/exchange.ts";
import type { Failure } from "../../../src/providers/oauth/token-answer.ts";
import { createOAuthClient, defaultTimeouts, type Untold } from "../../../src/providers/oauth/oauth-client.ts";
import { buildTokenRequest } from "../../../src/providers/oauth/token-request.ts";
import { hangMs, patience } from "../../support/patience.ts";
import { builtin, define } from "./definitions.ts";

const grant = JSON.stringify({ access_token: "a", refresh_token: "r2", expires_in: 60 });
const loopback = createEgress({ networks: parseNetworks("127.0.0.0/8, ::1/128"), trustedOrigin: null });

/** Requests as a server saw them. */
type Seen = { method: string; url: string; headers: http.IncomingHttpHeaders; body: string };

async function listen(server: net.Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function httpServer(answer: (response: http.ServerResponse) => void): Promise<{ url: string; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
      answer(response);
    });
  });
  onTestFinished(() => server.closeAllConnections());
  return { url: `http://127.0.0.1:${await listen(server)}/token`, seen };
}

/** A server of bare TCP. `onData` gets what came and the socket. */
async function tcpServer(
  handle: (socket: net.Socket, bytes: string[]) => void,
): Promise<{ url: string; bytes: string[] }> {
  const bytes: string[] = [];
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    onTestFinished(() => void socket.destroy());
    handle(socket, bytes);
  });
  return { url: `http://127.0.0.1:${await listen(server)}/token`, bytes };
}

const definitionAt = (url: string) => define("grants: [import]", `id: own\ntoken: { url: "${url}" }`);

function requestTo(url: string): HttpRequest {
  const definition = definitionAt(url);
  const values = { client: { id: "c", secret: "s3cr3t" }, refreshToken: "r1-s3cret" };
  return buildTokenRequest({ definition, grant: "refresh_token", obtainedBy: "import", values });
}

/** All limits are long. A test sets the one that it is about, so that no other limit ends the call. */
const endless: ExchangeTimeouts = {
  connectMs: 2 * hangMs,
  headersMs: 2 * hangMs,
  totalMs: 2 * hangMs,
};

function ask(
  url: string,
  options: { timeouts?: Partial<ExchangeTimeouts>; mayStillSend?: () => boolean; egress?: typeof loopback } = {},
) {
  const { mayStillSend = () => true, egress = loopback } = options;
  const timeouts = { ...endless, ...options.timeouts };
  return createOAuthClient({ egress, timeouts }).requestToken({
    definition: definitionAt(url),
    request: requestTo(url),
    mayStillSend,
  });
}

async function failureOf(asking: ReturnType<typeof ask>) {
  const answer = await asking;
  if (answer.kind !== "failed") throw new Error("granted");
  expect(JSON.stringify(answer)).not.toContain("s3cr");
  return answer.failure;
}

describe("a request", () => {
  test("is sent once, as built, on a connection of its own, asking for an uncompressed answer", async () => {
    const { url, seen } = await httpServer((response) => response.end(grant));
    expect(await ask(`${url}?a=b`)).toMatchObject({ kind: "granted", grant: { accessToken: "a", refreshToken: "r2" } });
    expect(seen).toHaveLength(1);
    expect(seen[0]).toMatchObject({
      method: "POST",
      url: "/token?a=b",
      body: "grant_type=refresh_token&refresh_token=r1-s3cret",
    });
    expect(seen[0]?.headers).toMatchObject({
      accept: "application/json",
      "accept-encoding": "identity",
      authorization: `Basic ${btoa("c:s3cr3t")}`,
      connection: "close",
      "content-type": "application/x-www-form-urlencoded",
    });
  });

  test("without a body says so, and names no content type", async () => {
    const { url, seen } = await httpServer((response) => response.end(grant));
    const definition = define("grants: [client_credentials]", `id: own\ntoken: { url: "${url}", encoding: query }`);
    const request = buildTokenRequest({
      definition,
      grant: "client_credentials",
      obtainedBy: "client_credentials",
      values: { client: { id: "c", secret: "s" } },
    });
    await createOAuthClient({ egress: loopback }).requestToken({ definition, request, mayStillSend: () => true });
    expect(seen[0]).toMatchObject({ url: "/token?grant_type=client_credentials", body: "" });
    expect(seen[0]?.headers).toMatchObject({ "content-length": "0" });
    expect(seen[0]?.headers["content-type"]).toBeUndefined();
  });

  test("does not follow a redirect with its secrets", async () => {
    const other = await httpServer((response) => response.end(grant));
    const { url, seen } = await httpServer((response) => response.writeHead(307, { location: other.url }).end());
    expect(await failureOf(ask(url))).toMatchObject({ class: "refused_for_now", status: 307 });
    expect(seen).toHaveLength(1);
    expect(other.seen).toHaveLength(0);
  });

  test("a refusal is classified, with Retry-After", async () => {
    const { url } = await httpServer((response) => response.writeHead(429, { "Retry-After": "12" }).end());
    expect(await failureOf(ask(url))).toMatchObject({
      class: "refused_for_now",
      code: "rate_limited",
      retryAfterSeconds: 12,
    });
  });

  test("says what it comes from, unless the definition says something else", async () => {
    const { url, seen } = await httpServer((response) => response.end(grant));
    await ask(url);
    expect(seen[0]?.headers["user-agent"]).toMatch(/^freshet\/\d+\.\d+\.\d+$/);
    const own = define(
      "grants: [import]",
      `id: own\ntoken: { url: "${url}", headers: { User-Agent: "shop (ops@shop)" } }`,
    );
    const values = { client: { id: "c", secret: "s" }, refreshToken: "r" };
    const request = buildTokenRequest({ definition: own, grant: "refresh_token", obtainedBy: "import", values });
    await createOAuthClient({ egress: loopback }).requestToken({ definition: own, request, mayStillSend: () => true });
    expect(seen[1]?.headers["user-agent"]).toBe("shop (ops@shop)");
  });
});

const wholeAnswer = (status: string, body: string) =>
  `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
/** Sends these pieces when the request is there, each in a packet of its own. */
const saying = async (...pieces: string[]) => {
  const { url, bytes } = await tcpServer((socket) => {
    socket.setNoDelay(true).once("data", (chunk) => {
      bytes.push(chunk.toString());
      void (async () => {
        for (const piece of pieces) {
          await new Promise((resolve) => void socket.write(piece, "latin1", resolve));
          await new Promise((resolve) => setTimeout(resolve, pieces.length > 50 ? 0 : 2));
        }
      })();
    });
  });
  return { url, bytes };
};

describe("answers before the answer (RFC 9110, section 15.2)", () => {
  const final = wholeAnswer("200 OK", grant);
  const refusal = wholeAnswer("400 Bad Request", '{"error":"invalid_grant"}');
  const early = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nx-200: HTTP/1.1 200 OK\r\n\r\n";

  test.each<[string, string[]]>([
    ["100 that nobody asked for", [`HTTP/1.1 100 Continue\r\n\r\n${final}`]],
    ["100 in a packet of its own", ["HTTP/1.1 100 Continue\r\n\r\n", final]],
    ["100 without a reason, and with headers", ["HTTP/1.1 100\r\nx: y\r\ncontent-length: 5\r\n\r\n", final]],
    [
      "102, 103 with headers, 199, and 100 twice",
      [
        `HTTP/1.1 102 Processing\r\n\r\n${early}HTTP/1.1 199 Odd\r\n\r\n`,
        `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 100 Continue\r\n\r\n${final}`,
      ],
    ],
    ["a byte in each packet", `HTTP/1.1 100 Continue\r\n\r\n${early}${final}`.split("")],
    ["lines that end without CR", ["HTTP/1.1 100 Continue\nx: y\n\n", final]],
    ["twenty thousand of them", [early.repeat(20_000), final]],
    ["a head of 1 MiB", [`HTTP/1.1 103 Early Hints\r\nx: ${"x".repeat(1024 * 1024)}\r\n\r\n`, final]],
    ["none, in packets of a byte", final.split("")],
  ])("%s: the grant behind is taken, and the request was made once", async (_name, pieces) => {
    const { url, bytes } = await saying(...pieces);
    expect(await ask(url)).toMatchObject({ kind: "granted", grant: { accessToken: "a", refreshToken: "r2" } });
    expect(bytes.join("").match(/POST/g)).toHaveLength(1);
  });

  test("what ends a connection is heard behind them, too", async () => {
    const { url } = await saying(`HTTP/1.1 100 Continue\r\n\r\n${early}`, refusal);
    expect(await failureOf(ask(url))).toMatchObject({ class: "refused_for_good", code: "invalid_grant", status: 400 });
  });

  test("they give the answer no more time", async () => {
    const { url } = await tcpServer((socket) => {
      const timer = setInterval(() => socket.write("HTTP/1.1 102 Processing\r\n\r\n"), 20);
      onTestFinished(() => clearInterval(timer));
    });
    expect(await failureOf(ask(url, { timeouts: { headersMs: 200 } }))).toMatchObject({ class: "unknown" });
  });

  test.each<[string, string, string[]]>([
    [
      "a 101 that nobody asked for",
      "UNASKED_UPGRADE",
      ["HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", final],
    ],
    ["a 101 without a protocol", "UNASKED_UPGRADE", [`HTTP/1.1 101 Odd\r\n\r\n${final}`]],
    ["a flood", "INTERIM_FLOOD", [early.repeat(Math.ceil((mostInterimBytes + 1) / early.length)), final]],
    ["a head without an end", "INTERIM_FLOOD", ["HTTP/1.1 103 E\r\nx: ", "x".repeat(mostInterimBytes), final]],
  ])("%s is an unknown outcome that says %s", async (_name, code, pieces) => {
    const failure = await failureOf(ask((await saying(...pieces)).url));
    expect(failure).toMatchObject({ class: "unknown", code: "outcome_unknown" });
    expect(failure.detail).toContain(code);
  });

  test.each(["000 Odd", "020 Odd", "099 Odd"])("a status of %s is no answer", async (status) => {
    expect(await failureOf(ask((await saying(wholeAnswer(status, grant))).url))).toMatchObject({
      class: "unknown",
      code: "outcome_unknown",
    });
  });

  test("an interim answer alone is none", async () => {
    const { url } = await tcpServer((socket) => {
      socket.once("data", () => socket.end("HTTP/1.1 100 Continue\r\n\r\nHTTP/1"));
    });
    expect(await failureOf(ask(url))).toMatchObject({ class: "unknown", code: "outcome_unknown" });
  });

  test("those that come before the request are none of its answers, and a later request has a connection of its own", async () => {
    let connections = 0;
    const { url } = await tcpServer((socket) => {
      connections += 1;
      socket.write("HTTP/1.1 100 Continue\r\n\r\n");
      socket.once("data", () => socket.write(`${early}${final}HTTP/1.1 100 Continue\r\n\r\n${refusal}`));
    });
    expect(await ask(url)).toMatchObject({ kind: "granted" });
    expect(await ask(url)).toMatchObject({ kind: "granted" });
    expect(connections).toBe(2);
  });
});

describe("an answer that is compressed although identity was asked for", () => {
  test.each<[string, (text: string) => Buffer]>([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
    ["br", brotliCompressSync],
    ["zstd", zstdCompressSync],
    ["gzip, gzip", (text) => gzipSync(gzipSync(text))],
    ["x-unknown", gzipSync],
  ])("%s is inflated", async (encoding, compress) => {
    const { url } = await httpServer((response) =>
      response.writeHead(200, { "content-encoding": encoding }).end(compress(grant)),
    );
    expect(await ask(url)).toMatchObject({ kind: "granted", grant: { accessToken: "a" } });
  });

  test.each<[string, string, Buffer]>([
    ["a bomb", "gzip", gzipSync(`${grant}${" ".repeat(1_100_000)}`)],
    ["a cut one", "gzip", gzipSync(grant).subarray(0, 30)],
    ["an unknown one", "zip", Buffer.from("zip")],
  ])("%s is not, and is kept as it came", async (_name, encoding, bytes) => {
    const { url } = await httpServer((response) =>
      response.writeHead(200, { "content-encoding": encoding }).end(bytes),
    );
    const failure = await failureOf(ask(url));
    expect(failure).toMatchObject({ class: "unknown", code: "unreadable_answer", status: 200 });
    expect(rawBody(failure)).toEqual(bytes);
  });
});

/** The body of an answer that is kept, as it was sent. */
function rawBody({ rawAnswer = "" }: Failure): Buffer {
  return Buffer.from((JSON.parse(rawAnswer) as { body: string }).body, "base64");
}

/** Grants a token, with a header of this length. */
const withHeader = (size: number) => (response: http.ServerResponse) =>
  void response.writeHead(200, { "x-long": "x".repeat(size) }).end(grant);

describe("the size of an answer", () => {
  test("beyond 1 MiB nothing is read, what was is kept, and it is said that this was too long", async () => {
    const { url } = await httpServer((response) => response.end(`{"access_token":"${"a".repeat(1_100_000)}"}`));
    const failure = await failureOf(ask(url));
    expect(failure).toMatchObject({ class: "unknown", code: "unreadable_answer" });
    expect(rawBody(failure)).toHaveLength(1024 * 1024);
    expect(failure.detail).toMatch(/answered 200: more than 1 MiB, which is too long/);
  });

  test("so for one that would be longer once it is inflated", async () => {
    const bytes = gzipSync(`${grant}${" ".repeat(1_100_000)}`);
    const { url } = await httpServer((response) => response.writeHead(200, { "content-encoding": "gzip" }).end(bytes));
    expect((await failureOf(ask(url))).detail).toMatch(/more than 1 MiB, which is too long/);
  });

  test("three tokens of 30 KB each are taken, and an answer of just 1 MiB is", async () => {
    const tokens = {
      access_token: "a".repeat(30_000),
      refresh_token: "r".repeat(30_000),
      id_token: "i".repeat(30_000),
    };
    const { url } = await httpServer((response) => response.end(JSON.stringify(tokens)));
    expect(await ask(url)).toMatchObject({ kind: "granted", grant: { refreshToken: tokens.refresh_token } });
    const whole = await httpServer((response) => response.end(grant.padEnd(1024 * 1024)));
    expect(await ask(whole.url)).toMatchObject({ kind: "granted", grant: { refreshToken: "r2" } });
  });

  test("headers of 63 KiB are taken; longer ones are an unknown outcome", async () => {
    expect(await ask((await httpServer(withHeader(63 * 1024))).url)).toMatchObject({ kind: "granted" });
    expect(await failureOf(ask((await httpServer(withHeader(65 * 1024))).url))).toMatchObject({ class: "unknown" });
  });

  test("an endless one ends", async () => {
    const { url } = await httpServer((response) => {
      const timer = setInterval(() => response.write("x".repeat(16_384)), 1);
      onTestFinished(() => clearInterval(timer));
    });
    expect(await failureOf(ask(url))).toMatchObject({ class: "unknown" });
  });

  test("a refusal that is too long is a refusal still", async () => {
    const { url } = await httpServer((response) => response.writeHead(503).end("x".repeat(1_100_000)));
    const failure = await failureOf(ask(url));
    expect(failure).toMatchObject({ class: "refused_for_now", code: "provider_unavailable" });
    expect(failure.detail).toContain("too long");
  });

  test("a token of 60,000 characters is taken", async () => {
    const { url } = await httpServer((response) => response.end(`{"access_token":"${"a".repeat(60_000)}"}`));
    expect(await ask(url)).toMatchObject({ kind: "granted" });
  });
});

describe("nothing was written, for certain", () => {
  test("when the connection is refused", async () => {
    const server = net.createServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    const failure = await failureOf(ask(`http://127.0.0.1:${port}/token`));
    expect(failure).toMatchObject({ class: "not_sent", code: "connect_failed" });
    expect(failure.detail).toContain("ECONNREFUSED");
  });

  test("when TLS fails", async () => {
    const { url } = await tcpServer((socket) => socket.once("data", () => socket.end("HTTP/1.1 400 no TLS\r\n\r\n")));
    expect(await failureOf(ask(url.replace("http:", "https:")))).toMatchObject({
      class: "not_sent",
      code: "connect_failed",
    });
  });

  test("when the name does not resolve", async () => {
    const egress = createEgress({
      networks: null,
      trustedOrigin: null,
      resolve: (_host, answer) => answer(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }), []),
    });
    const failure = await failureOf(ask("https://nowhere.invalid/token", { egress }));
    expect(failure).toMatchObject({ class: "not_sent", code: "connect_failed" });
    expect(failure.detail).toContain("ENOTFOUND");
  });

  test("when connecting takes too long", async () => {
    const egress = createEgress({ networks: null, trustedOrigin: null, resolve: () => {} });
    const asking = ask("https://slow.invalid/token", { egress, timeouts: { connectMs: 100 } });
    const failure = await failureOf(asking);
    expect(failure).toMatchObject({ class: "not_sent", code: "connect_failed" });
    expect(failure.detail).toContain("CONNECT_TIMEOUT");
    const whole = ask("https://slow.invalid/token", { egress, timeouts: { totalMs: 50 } });
    expect(await failureOf(whole)).toMatchObject({ class: "not_sent", code: "connect_failed" });
  });

  test("when the address may not be reached", async () => {
    const { url, bytes } = await tcpServer((socket) => socket.on("data", (chunk) => bytes.push(chunk.toString())));
    const egress = createEgress({ networks: null, trustedOrigin: null });
    expect(await failureOf(ask(url, { egress }))).toMatchObject({ class: "not_sent", code: "blocked_address" });
    const named = url.replace("127.0.0.1", "localhost");
    expect(await failureOf(ask(named, { egress }))).toMatchObject({ class: "not_sent", code: "blocked_address" });
    expect(bytes).toEqual([]);
  });

  test("when the permission has run out before connecting", async () => {
    const failure = await failureOf(ask("https://login.example/token", { mayStillSend: () => false }));
    expect(failure).toMatchObject({ class: "not_sent", code: "send_window_passed" });
  });

  test("when it runs out while connecting: the connection is open and stays empty", async () => {
    const server = Promise.withResolvers<string>();
    let received = "";
    const { url } = await tcpServer((socket) => {
      socket.on("data", (chunk) => (received += chunk.toString()));
      socket.on("close", () => server.resolve(received));
    });
    let asked = 0;
    const failure = await failureOf(ask(url, { mayStillSend: () => ++asked === 1 }));
    expect(failure).toMatchObject({ class: "not_sent", code: "send_window_passed" });
    expect(asked).toBe(2);
    expect(await server.promise).toBe("");
  });

  test("and a call that has timed out while connecting sends nothing afterwards", async () => {
    const { url, seen } = await httpServer((response) => response.end(grant));
    const port = new URL(url).port;
    const release = Promise.withResolvers<void>();
    const egress = createEgress({
      networks: parseNetworks("127.0.0.0/8"),
      trustedOrigin: null,
      resolve: (_host, answer) => void release.promise.then(() => answer(null, [{ address: "127.0.0.1", family: 4 }])),
    });
    const asking = ask(`http://slow.invalid:${port}/token`, { egress, timeouts: { totalMs: 50 } });
    expect(await failureOf(asking)).toMatchObject({ class: "not_sent" });
    release.resolve();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(seen).toEqual([]);
  });
});

describe("it may have been written", () => {
  test("when the connection breaks after the request", async () => {
    const { url, bytes } = await tcpServer((socket) => {
      socket.on("data", (chunk) => {
        bytes.push(chunk.toString());
        socket.resetAndDestroy();
      });
    });
    const failure = await failureOf(ask(url));
    expect(failure).toMatchObject({ class: "unknown", code: "outcome_unknown" });
    expect("status" in failure).toBe(false);
    expect(bytes.join("").match(/POST/g)).toHaveLength(1);
  });

  test("when the server ends the connection without a word, and nothing is sent again", async () => {
    let connections = 0;
    const { url } = await tcpServer((socket) => {
      connections += 1;
      socket.on("data", () => socket.end());
    });
    expect(await failureOf(ask(url))).toMatchObject({ class: "unknown", code: "outcome_unknown" });
    expect(connections).toBe(1);
  });

  test("when no headers come in time", async () => {
    const { url, seen } = await httpServer(() => {});
    const beganMs = performance.now();
    expect(await failureOf(ask(url, { timeouts: { headersMs: 100 } }))).toMatchObject({
      class: "unknown",
      code: "outcome_unknown",
    });
    expect(performance.now() - beganMs).toBeLessThan(hangMs / 2); // less than the HTTP client would wait by itself
    await expect.poll(() => seen.length, patience).toBe(1);
  });

  test("when the whole call takes too long", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    // The time passes only when the request has arrived, so the machine may be slow until then.
    const { url } = await httpServer(() => void vi.advanceTimersByTime(100));
    const failure = await failureOf(ask(url, { timeouts: { totalMs: 100 } }));
    expect(failure).toMatchObject({ class: "unknown", code: "outcome_unknown" });
    expect(failure.detail).toContain("TOTAL_TIMEOUT");
  });

  test("when what comes is not HTTP", async () => {
    const { url } = await tcpServer((socket) => socket.on("data", () => socket.end("hello\r\n")));
    expect(await failureOf(ask(url))).toMatchObject({ class: "unknown", code: "outcome_unknown" });
  });
});

describe("an answer that stops halfway", () => {
  test("with whole JSON in it is a grant", async () => {
    const { url } = await httpServer((response) => {
      response.writeHead(200, { "content-length": "500" });
      response.write(grant, () => response.destroy());
    });
    expect(await ask(url)).toMatchObject({ kind: "granted", grant: { refreshToken: "r2" } });
  });

  test("with less is unknown, and what came is kept", async () => {
    const { url } = await httpServer((response) => {
      response.writeHead(200, { "content-length": "500" });
      response.write('{"access_token":"a', () => response.destroy());
    });
    const failure = await failureOf(ask(url));
    expect(failure).toMatchObject({ class: "unknown", code: "unreadable_answer", status: 200 });
    expect(rawBody(failure).toString()).toBe('{"access_token":"a');
  });

  test("in a form is unknown, since a token may be cut short in it", async () => {
    const { url } = await httpServer((response) => {
      response.writeHead(200, { "content-length": "500", "content-type": "application/x-www-form-urlencoded" });
      response.write("access_token=a&refresh_token=r", () => response.destroy());
    });
    expect(await failureOf(ask(url))).toMatchObject({ class: "unknown", code: "unreadable_answer" });
  });

  test("for as long as the call has time is waited for, and taken", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const { url } = await httpServer((response) => {
      response.writeHead(200);
      response.flushHeaders();
      setImmediate(() => {
        vi.advanceTimersByTime(24_000);
        response.end(grant);
      });
    });
    expect(await ask(url, { timeouts: defaultTimeouts })).toMatchObject({ kind: "granted" });
  });

  test("by dripping is cut at the end of the call", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const { url } = await httpServer((response) => {
      response.writeHead(200);
      response.write(" ", () => setImmediate(() => vi.advanceTimersByTime(100)));
    });
    const failure = await failureOf(ask(url, { timeouts: { totalMs: 100 } }));
    expect(failure).toMatchObject({ class: "unknown", code: "outcome_unknown" });
  });

  test("in a refusal is a refusal still", async () => {
    const { url } = await httpServer((response) => {
      response.writeHead(503, { "content-length": "500" });
      response.write("x", () => response.destroy());
    });
    expect(await failureOf(ask(url))).toMatchObject({ class: "refused_for_now", status: 503 });
  });
});

describe("a request that spends nothing", () => {
  test("says what came of it, and never throws", async () => {
    const client = createOAuthClient({ egress: loopback });
    const { url } = await httpServer((response) => response.end('{"id":7}'));
    expect(await client.ask({ definition: definitionAt(url), request: requestTo(url) })).toEqual({
      ok: true,
      status: 200,
      body: { id: 7 },
      detail: "the provider answered 200",
    });
    const refusing = await httpServer((response) => response.writeHead(400).end());
    expect(await client.ask({ definition: definitionAt(refusing.url), request: requestTo(refusing.url) })).toEqual({
      ok: false,
      status: 400,
      body: null,
      detail: "the provider answered 400",
    });
    const nowhere = "http://127.0.0.1:1/";
    const away = await client.ask({ definition: definitionAt(nowhere), request: requestTo(nowhere) });
    expect(away).toMatchObject({ ok: false, status: null, body: null });
  });
});

test("the sandbox reaches this broker's own origin, and no other definition does", async () => {
  const { url, seen } = await httpServer((response) => response.end(grant));
  const egress = createEgress({ networks: null, trustedOrigin: new URL(url).origin });
  const client = createOAuthClient({ egress });
  const call = { request: requestTo(url), mayStillSend: () => true };
  expect(await client.requestToken({ definition: builtin("oauth2"), ...call })).toMatchObject({
    failure: { code: "blocked_address" },
  });
  expect(seen).toHaveLength(0);
  expect(await client.requestToken({ definition: builtin("sandbox"), ...call })).toMatchObject({ kind: "granted" });
});

const withInput = () =>
  define(`grants: [import]\ninputs: { at: { pattern: "^https?://.+$" } }`, 'id: own\ntoken: { url: "{inputs.at}" }');

const resolving = (address: string | null) =>
  createEgress({
    networks: null,
    trustedOrigin: null,
    resolve: (_host, answer) =>
      address === null
        ? answer(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }), [])
        : answer(null, [{ address, family: 4 }]),
  });

/** What callers and the log are told of one token request. */
async function tell(url: string, options: { egress?: typeof loopback; timeouts?: Partial<ExchangeTimeouts> } = {}) {
  const untold: Untold[] = [];
  const timeouts = { ...endless, ...options.timeouts };
  const onUntold = (one: Untold) => void untold.push(one);
  const client = createOAuthClient({ egress: options.egress ?? loopback, timeouts, onUntold });
  const call = { definition: withInput(), request: requestTo(url) };
  const answer = await client.requestToken({ ...call, mayStillSend: () => true });
  const asked = await client.ask(call);
  return {
    failure: answer.kind === "failed" ? answer.failure : null,
    asked,
    log: untold.map(({ detail }) => detail),
  };
}

describe("of a host that the definition does not fix, callers learn no more than the kind of a failure", () => {
  test("closed, silent, without good TLS, without a name, at a private address: it is told alike", async () => {
    const plain = await tcpServer((socket) => socket.once("data", () => socket.end("HTTP/1.1 400 no TLS\r\n\r\n")));
    const silent = createEgress({ networks: null, trustedOrigin: null, resolve: () => {} });
    const told = [
      await tell("http://127.0.0.1:1/token"),
      await tell("https://slow.invalid/token", { egress: silent, timeouts: { totalMs: 50 } }),
      await tell(plain.url.replace("http:", "https:")),
      await tell("https://nowhere.invalid/token", { egress: resolving(null) }),
      await tell("https://inside.example/token", { egress: resolving("10.20.30.40") }),
    ];
    const [first] = told;
    expect(first?.failure).toMatchObject({ class: "not_sent", code: "connect_failed" });
    for (const { failure, asked } of told) {
      expect(failure).toEqual(first?.failure);
      expect(asked).toEqual(first?.asked);
    }
    const logs = told.map(({ log }) => log.join());
    expect(logs.map((log) => /ECONNREFUSED|TOTAL_TIMEOUT|ENOTFOUND|10\.20\.30\.40|ERR_SSL/.exec(log)?.[0])).toEqual([
      "ECONNREFUSED",
      "TOTAL_TIMEOUT",
      "ERR_SSL",
      "ENOTFOUND",
      "10.20.30.40",
    ]);
  });

  test("an address that may not be reached is refused for what stands in it, and is not repeated", async () => {
    const { failure, asked, log } = await tell("https://10.20.30.40/token");
    expect(failure).toMatchObject({ class: "not_sent", code: "blocked_address" });
    expect(failure?.detail).not.toContain("10.20");
    expect(failure?.detail).toMatch(/the egress rules of this broker allow .* PROVIDER_NETWORKS/);
    expect(asked).toMatchObject({ ok: false, isBlocked: true });
    expect(log.join()).toContain("10.20.30.40");
  });

  test.each([
    ["a refusal", 400, '{"error":"invalid_grant","error_description":"inside-words"}'],
    ["a page", 200, "<html>inside-words</html>"],
    ["a redirect", 302, "inside-words"],
    ["a failure", 500, "inside-words"],
  ])("%s is told by its status, and only the log quotes it", async (_name, status, body) => {
    const { url } = await httpServer((response) => response.writeHead(status, { location: "/inside-words" }).end(body));
    const { failure, asked, log } = await tell(url);
    expect(failure?.detail).toContain(`answered ${status};`);
    expect(JSON.stringify([failure, asked.detail])).not.toContain("inside-words");
    if (status === 400) expect(log.join()).toContain("inside-words");
    expect(log.join()).not.toContain("s3cr3t");
  });

  test("where a pattern keeps to one domain, or the file names the host, the provider's words are quoted", () => {
    const pinned = define(
      `grants: [import]
inputs: { shop: { pattern: "^[a-z0-9-]+$" }, region: { enum: [eu, us] }, both: { pattern: "^[a-z]+$" } }
issuer: https://{inputs.shop}.shops.example.com:8443
revocation: { url: "https://{inputs.region}.region.example/revoke" }
introspection: { url: "https://{inputs.shop}.{inputs.both}.example.net/ask" }`,
    );
    const usual = (url: string) => isUsualHost(pinned, url);
    expect(
      ["https://login.example/other", "https://eu.region.example/x", "https://a.shops.example.com:8443/"].map(usual),
    ).toEqual([true, true, true]);
    const others = [
      "https://login.example:8443/token",
      "https://xlogin.example/token",
      "https://ap.region.example/",
      "https://a.shops.example.com/",
      "https://shops.example.com:8443/",
      "https://a.shops.example.com.evil.example:8443/",
      "https://evilshops.example.com:8443/",
      "https://a.b.example.net/",
      "nonsense",
    ];
    expect(others.map(usual)).toEqual(others.map(() => false));
  });
});

test("networks of one definition count for it alone, and in place of those for all", async () => {
  const { url, seen } = await httpServer((response) => response.end(grant));
  const elsewhere = await httpServer((response) => response.end(grant));
  const port = new URL(elsewhere.url).port;
  const egress = createEgress({ networks: null, trustedOrigin: null });
  const reach = async (definition: ReturnType<typeof define>, given: string, over = egress) => {
    const answer = await createOAuthClient({ egress: over }).requestToken({
      definition,
      request: requestTo(given),
      mayStillSend: () => true,
    });
    return answer.kind === "failed" ? answer.failure.code : answer.kind;
  };
  const withNetworks = (networks: string) =>
    define(`grants: [import]\nnetworks: [${networks}]`, `id: own\ntoken: { url: "${url}" }`);
  expect(await reach(withNetworks("127.0.0.1/32"), url)).toBe("granted");
  expect(await reach(definitionAt(url), url)).toBe("blocked_address");
  expect(await reach(withNetworks("10.0.0.0/8"), url, loopback)).toBe("blocked_address");
  expect(await reach(withNetworks(""), url, loopback)).toBe("blocked_address");
  expect(await reach(withNetworks("127.0.0.1/32"), `http://127.0.0.2:${port}/token`)).toBe("blocked_address");
  expect(seen).toHaveLength(1);
  expect(elsewhere.seen).toEqual([]);
});
