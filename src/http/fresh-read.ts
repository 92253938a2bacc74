import { createServer, type IncomingMessage, type ServerOptions, type ServerResponse } from "node:http";
import type { FastifyServerFactory } from "fastify";
import type { KeyService } from "../callers/keys.ts";
import { mayUse, type Principal } from "../callers/principal.ts";
import type { FreshToken, TokenService } from "../tokens/read.ts";
import type { AnswerHeaders } from "./headers.ts";
import type { TokenRoutesOptions } from "./routes/tokens.ts";
import { viewToken } from "./views.ts";

/** Answers a request if it can. False: it has done nothing, and the general way answers. */
export type FreshRead = (request: IncomingMessage, response: ServerResponse) => boolean;

export type FreshReadOptions = {
  keys: Pick<KeyService, "known">;
  tokens: Pick<TokenService, "fresh" | "noteFresh" | "issueFresh">;
  /** What `countReadResult` of the general way counts; each call counts one. */
  readCounter: (read: Parameters<TokenRoutesOptions["countReadResult"]>[0]) => () => void;
  headers: AnswerHeaders;
  /** True: the general way tells callers to go elsewhere. */
  isClosing: () => boolean;
};

/** An answer that was written once for a row. From read to read only `expires_in`, between `head` and `tail`, differs. */
type Prepared = {
  head: string;
  tail: string;
  /** Of both. */
  bytes: number;
  encoding: "latin1" | "utf8";
  /** Callers that may have it, and what counts their reads. Rows and callers are read anew after seconds, and with them this. */
  allowed: WeakMap<Principal, () => void>;
};

const path = "/tokens/";
const scheme = "Bearer ";

/**
 * The short way of `GET /tokens/:connection`: a key that was verified, a row that is trusted, a token that is fresh, no wishes. All of it is in memory,
 * so nothing is waited for. Everything else, every refusal included, goes the general way (routes/tokens.ts). Both ways send the same bytes:
 * test/integration/fresh-read-bytes.test.ts.
 */
export function createFreshRead({ keys, tokens, readCounter, headers, isClosing }: FreshReadOptions): FreshRead {
  const prepared = new WeakMap<FreshToken["found"], Prepared>();
  const sent = [...Object.entries(headers).flat(), "content-type", "application/json; charset=utf-8", "content-length"];

  return (request, response) => {
    const { method, url = "" } = request;
    const { authorization } = request.headers;
    // A query or an escape sequence is part of no connection's name.
    if (method !== "GET" || !url.startsWith(path) || authorization?.startsWith(scheme) !== true) return false;
    const by = keys.known(authorization.slice(scheme.length));
    const fresh = by === null || isClosing() ? null : tokens.fresh(url.slice(path.length));
    if (by === null || fresh === null) return false;
    let answer = prepared.get(fresh.found);
    let count = answer?.allowed.get(by);
    if (answer === undefined || count === undefined) {
      // Before anything is done for this caller: a refusal costs the same whatever is in memory.
      if (!by.abilities.includes("tokens") || !mayUse(by, fresh.found.row)) return false;
      answer ??= prepare(viewToken(tokens.issueFresh(fresh)));
      prepared.set(fresh.found, answer);
      count = readCounter({ by, connection: fresh.found.row.name, result: "ok" });
      answer.allowed.set(by, count);
    }
    tokens.noteFresh(fresh);
    count();
    const expiresIn = String(fresh.expiresInSeconds);
    response.writeHead(200, [...sent, String(answer.bytes + expiresIn.length)]);
    response.end(answer.head + expiresIn + answer.tail, answer.encoding);
    return true;
  };
}

function prepare(view: ReturnType<typeof viewToken>): Prepared {
  const mark = '"expires_in":0,';
  // Inside a text of JSON a quotation mark is escaped, so the mark is found once.
  const [head = "", tail = ""] = JSON.stringify({ ...view, expires_in: 0 }).split(mark);
  const [before, after] = [`${head}"expires_in":`, `,${tail}`];
  const bytes = Buffer.byteLength(before) + Buffer.byteLength(after);
  const isAscii = bytes === before.length + after.length;
  return { head: before, tail: after, bytes, encoding: isAscii ? "latin1" : "utf8", allowed: new WeakMap() };
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
      try {
        if (fresh(request, response)) return;
      } catch (error) {
        onError(error);
      }
      if (response.headersSent) response.destroy();
      else handler(request, response);
    });
    server.keepAliveTimeout = Number(keepAliveTimeout);
    server.setTimeout(Number(connectionTimeout));
    return server;
  };
