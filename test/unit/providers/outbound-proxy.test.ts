import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import tls from "node:tls";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { createEgress, parseNetworks, proxyFor } from "../../../src/providers/http/egress.ts";
import type { ExchangeTimeouts } from "../../../src/providers/http/exchange.ts";
import { type ProxySettings, readProxies } from "../../../src/providers/http/outbound-proxy.ts";
import { createOAuthClient, type Untold } from "../../../src/providers/oauth/oauth-client.ts";
import { buildTokenRequest } from "../../../src/providers/oauth/token-request.ts";
import { selfSigned } from "../../support/certificate.ts";
import { OutboundProxyServer } from "../../support/outbound-proxy.ts";
import { hangMs, until } from "../../support/patience.ts";
import { define } from "./definitions.ts";

const grant = JSON.stringify({ access_token: "a", refresh_token: "r2", expires_in: 60 });
const none: ProxySettings = { httpsProxy: null, httpProxy: null, noProxy: null, proxyConnect: "by_address" };

const through = (settings: Partial<ProxySettings>, url: string) =>
  proxyFor(new URL(url), readProxies({ ...none, ...settings }))?.name ?? null;

describe("what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say", () => {
  test("each is for its scheme alone, and a proxy has the port of its own", () => {
    const both = { httpsProxy: "http://one.example:3128", httpProxy: "https://two.example" };
    expect(through(both, "https://a.example")).toBe("one.example:3128");
    expect(through(both, "http://a.example")).toBe("two.example:443");
    expect(through({ httpsProxy: "http://[::1]/" }, "https://a.example")).toBe("[::1]:80");
    expect(through({ httpProxy: "http://two.example" }, "https://a.example")).toBeNull();
  });

  test.each([
    ["a.example", "https://a.example/x", true],
    ["a.example", "https://login.a.example/x", true],
    ["a.example", "https://aa.example/x", false],
    [".a.example, b.example", "https://login.a.example/", true],
    ["*.a.example", "https://login.a.example./", true],
    ["A.Example", "https://a.example/", true],
    ["a.example:8443", "https://a.example:8443/", true],
    ["a.example:443", "https://a.example/", true],
    ["a.example:8443", "https://a.example/", false],
    ["10.1.2.3", "https://10.1.2.3/", true],
    ["1.2.3", "https://10.1.2.3/", false],
    ["10.0.0.0/8", "https://10.1.2.3/", true],
    ["10.0.0.0/8", "https://11.1.2.3/", false],
    ["10.0.0.0/8", "https://a.example/", false],
    ["::1", "https://[::1]/", true],
    ["[::1]:8443", "https://[::1]:8443/", true],
    ["[::1]:8443", "https://[::1]/", false],
    ["fd00::/8", "https://[fd12::1]/", true],
    ["*", "https://a.example/", true],
    [" , ", "https://a.example/", false],
  ])("NO_PROXY=%s: %s is reached directly: %s", (noProxy, url, isDirect) => {
    expect(through({ httpsProxy: "http://p.example", noProxy }, url) === null).toBe(isDirect);
  });

  test.each([
    ["socks5://p.example", "HTTPS_PROXY must be a URL http://user:password@host:port"],
    ["p.example:3128", "HTTPS_PROXY must be"],
    ["http://p.example/path", "HTTPS_PROXY must be"],
    ["http://u:secret%zz@p.example", "HTTPS_PROXY must be"],
    ["http://u:sec ret@", "HTTPS_PROXY must be"],
  ])("HTTPS_PROXY=%s is refused without its password", (httpsProxy, says) => {
    expect(() => readProxies({ ...none, httpsProxy })).toThrow(says);
    expect(() => readProxies({ ...none, httpsProxy })).not.toThrow(/sec/);
  });

  test.each(["http://a.example", "a.example/x", "10.0.0.0/33", "a b"])("NO_PROXY=%s is refused", (noProxy) => {
    expect(() => readProxies({ ...none, noProxy })).toThrow(
      `NO_PROXY must be a comma list of host names, addresses and CIDR blocks, or *: "${noProxy}" is none of these`,
    );
  });

  test("NO_PROXY is refused without what may be a password in it", () => {
    expect(() => readProxies({ ...none, noProxy: "me:secret@b" })).toThrow(/^NO_PROXY .*: "…@b" is none of these$/);
  });

  test("a password is in nothing that is written down", () => {
    const proxy = proxyFor(
      new URL("https://a.example"),
      readProxies({ ...none, httpsProxy: "http://u:p%40ss@p.example" }),
    );
    expect(proxy?.authorization).toBe(`Basic ${btoa("u:p@ss")}`);
    expect(JSON.stringify(proxy)).not.toMatch(/p@ss|p%40ss|Basic/);
  });
});

