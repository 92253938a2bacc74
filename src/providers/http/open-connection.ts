import net from "node:net";
import tls from "node:tls";
import manifest from "../../../package.json" with { type: "json" };
import type { Route } from "./egress.ts";
import type { OutboundProxy } from "./outbound-proxy.ts";

/** An open connection, and the parts of the request that depend on the route. */
type Connection = {
  socket: net.Socket;
  /** The origin that goes into `Host`. */
  origin: string;
  /** What precedes the path in the request line: the origin, if a proxy forwards the request (RFC 9112, section 3.2.2). */
  prefix: string;
  /** For the proxy. Hold its password. */
  headers: Record<string, string>;
};

/**
 * Opens a connection, through the route's proxy if it has one. Nothing of the request is written before this resolves, so every error means
 * "not sent". When `signal` is aborted before, everything that was opened is closed.
 * @param options `certificate`: PEM of a client certificate and its key, for the provider alone. `ca`: PEM of the authorities that may
 * vouch for the provider, in place of the usual ones; a proxy is checked with the usual ones
 * @throws ProxyError, BlockedAddressError, errors of Node, and the signal's reason
 */
export async function openConnection(
  route: Route,
  { signal, certificate, ca }: { signal: AbortSignal; certificate: string | undefined; ca?: string | undefined },
): Promise<Connection> {
  signal.throwIfAborted();
  const { url, host, port, lookup, proxy } = route;
  const own = certificate === undefined ? {} : { cert: certificate, key: certificate };
  const pem = { ...own, ...(ca !== undefined && { ca }) };
  const secured = async (socket: net.Socket) =>
    url.protocol === "https:" ? await secure(socket, { host, signal, pem }) : socket;
  const plain = { origin: url.origin, prefix: "", headers: {} };
  if (proxy === null) return { socket: await secured(await openTcp({ host, port, lookup, signal })), ...plain };
  if (url.protocol === "http:") {
    // The address is checked before the proxy gets it in either case. With an address, nobody resolves the name again.
    const [address = ""] = await checkedAddresses(route, signal);
    const origin = proxy.byName ? url.origin : `http://${authority(address, port)}`;
    return { socket: await openProxy(proxy, signal), origin, prefix: origin, headers: authorizationOf(proxy) };
  }
  const hosts = proxy.byName ? [host] : await checkedAddresses(route, signal);
  const tunnel = await openTunnel({ proxy, hosts, port, signal });
  return { socket: await secured(tunnel), ...plain };
}

/** The allowed addresses, IPv4 first, since not every proxy can reach IPv6. */
async function checkedAddresses({ host, lookup }: Route, signal: AbortSignal): Promise<string[]> {
  if (net.isIP(host) !== 0) return [host];
  return await new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    lookup(host, { all: true }, (error, found) => {
      if (error) return reject(error);
      const addresses = Array.isArray(found) ? found : [];
      return resolve(addresses.toSorted((a, b) => a.family - b.family).map(({ address }) => address));
    });
  });
}

async function openTcp(options: {
  host: string;
  port: number;
  lookup?: net.LookupFunction;
  signal: AbortSignal;
}): Promise<net.Socket> {
  const { signal, ...target } = options;
  const socket = net.connect({ ...target, autoSelectFamily: true, noDelay: true });
  await untilEvent(socket, "connect", signal);
  return socket;
}

