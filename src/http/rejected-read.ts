import type { IncomingMessage, ServerResponse } from "node:http";
import type { KeyService } from "../callers/keys.ts";
import { coversName, type Principal } from "../callers/principal.ts";
import { looksLikeJwt } from "../jwt-form.ts";
import { nobodysName } from "../text.ts";
import { callerTimes } from "../time.ts";
import type { IssuedToken } from "../tokens/read.ts";
import type { FreshRead, FreshReadOptions } from "./fresh-read.ts";
import type { TokenRoutesOptions } from "./routes/tokens.ts";
import { viewToken } from "./views.ts";

export type RejectedReadOptions = Pick<FreshReadOptions, "workloads" | "headers" | "isClosing"> &
  Pick<TokenRoutesOptions, "tokens" | "asked" | "countReadResult"> & {
    keys: Pick<KeyService, "known" | "authenticate">;
  };

const scheme = "Bearer ";
/** The name of a connection, a version, and no other wish. */
const form = /^\/tokens\/([a-z0-9][a-z0-9._-]{0,127})\?rejected_version=([1-9]\d{0,9})$/;
const highestVersion = 2 ** 31 - 1;

/**
 * The short way of `GET /tokens/:connection?rejected_version=N` by a key, or by a workload that is known. Such reads come in herds: all who use a token learn at
 * one moment that it is refused. What Fastify does for each of them would hold up the one refresh that they wait for, and then their answers.
 * A refusal goes the general way (routes/tokens.ts), which asks for nothing again. Both ways send the same bytes.
 */
export function createRejectedRead(options: RejectedReadOptions): FreshRead {
  const { keys, workloads, tokens, asked, countReadResult, headers, isClosing } = options;
  const sent = [...Object.entries(headers).flat(), "content-type", "application/json; charset=utf-8", "content-length"];

  /** Null: the general way says what is wrong with it. One that has not called for seconds is read anew, once for all that come together. */
  const callerOf = async (bearer: string): Promise<Principal | null> => {
    if (looksLikeJwt(bearer)) return workloads.known(bearer);
    return keys.known(bearer) ?? (await keys.authenticate(bearer, { sparing: true }).catch(() => null));
  };

  const readFor = async (bearer: string, wished: Wished, { request, response }: Asked): Promise<boolean> => {
    const by = await callerOf(bearer);
    if (by === null || isClosing() || !by.abilities.includes("tokens")) return false;
    const { connection, rejectedVersion } = wished;
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
    return await asking.then(answer, () => false);
  };

  return (request, response) => {
    const { method, url = "" } = request;
    const { authorization } = request.headers;
    if (method !== "GET" || authorization?.startsWith(scheme) !== true) return false;
    const [, connection, version] = form.exec(url) ?? [];
    if (connection === undefined || Number(version) > highestVersion) return false;
    const wished = { connection, rejectedVersion: Number(version) };
    return readFor(authorization.slice(scheme.length), wished, { request, response });
  };
}

type Wished = { connection: string; rejectedVersion: number };
type Asked = { request: IncomingMessage; response: ServerResponse };
