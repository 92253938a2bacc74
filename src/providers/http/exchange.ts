import net from "node:net";
import tls from "node:tls";
import type { Dispatcher } from "undici";
import manifest from "../../../package.json" with { type: "json" };
import { maxBodyBytes } from "../oauth/answer-body.ts";
import type { TokenResponse } from "../oauth/token-response.ts";
import type { Route } from "./egress.ts";
import { asksForPassword, authority, bareHost, type OutboundProxy, portOf, ProxyError } from "./outbound-proxy.ts";

/**
 * What came of one exchange. `not_sent` and `window_passed`: nothing was written, with certainty. `cut_off`: the request
 * may have been written, in part or whole, and no answer came.
 */
export type ExchangeOutcome =
  | { kind: "answered"; response: TokenResponse }
  | { kind: "window_passed" }
  | { kind: "not_sent"; error: unknown }
  | { kind: "cut_off"; error: unknown };

type Controller = Dispatcher.DispatchController;

/** This process ended the call. `code` says why. */
export class EndedError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** One request through undici, from connecting to the end of the answer. `outcome` never rejects. */
export class HttpExchange implements Dispatcher.DispatchHandler {
  readonly outcome: Promise<ExchangeOutcome>;
  readonly #mayStillSend: () => boolean;
  readonly #share: AnswerShare;
  readonly #relayedBy: OutboundProxy | null;
  readonly #deadline: NodeJS.Timeout;
  /** What has come of the body, copied: a chunk of one byte keeps all that it came with. */
  #body = Buffer.alloc(0);
  #size = 0;
  #resolve: (outcome: ExchangeOutcome) => void;
  #settled = false;
  /** True from the last moment at which undici had written nothing. */
  #started = false;
  #head: { status: number; headers: Record<string, string> } | null = null;
  #controller: Controller | null = null;

  /** @param options `relayedBy`: the proxy that the request is given to in place of the provider; null: there is none, or a tunnel */
  constructor(options: {
    totalMs: number;
    mayStillSend: () => boolean;
    share: AnswerShare;
    relayedBy: OutboundProxy | null;
  }) {
    const { promise, resolve } = Promise.withResolvers<ExchangeOutcome>();
    this.outcome = promise;
    this.#resolve = resolve;
    this.#mayStillSend = options.mayStillSend;
    this.#share = options.share;
    this.#relayedBy = options.relayedBy;
    this.#deadline = setTimeout(() => {
      const error = new EndedError("TOTAL_TIMEOUT");
      this.end(error);
      this.#controller?.abort(error);
    }, options.totalMs);
  }

  onRequestStart(controller: Controller): void {
    // undici calls this before the first byte; an abort here writes nothing. A second call would be a re-send.
    if (this.#settled || this.#started) {
      controller.abort(new EndedError("ALREADY_ENDED"));
      return;
    }
    // failpoint (sync): before send
    if (!this.#mayStillSend()) {
      this.#settle({ kind: "window_passed" });
      controller.abort(new EndedError("WINDOW_PASSED"));
      return;
    }
    this.#started = true;
    this.#controller = controller;
  }

  onResponseStart(
    _controller: Controller,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (status < 200) return; // no answer by any name: interim ones do not come this far
    this.#head = { status, headers: joinHeaders(headers) };
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#settled) return;
    const isGiven = this.#append(chunk, () => controller.resume());
    if (this.#size > maxBodyBytes) {
      this.#answer({ complete: false, tooLong: true });
      controller.abort(new EndedError("BODY_TOO_LARGE"));
    } else if (!isGiven) {
      controller.pause();
    }
  }

  onResponseEnd(): void {
    this.#answer({ complete: true });
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.end(error);
  }

  /** The call is over without an end of the answer: what has come of it still counts. */
  end(error: unknown): void {
    if (this.#head) this.#answer({ complete: false });
    else this.#settle({ kind: this.#started ? "cut_off" : "not_sent", error });
  }

  /** False: there is no room for more, and `onRoom` is called once there is. What has come is kept all the same. */
  #append(chunk: Buffer, onRoom: () => void): boolean {
    const at = this.#size;
    this.#size += chunk.length;
    const needed = Math.min(this.#size, maxBodyBytes);
    const isEnough = needed <= this.#body.length;
    if (!isEnough) {
      const larger = Buffer.alloc(Math.ceil(needed / freeBytes) * freeBytes);
      this.#body.copy(larger, 0, 0, at);
      this.#body = larger;
    }
    chunk.copy(this.#body, at);
    return isEnough || this.#share.grow(this.#body.length, onRoom);
  }

  #answer(end: { complete: boolean; tooLong?: true }): void {
    if (!this.#head || this.#settled) return;
    const { status, headers } = this.#head;
    const response: TokenResponse = {
      status,
      headers,
      body: this.#body.subarray(0, this.#size),
      ...end,
      ...(this.#relayedBy !== null && { relayedBy: this.#relayedBy }),
    };
    this.#settle({ kind: "answered", response });
  }

  #settle(outcome: ExchangeOutcome): void {
    if (this.#settled) return;
    this.#settled = true;
    clearTimeout(this.#deadline);
    this.#resolve(outcome);
  }
}

function joinHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const joined: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) joined[name.toLowerCase()] = Array.isArray(value) ? value.join(", ") : value;
  }
  return joined;
}

