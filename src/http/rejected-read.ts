import type { IncomingMessage } from "node:http";
import { coversName } from "../callers/principal.ts";
import { looksLikeJwt } from "../jwt-form.ts";
import { nobodysName } from "../text.ts";
import { callerTimes } from "../time.ts";
import type { IssuedToken } from "../tokens/read.ts";
import type { FreshRead, FreshReadOptions } from "./fresh-read.ts";
import type { TokenRoutesOptions } from "./routes/tokens.ts";
import { viewToken } from "./views.ts";

export type RejectedReadOptions = Pick<FreshReadOptions, "keys" | "workloads" | "headers" | "isClosing"> &
  Pick<TokenRoutesOptions, "tokens" | "asked" | "countReadResult">;

const scheme = "Bearer ";
/** The name of a connection, a version, and no other wish. */
const form = /^\/tokens\/([a-z0-9][a-z0-9._-]{0,127})\?rejected_version=([1-9]\d{0,9})$/;
const highestVersion = 2 ** 31 - 1;

/**
 * The short way of `GET /tokens/:connection?rejected_version=N` by a caller that is known. Such reads come in herds: all who use a token learn at
 * one moment that it is refused. What Fastify does for each of them would hold up the one refresh that they wait for, and then their answers.
 * A refusal goes the general way (routes/tokens.ts), which asks for nothing again. Both ways send the same bytes.
 */
export function createRejectedRead(options: RejectedReadOptions): FreshRead {
  const { keys, workloads, tokens, asked, countReadResult, headers, isClosing } = options;
  const sent = [...Object.entries(headers).flat(), "content-type", "application/json; charset=utf-8", "content-length"];

  const wishedFor = (request: IncomingMessage) => {
    const { method, url = "" } = request;
    const { authorization } = request.headers;
    if (method !== "GET" || authorization?.startsWith(scheme) !== true) return null;
    const [, connection, version] = form.exec(url) ?? [];
    if (connection === undefined || Number(version) > highestVersion) return null;
    const bearer = authorization.slice(scheme.length);
    const by = looksLikeJwt(bearer) ? workloads.known(bearer) : keys.known(bearer);
    if (by === null || isClosing() || !by.abilities.includes("tokens")) return null;
    return { by, connection, rejectedVersion: Number(version) };
  };

  return (request, response) => {
    const wished = wishedFor(request);
    if (wished === null) return false;
    const { by, connection, rejectedVersion } = wished;
    const { minTtlSeconds, waitSeconds } = callerTimes;
    const asking = tokens.get(coversName(by, connection) ? connection : nobodysName(connection), {
      labels: by.labels,
      minTtlSeconds,
      rejectedVersion,
      waitSeconds,
    });
    asked.set(request, asking);
    const answer = (token: IssuedToken): boolean => {
      const isStale = token.warnings.some(({ code }) => code === "refresh_failing");
      countReadResult({ by, connection, result: isStale ? "stale" : "ok" });
      const body = JSON.stringify(viewToken(token));
      response.writeHead(200, [...sent, String(Buffer.byteLength(body))]);
      response.end(body);
      return true;
    };
    return asking.then(answer, () => false);
  };
}
