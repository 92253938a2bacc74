import { createServer, type IncomingMessage, type ServerOptions, type ServerResponse } from "node:http";
import type { FastifyServerFactory } from "fastify";
import { LRUCache } from "lru-cache";
import type { KeyService } from "../callers/keys.ts";
import { coversName, type Principal } from "../callers/principal.ts";
import type { WorkloadService } from "../callers/workloads.ts";
import { looksLikeJwt } from "../jwt-form.ts";
import { binds, carries } from "../labels.ts";
import { nobodysName } from "../text.ts";
import type { FreshToken, TokenService } from "../tokens/read.ts";
import type { AnswerHeaders } from "./headers.ts";
import type { TokenRoutesOptions } from "./routes/tokens.ts";
import { viewToken } from "./views.ts";

/** Answers a request if it can, sooner or later. False: it has sent and counted nothing, and the general way answers. */
export type FreshRead = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

export type FreshReadOptions = {
  keys: Pick<KeyService, "known">;
  workloads: Pick<WorkloadService, "known">;
  tokens: Pick<TokenService, "fresh" | "load" | "noteFresh" | "issueFresh">;
  /** For requests that the general way answers after all. */
  loaded: TokenRoutesOptions["loaded"];
  /** Counts as `countReadResult` of the general way does, for one caller and result. */
  readCounter: (kind: { by: Principal; result: string }) => (connection: string) => void;
  headers: AnswerHeaders;
  /** True: the general way tells callers to go elsewhere. */
  isClosing: () => boolean;
};

/**
 * What an answer has around that which differs from connection to connection and from read to read. Most connections share one. `token`: how the
 * token is written, if not as it is; such a frame is of one connection alone.
 */
type Frame = {
  texts: readonly string[];
  /** Beyond one for each character. */
  furtherBytes: number;
  token: string | null;
};

const path = "/tokens/";
const scheme = "Bearer ";
/** Of a connection. */
const nameForm = /^[a-z0-9][a-z0-9._-]{0,127}$/;

/**
 * The short way of `GET /tokens/:connection`: a caller that is known, a row that is trusted, a token that is fresh, no wishes. All of it is in memory,
 * but for the row, which is read first if need be. Everything else, every refusal included, goes the general way (routes/tokens.ts). Both ways
 * send the same bytes: test/integration/fresh-read-bytes.test.ts.
 */
export function createFreshRead(options: FreshReadOptions): FreshRead {
  const { keys, workloads, tokens, loaded, readCounter, headers, isClosing } = options;
  const frameOf = createFrames();
  /** One for each caller that is known. Callers are read anew after seconds, and with them this. */
  const counters = new WeakMap<Principal, (connection: string) => void>();
  const sent = [...Object.entries(headers).flat(), "content-type", "application/json; charset=utf-8", "content-length"];

  /** For a caller whose patterns cover the name. False: its labels are not those of the connection, and nothing is done. */
  const answer = (by: Principal, fresh: FreshToken, response: ServerResponse): boolean => {
    const { found, expiresInSeconds } = fresh;
    if (!carries(found.labels, by.labels)) return false;
    found.answer ??= frameOf(viewToken(tokens.issueFresh(fresh)));
    const frame = found.answer as Frame;
    let count = counters.get(by);
    if (count === undefined) counters.set(by, (count = readCounter({ by, result: "ok" })));
    tokens.noteFresh(fresh);
    count(found.name);
    const body = fill(frame, found, expiresInSeconds);
    response.writeHead(200, [...sent, String(body.length + frame.furtherBytes)]);
    response.end(body, frame.furtherBytes === 0 ? "latin1" : "utf8");
    return true;
  };

  const readFirst = async (by: Principal, name: string, { request, response }: Asked): Promise<boolean> => {
    // What the caller may not know of is looked for as well, so it costs the same as what nobody has.
    const loading = tokens.load(coversName(by, name) ? name : nobodysName(name));
    loaded.set(request, loading);
    const found = await loading.catch(() => null); // the general way says what is wrong
    // failpoint: row read first
    if (response.destroyed) return true; // nobody is there any more
    const fresh = found === null ? null : tokens.fresh(name, by.labels);
    return fresh !== null && answer(by, fresh, response);
  };

  return (request, response) => {
    const { method, url = "" } = request;
    const { authorization } = request.headers;
    // A query or an escape sequence is part of no connection's name.
    if (method !== "GET" || !url.startsWith(path) || authorization?.startsWith(scheme) !== true) return false;
    const bearer = authorization.slice(scheme.length);
    const by = looksLikeJwt(bearer) ? workloads.known(bearer) : keys.known(bearer);
    if (by === null || isClosing() || !by.abilities.includes("tokens")) return false;
    const name = url.slice(path.length);
    // Memory is asked only for what the caller may know of.
    const fresh = coversName(by, name) ? tokens.fresh(name, by.labels) : null;
    if (fresh !== null) return answer(by, fresh, response);
    // Labels are looked for by a query of their own, first.
    return !binds(by.labels) && nameForm.test(name) && readFirst(by, name, { request, response });
  };
}