/** What every request says it comes from (RFC 9110, section 10.1.5), unless the definition names something else. */
export const userAgent = `freshet/${manifest.version}`;

/** An open connection, and what the request says because of the way that it goes. */
export type Connection = {
  socket: net.Socket;
  /** The origin that goes into `Host`. */
  origin: string;
  /** What stands before the path in the first line: the origin where a proxy passes requests on (RFC 9112, section 3.2.2). */
  prefix: string;
  /** For the proxy. Hold its password. */
  headers: Record<string, string>;
};

/** Who gets the request itself, in place of the provider. A proxy that makes a tunnel does not see it. */
export function relayOf({ url, proxy }: Route): OutboundProxy | null {
  return url.protocol === "http:" ? proxy : null;
}

/**
 * Opens a connection, through the route's proxy if it has one. Nothing of the request is written before this has
 * resolved, so whatever it throws means: not sent. When `signal` is aborted, now or later, everything that was opened is closed.
 * @param options `certificate`: PEM of a client certificate and its key, for the provider alone
 * @throws ProxyError, BlockedAddressError, errors of Node, and the signal's reason
 */
export async function openConnection(
  route: Route,
  { signal, certificate }: { signal: AbortSignal; certificate: string | undefined },
): Promise<Connection> {
  signal.throwIfAborted();
  const { url, lookup, proxy } = route;
  const target = { host: bareHost(url), port: portOf(url) };
  const pem = certificate === undefined ? {} : { cert: certificate, key: certificate };
  const secured = async (socket: net.Socket) =>
    url.protocol === "https:" ? await secure(socket, { host: target.host, signal, pem }) : socket;
  const plain = { origin: url.origin, prefix: "", headers: {} };
  if (proxy === null) return { socket: await secured(await openTcp({ ...target, lookup, signal })), ...plain };
  if (url.protocol === "http:") {
    // The check stands before the proxy in either case; with an address nobody resolves the name a second time.
    const [address = ""] = await checkedAddresses(route, signal);
    const origin = proxy.byName ? url.origin : `http://${authority(address, target.port)}`;
    return { socket: await openProxy(proxy, signal), origin, prefix: origin, headers: authorizationOf(proxy) };
  }
  const hosts = proxy.byName ? [target.host] : await checkedAddresses(route, signal);
  const tunnel = await openTunnel({ proxy, hosts, port: target.port, signal });
  return { socket: await secured(tunnel), ...plain };
}

/** The addresses that may be connected to, those of IPv4 first: not every proxy has a way to the others. */
async function checkedAddresses({ url, lookup }: Route, signal: AbortSignal): Promise<string[]> {
  const host = bareHost(url);
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
  const socket = net.connect({ ...target, autoSelectFamily: true, noDelay: true, signal });
  await settled(socket, "connect", signal);
  return socket;
}

