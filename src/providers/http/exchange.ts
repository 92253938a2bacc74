import type { Socket } from "node:net";
import { Client, type Dispatcher } from "undici";
import type { ProviderRequest } from "../format/definition.ts";
import { type AnswerRoom, type AnswerShare, freeBytes, maxBodyBytes } from "./answer-room.ts";
import { EndedError, openConnection, userAgent } from "./open-connection.ts";
import type { Egress, EgressProvider, Route } from "./egress.ts";
import type { OutboundProxy } from "./outbound-proxy.ts";

/** A request to a provider, ready to be written. Everything except method and URL holds secrets and is not enumerable. */
export type HttpRequest = {
  readonly method: ProviderRequest["method"];
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Absent: no body is sent. */
  readonly body?: string;
  /** A certificate and its key as PEM, to authenticate the connection with (RFC 8705, section 2). */
  readonly tls?: string;
  /** Certificates (PEM) of the authorities that may vouch for the server, in place of the usual ones. */
  readonly ca?: string;
  /** Every secret in the request, to be kept out of error texts. */
  readonly secrets: readonly string[];
};

/** An answer of a provider. Header names in lower case. Its body, as it was sent, may hold tokens. */
export type HttpResponse = {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: Buffer;
  /** False: cut off or too long; `body` is the part that came. */
  complete?: boolean;
  /** Longer than 1 MiB as it was sent; then it is not `complete`. */
  tooLong?: true;
  /** The proxy that forwards the request. The answer may be the proxy's own. */
  relayedBy?: OutboundProxy;
};

/**
 * The outcome of one exchange. `not_sent` and `window_passed`: certainly nothing was written. `cut_off`: the request may have been written, in
 * part or whole, and no answer came.
 */
export type ExchangeOutcome =
  | { kind: "answered"; response: HttpResponse }
  | { kind: "window_passed" }
  | { kind: "not_sent"; error: unknown }
  | { kind: "cut_off"; error: unknown };

/**
 * Milliseconds. `connectMs`: until the connection is open, a proxy's tunnel included. `headersMs`: from then to the end of the answer's
 * headers. `totalMs` bounds the whole call, the body included, and must stay below a permit's lease.
 */
export type ExchangeTimeouts = { connectMs: number; headersMs: number; totalMs: number };

/** The longest that the headers of an answer may be together. undici counts names and values, and stops at its limit. */
const longestHeadersBytes = 64 * 1024 + 1;

/** Most answers are shorter. */
const shortBytes = 8 * 1024;

type Call = {
  egress: Egress;
  timeouts: ExchangeTimeouts;
  room: AnswerRoom;
  mayStillSend: () => boolean;
  definition: EgressProvider;
  request: HttpRequest;
};

/**
 * Sends a request at most once, and calls `read` with the outcome. The room for the answer is released after that.
 * `mayStillSend` is asked at first, and again when the request is about to be written. Rejects only if `read` throws.
 */
export async function exchange<Read>(call: Call, read: (outcome: ExchangeOutcome) => Read): Promise<Read> {
  const begun = begin(call);
  if (!("sending" in begun)) return read(begun);
  const { sending, route } = begun;
  try {
    return read(await write(sending, { route, request: call.request, timeouts: call.timeouts }));
  } finally {
    sending.release();
  }
}

/** Nothing has been written yet, so an error here means "not sent". */
function begin(call: Call): { sending: HttpExchange; route: Route } | ExchangeOutcome {
  const { egress, timeouts, definition, request, mayStillSend, room } = call;
  if (!mayStillSend()) return { kind: "window_passed" };
  try {
    const route = egress.route(request.url, definition);
    const sending = new HttpExchange({ totalMs: timeouts.totalMs, mayStillSend, room, relayedBy: relayOf(route) });
    return { sending, route };
  } catch (error) {
    return { kind: "not_sent", error };
  }
}

