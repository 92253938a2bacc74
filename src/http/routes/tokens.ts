import { Type } from "typebox";
import { BrokerError, connectionNotFound } from "../../errors.ts";
import type { ApiRequest } from "../../providers/api-request.ts";
import { mayUse } from "../../registry/principal.ts";
import type { TokenService } from "../../tokens/token-service.ts";
import { principalOf } from "../auth.ts";
import { closed, literals, tokenSchema } from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
import { viewToken } from "../views.ts";

export type TokenRoutesOptions = {
  tokens: Pick<TokenService, "get">;
  describeRequest: (connection: string, accessToken: string) => Promise<ApiRequest>;
  observeRead: (result: string) => void;
};

const tenYearsSeconds = 315_360_000;

const query = closed({
  min_ttl: Type.Integer({ minimum: 0, maximum: tenYearsSeconds, default: 60, description: "seconds it must live" }),
  rejected_version: Type.Optional(Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 })),
  include: Type.Optional(literals(["request"])),
  token: Type.Optional(
    Type.String({ pattern: "^[a-z][a-z0-9_]{0,62}$", description: "a further token of the connection, by name" }),
  ),
  wait: Type.Number({ minimum: 0, maximum: 30, default: 10, description: "seconds to wait for a refresh" }),
});

/** `GET /tokens/:connection`: what services call. */
export async function tokenRoutes(
  app: ApiScope,
  { tokens, describeRequest, observeRead }: TokenRoutesOptions,
): Promise<void> {
  const schema = {
    summary: "A fresh access token",
    tags: ["tokens"],
    params: Type.Object({ connection: Type.String() }),
    querystring: query,
    response: { 200: tokenSchema },
  };
  app.get("/tokens/:connection", { schema }, async (request) => {
    const { connection } = request.params;
    const { min_ttl, rejected_version, include, wait, token: chain } = request.query;
    if (!mayUse(principalOf(request), connection)) throw connectionNotFound(connection);
    const wish = { minTtlSeconds: min_ttl, rejectedVersion: rejected_version ?? null, waitSeconds: wait };
    const token = await tokens.get(connection, { ...wish, chain: chain ?? null }).catch((error: unknown) => {
      observeRead(error instanceof BrokerError ? error.code : "internal_error");
      throw error;
    });
    observeRead(token.warnings.some(({ code }) => code === "refresh_failing") ? "stale" : "ok");
    const body = viewToken(token);
    return include === undefined ? body : { ...body, request: await describeRequest(connection, token.accessToken) };
  });
}