async function secure(
  socket: net.Socket,
  options: { host: string; signal: AbortSignal; pem?: { cert?: string; key?: string; ca?: string } },
): Promise<tls.TLSSocket> {
  const { host, signal, pem = {} } = options;
  const servername = net.isIP(host) === 0 ? host : "";
  const secured = tls.connect({ socket, host, servername, ALPNProtocols: ["http/1.1"], ...pem });
  try {
    await untilEvent(secured, "secureConnect", signal);
    return secured;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function openProxy(proxy: OutboundProxy, signal: AbortSignal): Promise<net.Socket> {
  const { name, setting, host, port, isTls } = proxy;
  try {
    const socket = await openTcp({ host, port, signal });
    return isTls ? await secure(socket, { host, signal }) : socket;
  } catch (error) {
    const said = `the proxy ${name} of ${setting} could not be reached (${reason(error)}); nothing was sent`;
    throw new ProxyError(said, { isOfProxy: true });
  }
}

/** A tunnel to the first of these hosts that the proxy reaches (RFC 9110, section 9.3.6). */
async function openTunnel(to: {
  proxy: OutboundProxy;
  hosts: readonly string[];
  port: number;
  signal: AbortSignal;
}): Promise<net.Socket> {
  const { proxy, hosts, port, signal } = to;
  for (const [index, host] of hosts.entries()) {
    const socket = await openProxy(proxy, signal);
    try {
      await connectTo(authority(host, port), { proxy, socket, signal });
      return socket;
    } catch (error) {
      socket.destroy();
      const mayTryNext = error instanceof ProxyError && error.isOfAddress && index < hosts.length - 1;
      if (!mayTryNext) throw error;
    }
  }
  throw new ProxyError("the provider's host has no address; nothing was sent");
}

async function connectTo(
  target: string,
  { proxy, socket, signal }: { proxy: OutboundProxy; socket: net.Socket; signal: AbortSignal },
): Promise<void> {
  const { name, setting, byName } = proxy;
  const headers = { host: target, "user-agent": userAgent, ...authorizationOf(proxy) };
  const lines = Object.entries(headers).map(([header, value]) => `${header}: ${value}\r\n`);
  socket.write(`CONNECT ${target} HTTP/1.1\r\n${lines.join("")}\r\n`);
  let status: number;
  try {
    status = await readStatus(socket, signal);
  } catch (error) {
    throw new ProxyError(`the proxy ${name} of ${setting} opened no tunnel (${reason(error)}); nothing was sent`);
  }
  if (status >= 200 && status < 300) return;
  if (status === 407) throw new ProxyError(`${asksForPassword(proxy)}; nothing was sent`, { isOfProxy: true });
  const hint = byName || status >= 500 ? "" : "; if it wants host names, set PROXY_CONNECT=by_name";
  throw new ProxyError(
    `the proxy ${name} of ${setting} refused a tunnel to the provider with ${status}; nothing was sent${hint}`,
    { isOfAddress: status >= 500 },
  );
}

function authorizationOf({ authorization }: OutboundProxy): Record<string, string> {
  return authorization === null ? {} : { "proxy-authorization": authorization };
}

const longestHead = 64 * 1024;

/** The status of the final answer to CONNECT. Bytes after its head stay in the socket. */
async function readStatus(socket: net.Socket, signal: AbortSignal): Promise<number> {
  let bytes = Buffer.alloc(0);
  for (;;) {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) {
      await untilEvent(socket, "readable", signal);
      continue;
    }
    bytes = Buffer.concat([bytes, chunk]);
    const head = finalHead(bytes.toString("latin1"));
    if (head === null && bytes.length > longestHead) throw new EndedError("HEAD_TOO_LARGE");
    if (head === null) continue;
    if (head.end < bytes.length) socket.unshift(bytes.subarray(head.end));
    return head.status;
  }
}

/** There may be interim answers before the final one. Null: it is not complete yet. @throws EndedError if it is not HTTP */
function finalHead(text: string): { status: number; end: number } | null {
  const emptyLine = /\n\r?\n/g;
  for (let at = 0; emptyLine.test(text); at = emptyLine.lastIndex) {
    const [, code] = /^HTTP\/1\.[01] (\d{3})[ \r\n]/.exec(text.slice(at, at + 13)) ?? [];
    if (code === undefined) throw new EndedError("NO_HTTP");
    if (code >= "200" || code === "101") return { status: Number(code), end: emptyLine.lastIndex };
  }
  return null;
}

/** Waits for an event. A socket that fails, ends or is given up before is destroyed, and its error, or the signal's reason, thrown. */
async function untilEvent(socket: net.Socket, event: string, signal: AbortSignal): Promise<void> {
  // The user of the connection adds its own listener. Until then, an error must not end the process.
  if (socket.listenerCount("error", ignore) === 0) socket.on("error", ignore);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = () => reject(new EndedError("CLOSED"));
  const onAbort = () => reject(signal.reason);
  socket.once(event, resolve).once("error", reject).once("end", onClose).once("close", onClose);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    await promise;
  } catch (error) {
    socket.destroy();
    throw signal.aborted ? signal.reason : error;
  } finally {
    socket.off(event, resolve).off("error", reject).off("end", onClose).off("close", onClose);
    signal.removeEventListener("abort", onAbort);
  }
}

const ignore = () => {};

/** Why no request was sent through a proxy, in words that name the proxy. */
export class ProxyError extends Error {
  /** The failure is about the proxy, and says nothing about the host behind it. */
  readonly isOfProxy: boolean;
  /** Another address of the same host may still be reachable. */
  readonly isOfAddress: boolean;

  constructor(message: string, about: { isOfProxy?: boolean; isOfAddress?: boolean } = {}) {
    super(message);
    this.name = "ProxyError";
    this.isOfProxy = about.isOfProxy ?? false;
    this.isOfAddress = about.isOfAddress ?? false;
  }
}

/** What a 407 of a proxy means, for people. */
export function asksForPassword({ name, setting, authorization }: OutboundProxy): string {
  const what = authorization === null ? "wants a user name and a password" : "refuses the user name or password";
  return `the proxy ${name} ${what} (407): ${setting} holds them`;
}

/** The `User-Agent` of every request (RFC 9110, section 10.1.5), unless the definition sets another. */
export const userAgent = `freshet/${manifest.version}`;

/** This process ended the call. `code` says why. */
export class EndedError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** A code such as ECONNREFUSED, never a message: those may quote what was sent. */
export function reason(error: unknown): string {
  const first: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  if (first instanceof Error && "code" in first && typeof first.code === "string") return first.code;
  return first instanceof Error ? first.name : "no cause given";
}

/** An address or a host name with a port, as it stands in a URL. */
export function authority(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