async function secure(
  socket: net.Socket,
  options: { host: string; signal: AbortSignal; pem?: { cert?: string; key?: string } },
): Promise<tls.TLSSocket> {
  const { host, signal, pem = {} } = options;
  const servername = net.isIP(host) === 0 ? host : "";
  const secured = tls.connect({ socket, host, servername, ALPNProtocols: ["http/1.1"], ...pem });
  try {
    await settled(secured, "secureConnect", signal);
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

/** The status of the final answer to CONNECT. What comes behind its head stays in the socket. */
async function readStatus(socket: net.Socket, signal: AbortSignal): Promise<number> {
  let bytes = Buffer.alloc(0);
  for (;;) {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) {
      await settled(socket, "readable", signal);
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

/** Interim answers may stand before the final one here, too. Null: it is not whole yet. @throws EndedError for what is no HTTP */
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
async function settled(socket: net.Socket, event: string, signal: AbortSignal): Promise<void> {
  // Whoever uses the connection listens for himself. In between, an error must not end the process.
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

/** A code such as ECONNREFUSED, never a message: those may quote what was sent. */
export function reason(error: unknown): string {
  const first: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  if (first instanceof Error && "code" in first && typeof first.code === "string") return first.code;
  return first instanceof Error ? first.name : "no cause given";
}

/** So much of each answer is taken at once, whatever others take: hardly any answer is longer. */
export const freeBytes = 64 * 1024;
/** What all answers of one process may hold together beyond their first 64 KiB each. */
const roomBytes = 64 * 1024 * 1024;
const mostOfOne = maxBodyBytes - freeBytes;

/**
 * Bounds the memory that long answers take. A body for which there is no room waits: its connection is not read until another
 * answer has been dealt with. It is never dropped, since the token that it answers is spent.
 *
 * Answers cannot wait for each other in a circle: room is given only while what is left lets the answer that has most end,
 * which frees enough for any other one.
 */
export class AnswerRoom {
  #left: number;
  readonly #shares = new Set<AnswerShare>();

  constructor(bytes = roomBytes) {
    this.#left = bytes;
  }

  /** The share of one answer. Give it back with `release`, whatever comes of the answer. */
  open(): AnswerShare {
    const share: AnswerShare = new AnswerShare({
      take: (bytes) => this.#take(share, bytes),
      release: () => this.#release(share),
    });
    this.#shares.add(share);
    return share;
  }

  #take(share: AnswerShare, bytes: number): boolean {
    const left = this.#left - (bytes - share.bytes);
    const most = Math.max(bytes, ...Array.from(this.#shares, (other) => other.bytes));
    if (left < mostOfOne - most) return false;
    this.#left = left;
    return true;
  }

  #release(share: AnswerShare): void {
    if (!this.#shares.delete(share)) return;
    this.#left += share.bytes;
    // Who has most lacks least, and ends first.
    for (const waiting of [...this.#shares].sort((a, b) => b.bytes - a.bytes)) waiting.tryAgain();
  }
}

type Room = { take: (bytes: number) => boolean; release: () => void };

export class AnswerShare {
  /** Beyond the first 64 KiB. */
  bytes = 0;
  readonly #room: Room;
  #waiting: { bytes: number; onRoom: () => void } | null = null;

  constructor(room: Room) {
    this.#room = room;
  }

  /** Asks for room for the first `size` bytes of the answer. False: there is none yet, and `onRoom` is called once there is. */
  grow(size: number, onRoom: () => void): boolean {
    const bytes = Math.min(Math.max(size - freeBytes, 0), mostOfOne);
    if (bytes === 0) return true;
    this.#waiting = { bytes, onRoom };
    return this.#settle();
  }

  tryAgain(): void {
    const onRoom = this.#waiting?.onRoom;
    if (onRoom !== undefined && this.#settle()) queueMicrotask(onRoom);
  }

  release(): void {
    this.#waiting = null;
    this.#room.release();
  }

  #settle(): boolean {
    if (this.#waiting === null || !this.#room.take(this.#waiting.bytes)) return false;
    this.bytes = this.#waiting.bytes;
    this.#waiting = null;
    return true;
  }
}
