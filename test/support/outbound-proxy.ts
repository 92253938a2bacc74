import { once } from "node:events";
import net from "node:net";

/** One request as the proxy got it. `target`: what stands in the first line. */
export type ProxiedRequest = { method: string; target: string; headers: Record<string, string>; head: string };

/** What the proxy does with a request, in place of what it should. `pass` does that after all. */
export type Misdeed = (request: ProxiedRequest, socket: net.Socket, pass: () => void) => void;

/**
 * A proxy on the way out: it makes tunnels and passes plain requests on (RFC 9110, sections 7.6 and 9.3.6). It is strict: what no client may
 * send to a proxy is a fault in its ledger. Take it with `await using`.
 */
export class OutboundProxyServer implements AsyncDisposable {
  readonly port: number;
  readonly requests: ProxiedRequest[] = [];
  /** What a client has done wrong, in words. */
  readonly faults: string[] = [];
  /** Bytes that clients have sent into tunnels. */
  tunnelledBytes = 0;
  misdeed: Misdeed | null = null;
  /** Asked for with 407 unless it comes with each request. */
  readonly credentials: string | null;
  /** Names that this proxy resolves by itself. */
  readonly names: Record<string, string>;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(server: net.Server, options: { credentials: string | null; names: Record<string, string> }) {
    this.#server = server;
    this.port = (server.address() as net.AddressInfo).port;
    this.credentials = options.credentials;
    this.names = options.names;
    server.on("connection", (socket) => this.#serve(socket));
  }

  static async start(
    options: { credentials?: string; names?: Record<string, string> } = {},
  ): Promise<OutboundProxyServer> {
    const server = net.createServer();
    await once(server.listen(0, "127.0.0.1"), "listening");
    return new OutboundProxyServer(server, {
      credentials: options.credentials ?? null,
      names: options.names ?? {},
    });
  }

  /** With user and password where it asks for them. */
  get url(): string {
    const [user = "", password = ""] = (this.credentials ?? "").split(":").map(encodeURIComponent);
    return `http://${this.credentials === null ? "" : `${user}:${password}@`}127.0.0.1:${this.port}`;
  }

  get openSockets(): number {
    return this.#sockets.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #track(socket: net.Socket): net.Socket {
    this.#sockets.add(socket);
    socket.on("error", () => {}).on("close", () => void this.#sockets.delete(socket));
    return socket;
  }

  #serve(socket: net.Socket): void {
    let received = "";
    const onData = (chunk: Buffer) => {
      received += chunk.toString("latin1");
      const end = received.indexOf("\r\n\r\n");
      if (end < 0) return;
      socket.off("data", onData).pause();
      const request = readHead(received.slice(0, end));
      const rest = Buffer.from(received.slice(end + 4), "latin1");
      this.requests.push(request);
      this.#check(request, rest);
      const pass = () => this.#pass(request, socket, rest);
      if (this.misdeed === null) return pass();
      this.misdeed(request, socket, pass);
      return void socket.resume(); // or it would not notice that the client has gone
    };
    this.#track(socket).on("data", onData);
  }

  /** What a client must keep to: RFC 9112, section 3.2, and RFC 9110, sections 9.3.6 and 11.7. */
  #check({ method, target, headers }: ProxiedRequest, rest: Buffer): void {
    const authority = method === "CONNECT" ? target : (/^http:\/\/([^/]+)\//.exec(target)?.[1] ?? "");
    if (authority === "") this.faults.push(`${method} without an absolute target: ${target}`);
    if (method === "CONNECT" && !/^(\[[\da-f:.]+\]|[^:]+):\d+$/i.test(target)) {
      this.faults.push(`CONNECT without host and port: ${target}`);
    }
    if (headers["host"] !== authority) this.faults.push(`Host ${headers["host"]} for ${authority}`);
    if (method === "CONNECT" && rest.length > 0) this.faults.push("bytes for the tunnel before its 200");
    for (const name of ["authorization", "content-type", "cookie", "accept"]) {
      if (method === "CONNECT" && name in headers) this.faults.push(`CONNECT with ${name}`);
    }
  }

  #pass(request: ProxiedRequest, socket: net.Socket, rest: Buffer): void {
    const { method, target, headers } = request;
    const given = headers["proxy-authorization"] ?? null;
    if (this.credentials !== null && given !== `Basic ${Buffer.from(this.credentials).toString("base64")}`) {
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="out"\r\n\r\nno');
      return;
    }
    const url = new URL(method === "CONNECT" ? `http://${target}` : target);
    const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
    const away = this.#track(net.connect({ host: this.names[host] ?? host, port: Number(url.port || "80") }));
    away.on("error", () => socket.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"));
    away.once("connect", () => {
      if (method === "CONNECT") {
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        socket.on("data", (chunk: Buffer) => (this.tunnelledBytes += chunk.length));
      } else {
        const lines = request.head.split("\r\n").filter((line) => !/^proxy-authorization:/i.test(line));
        away.write(
          [`${method} ${url.pathname}${url.search} HTTP/1.1`, ...lines.slice(1)].join("\r\n") + "\r\n\r\n",
          "latin1",
        );
        away.write(rest);
      }
      socket.pipe(away).pipe(socket);
    });
    socket.on("close", () => away.destroy());
    away.on("close", () => socket.end());
  }
}

function readHead(head: string): ProxiedRequest {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", target = ""] = first.split(" ");
  const headers = lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  });
  return { method, target, headers: Object.fromEntries(headers) as Record<string, string>, head };
}