/** No pool, no reuse, no HTTP/2: one connection, whose first bytes are this request and which ends with this call. */
async function write(
  sending: HttpExchange,
  { route, request, timeouts }: { route: Route; request: HttpRequest; timeouts: ExchangeTimeouts },
): Promise<ExchangeOutcome> {
  let opened: { client: Client; socket: Socket } | undefined;
  const ending = new AbortController();
  void sending.outcome.then(() => opened ?? ending.abort(new EndedError("ALREADY_ENDED")));
  const late = setTimeout(() => ending.abort(new EndedError("CONNECT_TIMEOUT")), timeouts.connectMs);
  try {
    const { socket, origin, prefix, headers } = await openConnection(route, {
      signal: ending.signal,
      certificate: request.tls,
      ca: request.ca,
    });
    clearTimeout(late);
    InterimFilter.install(socket);
    const client = new Client(origin, {
      connect: (_options, connected) => queueMicrotask(() => connected(null, socket)),
      headersTimeout: timeouts.headersMs,
      bodyTimeout: 0, // the whole call has an end
      maxHeaderSize: longestHeadersBytes,
      allowH2: false,
      pipelining: 1,
    });
    opened = { client, socket };
    client.dispatch(
      {
        path: `${prefix}${route.url.pathname}${route.url.search}`,
        method: request.method,
        headers: { ...sentHeaders(request), ...headers },
        body: request.body ?? null,
        reset: true,
      },
      sending,
    );
  } catch (error) {
    sending.end(error); // `end` knows whether the first byte was written
  }
  const outcome = await sending.outcome;
  clearTimeout(late);
  // undici closes the connection after a whole answer.
  if (opened?.socket.destroyed === false) void opened.client.destroy().catch(() => {});
  return outcome;
}

/** The headers of a request, without those of HTTP itself. They hold secrets. */
export function sentHeaders(request: HttpRequest): Record<string, string> {
  return { accept: "application/json", "user-agent": userAgent, ...request.headers, "accept-encoding": "identity" };
}

/** The proxy that gets the request instead of the provider. A proxy that makes a tunnel does not see it. */
function relayOf({ url, proxy }: Route): OutboundProxy | null {
  return url.protocol === "http:" ? proxy : null;
}

type Controller = Dispatcher.DispatchController;

/** One request through undici, from connecting to the end of the answer. `outcome` never rejects. */
export class HttpExchange implements Dispatcher.DispatchHandler {
  readonly outcome: Promise<ExchangeOutcome>;
  readonly #mayStillSend: () => boolean;
  readonly #room: AnswerRoom;
  #share: AnswerShare | null = null;
  readonly #relayedBy: OutboundProxy | null;
  readonly #deadline: NodeJS.Timeout;
  /** The body so far, copied: a chunk of one byte would keep its whole buffer in memory. */
  #body = Buffer.alloc(0);
  #size = 0;
  #resolve: (outcome: ExchangeOutcome) => void;
  #isOver = false;
  /** True from the moment at which undici is about to write. */
  #started = false;
  #head: { status: number; headers: Record<string, string> } | null = null;
  #controller: Controller | null = null;