type Seen = { method: string; url: string; headers: http.IncomingHttpHeaders; body: string };

/** Grants a token to whoever asks, and keeps what was asked. */
function granting(seen: Seen[], answer: (response: http.ServerResponse) => void): http.RequestListener {
  return (request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
      answer(response);
    });
  };
}

const portOf = (server: http.Server) => (server.address() as net.AddressInfo).port;

describe("a token request through a proxy", () => {
  const credentials = "broker:p@ss w0rd";
  const name = "login.provider.test";
  const before = tls.getCACertificates("default");
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const certificate = selfSigned(key, [name, "127.0.0.1"]);
  let proxy: OutboundProxyServer;
  let seen: Seen[];
  let answer: (response: http.ServerResponse) => void;
  let secure: https.Server;
  let plain: http.Server;

  beforeAll(() => tls.setDefaultCACertificates([...before, certificate]));
  afterAll(() => tls.setDefaultCACertificates(before));

  beforeEach(async () => {
    seen = [];
    answer = (response) => void response.writeHead(200, { "content-type": "application/json" }).end(grant);
    const listener = granting(seen, (response) => answer(response));
    const pem = { key: key.privateKey.export({ format: "pem", type: "pkcs8" }), cert: certificate };
    secure = https.createServer(pem, listener);
    plain = http.createServer(listener);
    await Promise.all([secure, plain].map(async (server) => await once(server.listen(0, "127.0.0.1"), "listening")));
    // Only the proxy knows where the name leads, so a request by name can only work through it.
    proxy = await OutboundProxyServer.start({ credentials, names: { [name]: "127.0.0.1" } });
  });

  afterEach(async () => {
    await proxy[Symbol.asyncDispose]();
    for (const server of [secure, plain]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });

  const secureUrl = (host = name) => `https://${host}:${portOf(secure)}/token`;
  const plainUrl = (host = "127.0.0.1") => `http://${host}:${portOf(plain)}/token`;

  type Asked = {
    settings?: Partial<ProxySettings>;
    networks?: string;
    /** What this broker's own resolver says. */
    addresses?: string[] | null;
    timeouts?: Partial<ExchangeTimeouts>;
    mayStillSend?: () => boolean;
    definition?: ReturnType<typeof define>;
  };

  /** The client that a broker with these settings has, and one request of it. */
  function ask(url: string, asked: Asked = {}) {
    const { settings = {}, networks = "127.0.0.0/8", addresses = ["127.0.0.1"], mayStillSend = () => true } = asked;
    const untold: Untold[] = [];
    const proxies = readProxies({ ...none, httpsProxy: proxy.url, httpProxy: proxy.url, ...settings });
    const egress = createEgress({
      networks: networks === "" ? null : parseNetworks(networks),
      trustedOrigin: null,
      proxies,
      resolve: (_host, found) =>
        addresses === null
          ? found(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }), [])
          : found(
              null,
              addresses.map((address) => ({ address, family: net.isIP(address) })),
            ),
    });
    const timeouts = { connectMs: 2 * hangMs, headersMs: 2 * hangMs, totalMs: 2 * hangMs, ...asked.timeouts };
    const client = createOAuthClient({ egress, timeouts, onUntold: (one) => void untold.push(one) });
    const fixed = define("grants: [import]", `id: own\ntoken: { url: "${url}" }`);
    const { definition = fixed } = asked;
    const values = { client: { id: "c", secret: "s3cr3t" }, refreshToken: "r1-s3cret" };
    const request = buildTokenRequest({ definition: fixed, grant: "refresh_token", obtainedBy: "import", values });
    return { answer: client.requestToken({ definition, request, mayStillSend }), untold };
  }

  async function failureOf(url: string, asked: Asked = {}) {
    const { answer: answering, untold } = ask(url, asked);
    const given = await answering;
    if (given.kind !== "failed") throw new Error("granted");
    const said = JSON.stringify([given, untold]);
    for (const secret of ["s3cr3t", "r1-s3cret", "p@ss w0rd", encodeURIComponent("p@ss w0rd"), btoa(credentials)]) {
      expect(said).not.toContain(secret);
    }
    return given.failure;
  }

  const notSent = { class: "not_sent", code: "connect_failed" };
  const byName = { proxyConnect: "by_name" } as const;

  describe("that makes a tunnel", () => {
    test("goes to the address that was checked here; the provider sees the request, and the proxy nothing of it", async () => {
      expect(await ask(secureUrl()).answer).toMatchObject({ kind: "granted", grant: { refreshToken: "r2" } });
      expect(proxy.requests.map(({ method, target }) => [method, target])).toEqual([
        ["CONNECT", `127.0.0.1:${portOf(secure)}`],
      ]);
      expect(proxy.requests[0]?.headers).toMatchObject({ "proxy-authorization": `Basic ${btoa(credentials)}` });
      expect(proxy.faults).toEqual([]);
      expect(seen).toMatchObject([{ method: "POST", url: "/token", body: expect.stringContaining("r1-s3cret") }]);
      expect(seen[0]?.headers).toMatchObject({ host: `${name}:${portOf(secure)}`, connection: "close" });
      expect(seen[0]?.headers).not.toHaveProperty("proxy-authorization");
      await until("nothing is left open", () => proxy.openSockets === 0);
    });

    test("goes by name where that is set, and then nobody here resolves it", async () => {
      expect(await ask(secureUrl(), { settings: byName, addresses: null }).answer).toMatchObject({ kind: "granted" });
      expect(proxy.requests.map(({ target }) => target)).toEqual([`${name}:${portOf(secure)}`]);
      expect(proxy.faults).toEqual([]);
    });

    test("is not asked for an address that may not be reached, nor for the proxy's own", async () => {
      const blocked = { class: "not_sent", code: "blocked_address" };
      expect(await failureOf(secureUrl(), { networks: "" })).toMatchObject(blocked);
      expect(await failureOf(secureUrl("127.0.0.1"), { networks: "" })).toMatchObject(blocked);
      expect(await failureOf(secureUrl("127.0.0.1"), { networks: "", settings: byName })).toMatchObject(blocked);
      const own = `https://127.0.0.1:${proxy.port}/token`;
      expect(await failureOf(own, { networks: "" })).toMatchObject(blocked);
      expect(proxy.requests).toEqual([]);
    });

    test("is asked for the next address where it does not reach the first, and for IPv4 before IPv6", async () => {
      const addresses = ["::1", "127.0.0.9", "127.0.0.1"];
      expect(await ask(secureUrl(), { addresses, networks: "127.0.0.0/8,::1/128" }).answer).toMatchObject({
        kind: "granted",
      });
      const port = portOf(secure);
      expect(proxy.requests.map(({ target }) => target)).toEqual([`127.0.0.9:${port}`, `127.0.0.1:${port}`]);
      expect(seen).toHaveLength(1);
    });

    test("gets no request that NO_PROXY names", async () => {
      expect(await ask(secureUrl(), { settings: { noProxy: name } }).answer).toMatchObject({ kind: "granted" });
      expect(proxy.requests).toEqual([]);
    });

    test.each<[string, string, RegExp]>([
      [
        "407",
        "http://broker:wrong@127.0.0.1",
        /the proxy 127\.0\.0\.1:\d+ refuses the user name or password \(407\): HTTPS_PROXY/,
      ],
      [
        "407 without a password",
        "http://127.0.0.1",
        /the proxy .* wants a user name and a password \(407\): HTTPS_PROXY/,
      ],
    ])("and asks for a password (%s) has sent nothing, and is named", async (_name, url, says) => {
      const failure = await failureOf(secureUrl(), { settings: { httpsProxy: `${url}:${proxy.port}` } });
      expect(failure).toMatchObject(notSent);
      expect(failure.detail).toMatch(says);
      expect(proxy.requests).toHaveLength(1);
      expect([seen, proxy.tunnelledBytes]).toEqual([[], 0]);
    });

    test("tells of its password whatever the host is: this says nothing about the host", async () => {
      const definition = define(
        `grants: [import]\ninputs: { at: { pattern: "^https?://.+$" } }`,
        `id: own\ntoken: { url: "{inputs.at}" }`,
      );
      const settings = { httpsProxy: `http://u:wrong@127.0.0.1:${proxy.port}` };
      const free = { class: "not_sent", code: "connect_failed" };
      const url = secureUrl();
      const { answer: asked } = ask(url, { definition: definition, settings });
      expect(await asked).toMatchObject({ failure: { ...free, detail: expect.stringContaining("(407)") } });
      proxy.misdeed = (_request, socket) => socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
      const refused = ask(url, { definition: definition });
      expect(await refused.answer).toMatchObject({
        failure: { ...free, detail: expect.stringContaining("only the broker's log says more") },
      });
      expect(refused.untold[0]?.detail).toContain("refused a tunnel to the provider with 403");
    });

    test.each<[string, (socket: net.Socket) => void, RegExp]>([
      [
        "refuses the address",
        (socket) => socket.end("HTTP/1.1 403 Forbidden\r\n\r\n"),
        /with 403.*PROXY_CONNECT=by_name/,
      ],
      ["finds nobody there", (socket) => socket.end("HTTP/1.1 503 No\r\n\r\n<html>s3cr3t"), /with 503/],
      ["hangs up before its answer", (socket) => socket.end(), /CLOSED/],
      ["hangs up within its answer", (socket) => socket.end("HTTP/1.1 200 Conn"), /CLOSED/],
      ["resets the connection", (socket) => socket.resetAndDestroy(), /ECONNRESET|EPIPE|CLOSED/],
      ["speaks no HTTP", (socket) => socket.end("SSH-2.0-OpenSSH_9.6\r\n\r\n"), /NO_HTTP/],
      [
        "answers without an end",
        (socket) => void socket.write(`HTTP/1.1 200 OK\r\nx: ${"x".repeat(70_000)}`),
        /HEAD_TOO_LARGE/,
      ],
      ["changes the protocol", (socket) => socket.end("HTTP/1.1 101 Switching\r\n\r\n"), /with 101/],
      ["hangs up after its 200", (socket) => socket.end("HTTP/1.1 200 OK\r\n\r\n"), /could not be reached/],
      [
        "talks into the tunnel",
        (socket) => socket.end("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}"),
        /could not be reached/,
      ],
    ])("and %s has sent nothing", async (_name, misbehave, says) => {
      proxy.misdeed = (_request, socket) => misbehave(socket);
      const failure = await failureOf(secureUrl());
      expect(failure).toMatchObject(notSent);
      expect(failure.detail).toMatch(says);
      expect(proxy.requests).toHaveLength(1);
      expect(seen).toEqual([]);
      await until("nothing is left open", () => proxy.openSockets === 0);
    });

    test.each(["before its 200", "after it"])(
      "and hangs %s has sent nothing, and nothing is left open",
      async (when) => {
        proxy.misdeed = (_request, socket) => {
          if (when === "after it") socket.write("HTTP/1.1 200 OK\r\n\r\n");
          socket.resume();
        };
        const failure = await failureOf(secureUrl(), { timeouts: { connectMs: 100 } });
        expect(failure).toMatchObject(notSent);
        expect(failure.detail).toContain("CONNECT_TIMEOUT");
        const whole = await failureOf(secureUrl(), { timeouts: { totalMs: 100 } });
        expect(whole).toMatchObject(notSent);
        await until("nothing is left open", () => proxy.openSockets === 0);
      },
    );

    test("and says 103 before its 200 makes a tunnel all the same", async () => {
      proxy.misdeed = (_request, socket, pass) => {
        socket.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        pass();
      };
      expect(await ask(secureUrl()).answer).toMatchObject({ kind: "granted" });
    });

    test("and that is away, or has no name, is named", async () => {
      const settings = { httpsProxy: "http://broker:s3cret@127.0.0.1:1" };
      const failure = await failureOf(secureUrl(), { settings });
      expect(failure).toMatchObject(notSent);
      expect(failure.detail).toBe(
        "the proxy 127.0.0.1:1 of HTTPS_PROXY could not be reached (ECONNREFUSED); nothing was sent",
      );
    });

    test("by TLS itself is verified, and gets the client's certificate never", async () => {
      const asked: boolean[] = [];
      const pem = { key: key.privateKey.export({ format: "pem", type: "pkcs8" }), cert: certificate };
      const front = tls.createServer({ ...pem, requestCert: true, rejectUnauthorized: false }, (socket) => {
        asked.push(Object.keys(socket.getPeerCertificate()).length > 0);
        socket.on("error", () => {});
        socket.pipe(net.connect(proxy.port, "127.0.0.1").on("error", () => {})).pipe(socket);
      });
      await once(front.listen(0, "127.0.0.1"), "listening");
      onTestFinished(() => void front.close());
      const { port } = front.address() as net.AddressInfo;
      const at = (host: string) => ({
        httpsProxy: `https://broker:${encodeURIComponent("p@ss w0rd")}@${host}:${port}`,
      });
      expect(await ask(secureUrl(), { settings: at("127.0.0.1") }).answer).toMatchObject({ kind: "granted" });
      expect(asked).toEqual([false]);
      const failure = await failureOf(secureUrl(), { settings: at("localhost") });
      expect(failure).toMatchObject(notSent);
      expect(failure.detail).toContain("ERR_TLS_CERT_ALTNAME_INVALID");
    });

    test("has its permission asked for once more when the tunnel stands, on the request inside of it", async () => {
      let asked = 0;
      const failure = await failureOf(secureUrl(), { mayStillSend: () => ++asked === 1 });
      expect(failure).toMatchObject({ class: "not_sent", code: "send_window_passed" });
      expect([asked, seen]).toEqual([2, []]);
      expect(proxy.requests).toHaveLength(1);
    });

    test.each<[string, (response: http.ServerResponse) => void]>([
      ["cuts it", (response) => void response.socket?.destroy()],
      ["answers 502", (response) => void response.writeHead(502).end()],
    ])("and a provider behind that %s leave the outcome unknown", async (_name, behave) => {
      answer = behave;
      expect(await failureOf(secureUrl())).toMatchObject({ class: "unknown", code: "outcome_unknown" });
      expect(seen).toHaveLength(1);
    });

    test("and a 503 of the provider behind is its own: it came by TLS", async () => {
      answer = (response) => void response.writeHead(503).end();
      expect(await failureOf(secureUrl())).toMatchObject({ class: "refused_for_now", code: "provider_unavailable" });
    });
  });

  describe("that gets the request itself", () => {
    test("is given the address that was checked here, and its password, which the provider does not see", async () => {
      expect(await ask(plainUrl("inside.provider.test")).answer).toMatchObject({ kind: "granted" });
      expect(proxy.requests).toMatchObject([{ method: "POST", target: plainUrl() }]);
      expect(proxy.requests[0]?.headers).toMatchObject({ "proxy-authorization": `Basic ${btoa(credentials)}` });
      expect(proxy.faults).toEqual([]);
      expect(seen).toHaveLength(1);
      expect(seen[0]?.headers).not.toHaveProperty("proxy-authorization");
      await until("nothing is left open", () => proxy.openSockets === 0);
    });

    test("is given the name where that is set, once the address has been checked here all the same", async () => {
      expect(await ask(plainUrl(name), { settings: byName }).answer).toMatchObject({ kind: "granted" });
      expect(proxy.requests).toMatchObject([{ target: plainUrl(name) }]);
      expect(seen[0]?.headers["host"]).toBe(`${name}:${portOf(plain)}`);
      const elsewhere = { settings: byName, addresses: ["192.0.2.1"] };
      expect(await failureOf(plainUrl(name), elsewhere)).toMatchObject({ class: "not_sent", code: "blocked_address" });
      expect(proxy.requests).toHaveLength(1);
      expect(proxy.faults).toEqual([]);
    });

    test.each([500, 502, 503, 504, 511])(
      "and answers %i leaves the outcome unknown, whatever a rule says",
      async (status) => {
        proxy.misdeed = (_request, socket) =>
          socket.end(`HTTP/1.1 ${status} Odd\r\ncontent-length: 25\r\n\r\n{"error":"invalid_grant"}`);
        const rules = `grants: [import]\nerrors: [{ endpoint: token, status: ${status}, means: needs_reauthorization }]`;
        for (const definition of [undefined, define(rules, `id: own\ntoken: { url: "${plainUrl()}" }`)]) {
          const failure = await failureOf(plainUrl(), definition && { definition });
          expect(failure).toMatchObject({ class: "unknown", code: "outcome_unknown", status });
          expect(failure.detail).toMatch(/the proxy 127\.0\.0\.1:\d+, or the provider behind it, answered/);
        }
      },
    );

    test("and asks for a password is named, and has spent nothing", async () => {
      const settings = { httpProxy: `http://broker:wrong@127.0.0.1:${proxy.port}` };
      const failure = await failureOf(plainUrl(), { settings });
      expect(failure).toMatchObject({ class: "refused_for_now", code: "provider_unavailable", status: 407 });
      expect(failure.detail).toMatch(
        /the proxy 127\.0\.0\.1:\d+ refuses the user name or password \(407\): HTTP_PROXY/,
      );
      expect(seen).toEqual([]);
    });

    test.each<[string, (socket: net.Socket) => void]>([
      ["hangs up", (socket) => socket.end()],
      ["resets the connection", (socket) => socket.resetAndDestroy()],
      ["speaks no HTTP", (socket) => socket.end("SSH-2.0\r\n\r\n")],
    ])("and %s once it has the request leaves the outcome unknown", async (_name, misbehave) => {
      proxy.misdeed = (_request, socket) => misbehave(socket);
      expect(await failureOf(plainUrl())).toMatchObject({ class: "unknown", code: "outcome_unknown" });
      expect(proxy.requests).toHaveLength(1);
    });

    test("and does not answer leaves the outcome unknown at the end of the call, and nothing open", async () => {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      onTestFinished(() => void vi.useRealTimers());
      // The time passes only when the request has arrived, so the machine may be slow until then.
      proxy.misdeed = () => void vi.advanceTimersByTime(100);
      const failure = await failureOf(plainUrl(), { timeouts: { totalMs: 100 } });
      expect(failure).toMatchObject({ class: "unknown", code: "outcome_unknown" });
      await until("nothing is left open", () => proxy.openSockets === 0);
    });

    test("and that is away has sent nothing", async () => {
      const failure = await failureOf(plainUrl(), { settings: { httpProxy: "http://127.0.0.1:1" } });
      expect(failure).toMatchObject(notSent);
      expect(failure.detail).toContain("the proxy 127.0.0.1:1 of HTTP_PROXY could not be reached (ECONNREFUSED)");
    });

    test("has its permission asked for when the connection stands: what is too late leaves it empty", async () => {
      let asked = 0;
      const failure = await failureOf(plainUrl(), { mayStillSend: () => ++asked === 1 });
      expect(failure).toMatchObject({ class: "not_sent", code: "send_window_passed" });
      expect([asked, proxy.requests]).toEqual([2, []]);
    });

    test("and repeats what it was sent is not quoted with its password", async () => {
      answer = (response) => void response.writeHead(400).end();
      proxy.misdeed = ({ head }, socket) => {
        const said = JSON.stringify({ error: "odd", error_description: head });
        socket.end(`HTTP/1.1 400 Bad\r\ncontent-length: ${said.length}\r\n\r\n${said}`);
      };
      const failure = await failureOf(plainUrl());
      expect(failure).toMatchObject({ class: "refused_for_now", status: 400 });
      expect(failure.detail).toContain("odd");
    });
  });

  test("the sandbox, which is this broker itself, is reached directly", async () => {
    const url = plainUrl();
    const proxies = readProxies({ ...none, httpProxy: proxy.url });
    const egress = createEgress({ networks: null, trustedOrigin: new URL(url).origin, proxies });
    expect(egress.route(url, { isSandbox: true, networks: null }).proxy).toBeNull();
  });
});
