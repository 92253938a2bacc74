import { createServer, type IncomingMessage, type ServerOptions, type ServerResponse } from "node:http";
import type { FastifyServerFactory } from "fastify";
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
/** Of a connection. */
const nameForm = /^[a-z0-9][a-z0-9._-]{0,127}$/;

/**
 * The short way of `GET /tokens/:connection`: a caller that is known, a row that is trusted, a token that is fresh, no wishes. All of it is in memory,
 * but for the row, which is read first if need be. Everything else, every refusal included, goes the general way (routes/tokens.ts). Both ways
 * send the same bytes: test/integration/fresh-read-bytes.test.ts.
 */
export function createFreshRead(options: FreshReadOptions): FreshRead {
  const { keys, workloads, tokens, loaded, readCounter, headers, isClosing } = options;
  const prepared = new WeakMap<FreshToken["found"], Prepared>();
  const sent = [...Object.entries(headers).flat(), "content-type", "application/json; charset=utf-8", "content-length"];

  /** For a caller whose patterns cover the name. False: its labels are not those of the connection, and nothing is done. */
  const answer = (by: Principal, fresh: FreshToken, response: ServerResponse): boolean => {
    let ready = prepared.get(fresh.found);
    let count = ready?.allowed.get(by);
    if (ready === undefined || count === undefined) {
      if (!carries(fresh.found.row.labels, by.labels)) return false;
      ready ??= prepare(viewToken(tokens.issueFresh(fresh)));
      prepared.set(fresh.found, ready);
      count = readCounter({ by, connection: fresh.found.row.name, result: "ok" });
      ready.allowed.set(by, count);
    }
    tokens.noteFresh(fresh);
    count();
    const expiresIn = String(fresh.expiresInSeconds);
    response.writeHead(200, [...sent, String(ready.bytes + expiresIn.length)]);
    response.end(ready.head + expiresIn + ready.tail, ready.encoding);
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
