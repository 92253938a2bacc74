import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { KeyService } from "../../callers/keys.ts";
import { keyAbilities, keySchema, newKeySchema } from "../admin-answers.ts";
import { audited, noteInAudit } from "../audit.ts";
import { principalOf } from "../auth.ts";
import { nextCursor, readPage } from "../page.ts";
import {
  type ApiScope,
  callerLabels,
  closed,
  cursor,
  limit,
  noContent,
  pageOf,
  patternList,
  requestBody,
  textField,
  unconfirmedBy,
  unconfirmedHeader,
} from "../schemas.ts";
import { viewKey } from "../views.ts";

export type KeyRoutesOptions = { keys: KeyService; nowMs: () => number };

const tags = ["keys"];

const newKey = requestBody(
  "NewKey",
  {
    description: "A key to create",
    example: { name: "orders", abilities: ["tokens"], connections: ["acme-*"], labels: { customer: "acme" } },
  },
  {
    name: Type.String({ minLength: 1, maxLength: 128, description: "Its name for people" }),
    abilities: keyAbilities,
    connections: patternList,
    labels: Type.Optional(callerLabels),
    expires_at: Type.Optional(
      Type.String({ format: "date-time", description: "When it stops working; without it, when it is revoked" }),
    ),
  },
);

/** `/keys`: the keys of callers. */
export async function keyRoutes(app: ApiScope, { keys, nowMs }: KeyRoutesOptions): Promise<void> {
  const create = {
    operationId: "createKey",
    summary: "Create a key; it is shown this once",
    description: "Nobody gives a key abilities or patterns beyond their own, or fewer labels than they are bound to.",
    tags,
    body: newKey,
    response: { 201: newKeySchema },
  };
  app.post("/keys", { schema: create, config: audited("keys.create", "key") }, async (request, reply) => {
    const { expires_at, labels = {}, ...wanted } = request.body;
    const expiresAt = expires_at === undefined ? null : new Date(expires_at);
    if (expiresAt !== null && expiresAt.getTime() <= nowMs()) {
      throw new BrokerError("invalid_request", "expires_at: must lie in the future.");
    }
    const { row, key } = await keys.create(principalOf(request), { ...wanted, labels, expiresAt });
    noteInAudit(request, { name: row.id, detail: { labels } });
    return await reply.code(201).send({ ...viewKey(row), key });
  });

  const list = {
    operationId: "listKeys",
    summary: "List keys, newest first",
    description:
      "Those whose patterns lie within the caller's own, and which are bound to its labels, revoked ones too; never the keys themselves.",
    tags,
    querystring: closed({ limit, cursor: Type.Optional(cursor) }),
    response: { 200: pageOf("KeyPage", keySchema) },
  };
  app.get("/keys", { schema: list }, async (request) => {
    const items = await keys.list(principalOf(request), readPage("keys", request.query));
    return { items: items.map(viewKey), next_cursor: nextCursor("keys", items, request.query) };
  });

  const params = Type.Object({ id: textField("Id of the key", "4kZt0Qm2xW9a") });
  app.delete(
    "/keys/:id",
    {
      config: audited("keys.revoke", "key", "id"),
      schema: {
        operationId: "revokeKey",
        summary: "Revoke a key",
        description: unconfirmedHeader,
        tags,
        problems: ["not_found"] as const,
        params,
        response: { 204: noContent },
      },
    },
    async (request, reply) => {
      const unconfirmed = await keys.revoke(principalOf(request), request.params.id);
      return await reply.code(204).headers(unconfirmedBy(unconfirmed)).send(null);
    },
  );
}