type Asked = { request: IncomingMessage; response: ServerResponse };

/** No text of a view holds it, since Postgres stores none that does. */
const gap = "\0";
const maxFrames = 10_000;

/** Returns the frame of an answer, the same for all that differ in nothing else. */
function createFrames(): (view: ReturnType<typeof viewToken>) => Frame {
  const frames = new LRUCache<string, Frame>({ maxSize: maxFrames, sizeCalculation: () => 1 });
  return (view) => {
    const gaps = { connection: gap, access_token: gap, expires_at: gap, expires_in: gap, version: gap };
    const text = JSON.stringify({ ...view, ...gaps });
    const token = JSON.stringify(view.access_token).slice(1, -1);
    if (token !== view.access_token) return makeFrame(text, token);
    const known = frames.get(text) ?? makeFrame(text, null);
    frames.set(text, known);
    return known;
  };
}

function makeFrame(text: string, token: string | null): Frame {
  const [a, b, c, ...others] = text.split(JSON.stringify(gap));
  const texts = [`${a}"`, `"${b}"`, `"${c}`, ...others];
  const furtherBytes = Buffer.byteLength(text) - text.length;
  return { texts, furtherBytes, token };
}

/** Names and tokens that are handed out are ASCII, and JSON writes names as they are. */
function fill({ texts, token }: Frame, found: FreshToken["found"], expiresIn: number | null): string {
  const { name, accessToken, expiresAtMs, version } = found;
  if (found.writtenEnd === "") {
    found.writtenEnd = expiresAtMs === Infinity ? "null" : `"${new Date(expiresAtMs).toISOString()}"`;
  }
  const [a, b, c, d, e, f] = texts;
  return `${a}${name}${b}${token ?? accessToken}${c}${found.writtenEnd}${d}${expiresIn}${e}${version}${f}`;
}

/**
 * Fastify's `serverFactory`: the server that it would make itself, with the short way before the general one. If the short way fails, the
 * general one answers, and `onError` is called: nobody else would catch it.
 */
export const serverWith =
  (
    fresh: FreshRead,
    { http, onError }: { http: ServerOptions; onError: (error: unknown) => void },
  ): FastifyServerFactory =>
  (handler, { keepAliveTimeout, connectionTimeout }) => {
    const server = createServer(http, (request, response) => {
      const answerGenerally = () => {
        if (response.headersSent) response.destroy();
        else handler(request, response);
      };
      const fail = (error: unknown) => {
        onError(error);
        answerGenerally();
      };
      try {
        const isAnswered = fresh(request, response);
        if (isAnswered === false) answerGenerally();
        else if (isAnswered !== true) isAnswered.then((isDone) => isDone || answerGenerally()).catch(fail);
      } catch (error) {
        fail(error);
      }
    });
    server.keepAliveTimeout = Number(keepAliveTimeout);
    server.setTimeout(Number(connectionTimeout));
    return server;
  };
