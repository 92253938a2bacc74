import type { IncomingMessage } from "node:http";
import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { ApiRequest } from "../../providers/oauth/side-requests.ts";
import { coversName, type Principal } from "../../callers/principal.ts";
import { nobodysName } from "../../text.ts";
import { callerTimes, providerTimes } from "../../time.ts";
import type { TokenService } from "../../tokens/read.ts";
import { principalOf } from "../auth.ts";
import { tokenSchema } from "../connection-answers.ts";
import { type ApiScope, closed, connectionParams, literals } from "../schemas.ts";
import { viewToken } from "../views.ts";

export type TokenRoutesOptions = {
  tokens: Pick<TokenService, "get">;
  describeRequest: (connection: string, accessToken: string) => Promise<ApiRequest>;
  /** What `load` has read for a request, which is read no second time. */
  loaded: WeakMap<IncomingMessage, ReturnType<TokenService["load"]>>;
  /** Called for each read that a key makes. `connection` null: it is unknown, or not for this key. */
  countReadResult: (read: { by: Principal; connection: string | null; result: string }) => void;
};

const query = closed({
  min_ttl: Type.Integer({
    minimum: 0,
    maximum: providerTimes.longestLifetimeSeconds,
    default: callerTimes.minTtlSeconds,
    description: "Seconds that the token must live; one that lives less is refreshed first",
    example: 120,
  }),
  rejected_version: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 2 ** 31 - 1,
      description: "The version that the provider's API has refused: it is refreshed unless there is a newer one",
      example: 7,
    }),
  ),
  include: Type.Optional(
    literals(["request"], {
      description: "request: the answer also says what to send with a call of the provider's API",
      example: "request",
    }),
  ),
  token: Type.Optional(
    Type.String({
      pattern: "^[a-z][a-z0-9_]{0,62}$",
      description: "A further token of the connection, by name; without it, its own",
      example: "page",
    }),
  ),
  wait: Type.Number({
    minimum: 0,
    maximum: callerTimes.longestWaitSeconds,
    default: callerTimes.waitSeconds,
    description: "Seconds to wait for a refresh under way",
    example: 10,
  }),
});

export const tokensPath = "/tokens/:connection";

/** What services call. Plain reads of a fresh token are answered before (../fresh-read.ts), with the same bytes. */
export async function tokenRoutes(
  app: ApiScope,
  { tokens, describeRequest, loaded, countReadResult }: TokenRoutesOptions,
): Promise<void> {
  const schema = {
    operationId: "getToken",
    summary: "A fresh access token",
    description:
      "From memory while it lives long enough, else refreshed first: once, however many callers and replicas there are. A token that is still valid is served whatever fails behind it.",
    tags: ["tokens"],
    problems: ["connection_not_found", "needs_reauthorization", "client_rejected", "provider_unavailable"] as const,
    params: connectionParams,
    querystring: query,
    response: { 200: tokenSchema },
  };
  app.get(tokensPath, { schema }, async (request) => {
    // failpoint: general read
    const { connection } = request.params;
    const { min_ttl, rejected_version, include, wait, token: furtherToken = null } = request.query;
    const by = principalOf(request);
    const { labels } = by;
    const wish = { labels, minTtlSeconds: min_ttl, rejectedVersion: rejected_version ?? null, waitSeconds: wait };
    const name = coversName(by, connection) ? connection : nobodysName(connection);
    const asking = tokens.get(name, { ...wish, furtherToken, loaded: loaded.get(request.raw) });
    const token = await asking.catch((error: unknown) => {
      const result = error instanceof BrokerError ? error.code : "internal_error";
      countReadResult({ by, connection: result === "connection_not_found" ? null : connection, result });
      throw error;
    });
    const isStale = token.warnings.some(({ code }) => code === "refresh_failing");
    countReadResult({ by, connection, result: isStale ? "stale" : "ok" });
    const body = viewToken(token);
    return include === undefined ? body : { ...body, request: await describeRequest(connection, token.accessToken) };
  });
}
