import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { KeyService } from "../../registry/key-service.ts";
import { abilities } from "../../store/api-keys.ts";
import { principalOf } from "../auth.ts";
import { nextCursor, readPage } from "../page.ts";
import { closed, cursor, keySchema, limit, literals, newKeySchema, pageOf, patternList } from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
import { unconfirmedBy, unconfirmedHeader } from "../unconfirmed.ts";
import { viewKey } from "../views.ts";

export type KeyRoutesOptions = { keys: KeyService; nowMs: () => number };

const tags = ["keys"];

const newKey = closed({
  name: Type.String({ minLength: 1, maxLength: 128 }),
  abilities: Type.Array(literals(abilities), { minItems: 1, uniqueItems: true }),
  connections: patternList,
  expires_at: Type.Optional(Type.String({ format: "date-time" })),
});

/** `/keys`: the keys of callers. */
export async function keyRoutes(app: ApiScope, { keys, nowMs }: KeyRoutesOptions): Promise<void> {
  const create = {
    summary: "Create a key; it is shown this once",
    tags,
    body: newKey,
    response: { 201: newKeySchema },
  };
  app.post("/keys", { schema: create }, async (request, reply) => {
    const { expires_at, ...wanted } = request.body;
    const expiresAt = expires_at === undefined ? null : new Date(expires_at);
    if (expiresAt !== null && expiresAt.getTime() <= nowMs()) {
      throw new BrokerError("invalid_request", "expires_at: must lie in the future.");
    }
    const { row, key } = await keys.create(principalOf(request), { ...wanted, expiresAt });
    return await reply.code(201).send({ ...viewKey(row), key });
  });

  const list = {
    summary: "List keys, newest first",
    tags,
    querystring: closed({ limit, cursor: Type.Optional(cursor) }),
    response: { 200: pageOf(keySchema) },
  };
  app.get("/keys", { schema: list }, async (request) => {
    const items = await keys.list(principalOf(request), readPage("keys", request.query));
    return { items: items.map(viewKey), next_cursor: nextCursor("keys", items, request.query) };
  });

  const params = Type.Object({ id: Type.String() });
  app.delete(
    "/keys/:id",
    {
      schema: {
        summary: "Revoke a key",
        description: unconfirmedHeader,
        tags,
        params,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const unconfirmed = await keys.revoke(principalOf(request), request.params.id);
      return await reply.code(204).headers(unconfirmedBy(unconfirmed)).send(null);
    },
  );
}