  /** @param options `relayedBy`: the proxy that the request is given to in place of the provider; null: there is none, or a tunnel */
  constructor(options: {
    totalMs: number;
    mayStillSend: () => boolean;
    room: AnswerRoom;
    relayedBy: OutboundProxy | null;
  }) {
    const { promise, resolve } = Promise.withResolvers<ExchangeOutcome>();
    this.outcome = promise;
    this.#resolve = resolve;
    this.#mayStillSend = options.mayStillSend;
    this.#room = options.room;
    this.#relayedBy = options.relayedBy;
    this.#deadline = setTimeout(() => {
      const error = new EndedError("TOTAL_TIMEOUT");
      this.end(error);
      this.#controller?.abort(error);
    }, options.totalMs);
  }

  onRequestStart(controller: Controller): void {
    // undici calls this before the first byte; an abort here writes nothing. A second call would be a re-send.
    if (this.#isOver || this.#started) {
      controller.abort(new EndedError("ALREADY_ENDED"));
      return;
    }
    // failpoint (sync): before send
    if (!this.#mayStillSend()) {
      this.#end({ kind: "window_passed" });
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
    if (status < 200) return; // no valid status; interim answers were removed before
    this.#head = { status, headers: joinHeaders(headers) };
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#isOver) return;
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

  /** The call ends before the answer does. The part that came still counts. */
  end(error: unknown): void {
    if (this.#head) this.#answer({ complete: false });
    else this.#end({ kind: this.#started ? "cut_off" : "not_sent", error });
  }

  /** Releases the room of the answer after it has been read. */
  release(): void {
    this.#share?.release();
  }

  /** False: there is no room for more; `onRoom` is called when there is. The bytes that came are kept. */
  #append(chunk: Buffer, onRoom: () => void): boolean {
    const at = this.#size;
    this.#size += chunk.length;
    const needed = Math.min(this.#size, maxBodyBytes);
    const isEnough = needed <= this.#body.length;
    if (!isEnough) {
      const step = needed <= shortBytes ? shortBytes : freeBytes;
      const larger = Buffer.alloc(Math.ceil(needed / step) * step);
      this.#body.copy(larger, 0, 0, at);
      this.#body = larger;
    }
    chunk.copy(this.#body, at);
    if (isEnough || this.#body.length <= freeBytes) return true;
    this.#share ??= this.#room.open();
    return this.#share.grow(this.#body.length, onRoom);
  }

  #answer(end: { complete: boolean; tooLong?: true }): void {
    if (!this.#head || this.#isOver) return;
    const { status, headers } = this.#head;
    const response: HttpResponse = {
      status,
      headers,
      body: this.#body.subarray(0, this.#size),
      ...end,
      ...(this.#relayedBy !== null && { relayedBy: this.#relayedBy }),
    };
    this.#end({ kind: "answered", response });
  }

  #end(outcome: ExchangeOutcome): void {
    if (this.#isOver) return;
    this.#isOver = true;
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

/** The limit for all interim answers together. They are not stored, so this limits only the work: about 600,000 of the shortest. */
export const mostInterimBytes = 16 * 1024 * 1024;

/** `HTTP/1.1 100` and one more character: enough to distinguish an interim answer from the final one. */
const startLength = 13;

/** The server did something that no request asked for. `code` says what. */
class UnaskedError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/**
 * Removes the interim answers (1xx) before the final one from what a connection for one request gives. A client must accept any number of them, also
 * unasked for (RFC 9110, section 15.2). undici does not: it ends the connection at a 100 that it has not asked for, and the token in the
 * final answer would be lost. So they are removed before undici's parser. Everything from the final answer on is passed on unchanged. An
 * unasked 101 ends the connection, since what follows it is not HTTP.
 */
class InterimFilter {
  readonly #socket: Socket;
  readonly #push: Socket["push"];
  /** `start`: a status line is next. `interim`: the head of an interim answer, until its empty line. `final`: the answer. */
  #state: "start" | "interim" | "final" = "start";
  /** The last bytes that cannot be decided yet: at most 12 of a status line, or 2 of the end of a head. */
  #kept = Buffer.alloc(0);
  #interimBytes = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#push = socket.push.bind(socket);
  }

  /** From now on whoever reads from the socket gets what the filter leaves. Node gives `push` each piece that arrives. */
  static install(socket: Socket): void {
    const filter = new InterimFilter(socket);
    const early = socket.read() as Buffer | null;
    socket.push = (chunk: Buffer | null) => filter.#take(chunk);
    const left = early === null ? null : filter.#withoutInterim(early);
    if (left !== null) socket.unshift(left);
  }

  #take(chunk: Buffer | null): boolean {
    if (this.#state === "final") return this.#push(chunk);
    if (chunk === null) {
      if (this.#kept.length > 0) this.#push(this.#kept); // less than a status line: undici reports the error
      return this.#push(null);
    }
    const left = this.#withoutInterim(Buffer.concat([this.#kept, chunk]));
    return left === null || this.#push(left);
  }

  /** The part of these bytes that belongs to the final answer; null: none. */
  #withoutInterim(bytes: Buffer): Buffer | null {
    const text = bytes.toString("latin1");
    let at = 0;
    for (;;) {
      if (this.#state === "interim") {
        const end = findEmptyLine(text, at);
        this.#interimBytes += (end ?? text.length) - at;
        if (this.#interimBytes > mostInterimBytes) return this.#refuse("INTERIM_FLOOD");
        if (end === null) return this.#keep(bytes.subarray(Math.max(at, text.length - 2)));
        at = end;
        this.#state = "start";
      }
      if (text.length - at < startLength) return this.#keep(bytes.subarray(at));
      const [, status] = /^HTTP\/1\.[01] (1\d\d)[ \r\n]/.exec(text.slice(at, at + startLength)) ?? [];
      if (status === "101") return this.#refuse("UNASKED_UPGRADE");
      this.#state = status === undefined ? "final" : "interim";
      if (this.#state === "final") return bytes.subarray(at);
    }
  }

  #keep(bytes: Buffer): null {
    if (this.#state === "interim") this.#interimBytes -= bytes.length; // they are counted when they are read again
    this.#kept = Buffer.from(bytes);
    return null;
  }

  #refuse(code: string): null {
    this.#socket.destroy(new UnaskedError(code));
    return null;
  }
}

/** The position after the next empty line; null: there is none yet. A bare LF ends a line, too (RFC 9112, section 2.2). */
function findEmptyLine(text: string, from: number): number | null {
  const emptyLine = /\n\r?\n/g;
  emptyLine.lastIndex = from;
  return emptyLine.test(text) ? emptyLine.lastIndex : null;
}
