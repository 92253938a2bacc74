import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import { connectionGrants } from "../../providers/provider-file.ts";
import type { ConnectionService, EndedWish } from "../../registry/connection-service.ts";
import type { ConnectionFilter } from "../../store/connections.ts";
import { principalOf } from "../auth.ts";
import { nextCursor, readPage } from "../page.ts";
import {
  closed,
  connectionSchema,
  cursor,
  eventSchema,
  inputMap,
  limit,
  literals,
  pageOf,
  resourceName,
  scopeList,
  statuses,
  textMap,
} from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
import { unconfirmedBy, unconfirmedHeader } from "../unconfirmed.ts";
import { viewConnection, viewEvent } from "../views.ts";

export type ConnectionRoutesOptions = { connections: ConnectionService };

const tags = ["connections"];
const params = Type.Object({ connection: Type.String() });
const credentials = Type.Record(Type.String(), Type.String({ minLength: 1, maxLength: 4096 }), { maxProperties: 16 });

const newConnection = closed({
  name: resourceName,
  provider: Type.String({ maxLength: 128 }),
  client: Type.Optional(
    Type.String({ maxLength: 128, description: "may be left out where the definition fixes the client id" }),
  ),
  grant: Type.Optional(literals(connectionGrants, { description: "one that the provider offers" })),
  scopes: Type.Optional(scopeList),
  inputs: Type.Optional(inputMap),
  credentials: Type.Optional(credentials),
  labels: Type.Optional(textMap),
});

const patch = closed(
  {
    scopes: Type.Optional(scopeList),
    labels: Type.Optional(textMap),
    inputs: Type.Optional(inputMap),
    credentials: Type.Optional(credentials),
    disabled: Type.Optional(Type.Boolean()),
  },
  { minProperties: 1 },
);

const refreshWish = closed({
  retry_ended: Type.Optional(
    Type.Boolean({ description: "try the stored refresh token of a connection that needs_reauthorization once more" }),
  ),
  force: Type.Optional(
    Type.Boolean({ description: "with retry_ended: though that may end other connections of the same account" }),
  ),
  end: Type.Optional(Type.Boolean({ description: "end a connection whose attention is probably_dead" })),
});

const filter = closed({
  status: Type.Optional(literals(statuses)),
  provider: Type.Optional(Type.String()),
  client: Type.Optional(Type.String()),
  label: Type.Optional(Type.String({ description: "key:value" })),
  q: Type.Optional(Type.String({ maxLength: 128, description: "part of the name" })),
  limit,
  cursor: Type.Optional(cursor),
});

/** `/connections`: what ops and provisioning code call. */
export async function connectionRoutes(app: ApiScope, { connections }: ConnectionRoutesOptions): Promise<void> {
  const answer = { 200: connectionSchema };

  const create = { summary: "Create a connection", tags, body: newConnection, response: { 201: connectionSchema } };
  app.post("/connections", { schema: create }, async (request, reply) => {
    const {
      client = null,
      grant = null,
      scopes = null,
      inputs = {},
      credentials: secret = null,
      labels = {},
      ...rest
    } = request.body;
    const wanted = { ...rest, client, grant, scopes, inputs, credentials: secret, labels };
    const record = await connections.create(principalOf(request), wanted);
    return await reply.code(201).send(viewConnection(record));
  });

  const list = {
    summary: "List connections, newest first",
    tags,
    querystring: filter,
    response: { 200: pageOf(connectionSchema) },
  };
  app.get("/connections", { schema: list }, async (request) => {
    const items = await connections.list(
      principalOf(request),
      readPage("connections", request.query),
      readFilter(request.query),
    );
    return { items: items.map(viewConnection), next_cursor: nextCursor("connections", items, request.query) };
  });

  app.get(
    "/connections/:connection",
    { schema: { summary: "A connection", tags, params, response: answer } },
    async (request) => viewConnection(await connections.get(principalOf(request), request.params.connection)),
  );

  const change = { summary: "Change, disable or enable a connection", tags, params, body: patch, response: answer };
  app.patch("/connections/:connection", { schema: change }, async (request) =>
    viewConnection(await connections.patch(principalOf(request), request.params.connection, defined(request.body))),
  );

  const remove = {
    summary: "Revoke at the provider where possible, and delete",
    description: unconfirmedHeader,
    tags,
    params,
    querystring: closed({ revoke: Type.Boolean({ default: true }) }),
    response: { 204: Type.Null() },
  };
  app.delete("/connections/:connection", { schema: remove }, async (request, reply) => {
    const unconfirmed = await connections.delete(principalOf(request), request.params.connection, request.query);
    return await reply.code(204).headers(unconfirmedBy(unconfirmed)).send(null);
  });

  const refreshSchema = {
    summary: "Refresh now; or say what its provider's answers do not about the end of a grant",
    tags,
    params,
    body: refreshWish,
    response: answer,
  };
  app.post("/connections/:connection/refresh", { schema: refreshSchema }, async (request) => {
    const wish = readWish(request.body);
    return viewConnection(await connections.refresh(principalOf(request), request.params.connection, wish));
  });

  const history = {
    summary: "A connection's history, newest first",
    tags,
    params,
    querystring: closed({ limit, cursor: Type.Optional(Type.String({ pattern: "^[0-9]{1,18}$" })) }),
    response: { 200: pageOf(eventSchema) },
  };
  app.get("/connections/:connection/events", { schema: history }, async (request) => {
    const { limit: size, cursor: before } = request.query;
    const page = { limit: size, before: before === undefined ? null : BigInt(before) };
    const items = await connections.events(principalOf(request), request.params.connection, page);
    const last = items.length < size ? null : String(items.at(-1)?.id);
    return { items: items.map(viewEvent), next_cursor: last };
  });
}

/** @throws BrokerError naming the field of what does not go together */
function readWish(body: { [K in "retry_ended" | "force" | "end"]?: boolean | undefined }): EndedWish | undefined {
  const { retry_ended: retries = false, force = false, end = false } = body;
  if (end && retries) throw new BrokerError("invalid_request", "end: cannot be asked for together with retry_ended.");
  if (force && !retries) throw new BrokerError("invalid_request", "force: goes with retry_ended: true alone.");
  if (end) return { kind: "end" };
  return retries ? { kind: "retry", force } : undefined;
}

type FilterQuery = {
  status?: ConnectionFilter["status"];
  provider?: string;
  client?: string;
  label?: string;
  q?: string;
};

function readFilter({
  status,
  provider,
  client,
  label,
  q,
}: { [K in keyof FilterQuery]: FilterQuery[K] | undefined }): ConnectionFilter {
  return defined({
    status,
    provider,
    client,
    label: label === undefined ? undefined : readLabel(label),
    nameContains: q,
  });
}

function readLabel(text: string): { key: string; value: string } {
  const colon = text.indexOf(":");
  if (colon < 1) throw new BrokerError("invalid_request", "label: must be key:value.");
  return { key: text.slice(0, colon), value: text.slice(colon + 1) };
}

/** Without the fields that are undefined. */
function defined<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
