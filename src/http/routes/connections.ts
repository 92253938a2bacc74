import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { ConnectionService, EndedWish } from "../../services/connections.ts";
import type { ConnectionFilter } from "../../store/connections.ts";
import { audited } from "../audit.ts";
import { principalOf } from "../auth.ts";
import { connectionSchema, eventSchema } from "../connection-answers.ts";
import { nextCursor, readPage } from "../page.ts";
import {
  type ApiScope,
  closed,
  connectionLabels,
  cursor,
  grantSchema,
  inputMap,
  limit,
  noContent,
  pageOf,
  connectionParams as params,
  requestBody,
  resourceName,
  scopeList,
  statusSchema,
  textField,
  unconfirmedBy,
  unconfirmedHeader,
} from "../schemas.ts";
import { viewConnection, viewEvent } from "../views.ts";

export type ConnectionRoutesOptions = { connections: ConnectionService };

const tags = ["connections"];
const credentials = Type.Record(Type.String(), Type.String({ minLength: 1, maxLength: 4096 }), {
  maxProperties: 16,
  description: "Write-only: what the grant needs, such as username and password",
  example: { username: "orders@example.com", password: "…" },
});

const newConnection = requestBody(
  "NewConnection",
  {
    description: "A connection to create",
    example: { name: "acme-shop", provider: "sandbox", client: "shop-app", labels: { team: "orders" } },
  },
  {
    name: resourceName,
    provider: Type.String({ maxLength: 128, description: "Id of the provider's definition" }),
    client: Type.Optional(
      Type.String({
        maxLength: 128,
        description: "Name of its OAuth client; may be left out where the definition fixes the client id",
      }),
    ),
    grant: Type.Optional(grantSchema),
    scopes: Type.Optional(scopeList),
    inputs: Type.Optional(inputMap),
    credentials: Type.Optional(credentials),
    labels: Type.Optional(connectionLabels),
  },
);

const patch = requestBody(
  "ConnectionChanges",
  { description: "What to change; the rest stays", example: { labels: { team: "finance" } }, minProperties: 1 },
  {
    scopes: Type.Optional(scopeList),
    labels: Type.Optional(connectionLabels),
    inputs: Type.Optional(inputMap),
    credentials: Type.Optional(credentials),
    disabled: Type.Optional(Type.Boolean({ description: "true switches it off, false on again" })),
  },
);

const refreshWish = requestBody(
  "RefreshOptions",
  { description: "Nothing: refresh now. Else what its provider's answers do not say", example: {} },
  {
    retry_ended: Type.Optional(
      Type.Boolean({
        description: "Try the stored refresh token of a connection that needs_reauthorization once more",
      }),
    ),
    force: Type.Optional(
      Type.Boolean({ description: "With retry_ended: though that may end other connections of the same account" }),
    ),
    end: Type.Optional(Type.Boolean({ description: "End a connection whose attention is probably_dead" })),
  },
);

const filter = closed({
  status: Type.Optional(statusSchema),
  provider: Type.Optional(textField("Only those of this provider, by id", "sandbox")),
  client: Type.Optional(textField("Only those of this client, by name", "shop-app")),
  label: Type.Optional(textField("Only those with this label, as key:value", "team:orders")),
  q: Type.Optional(Type.String({ maxLength: 128, description: "Only those with this in their name", example: "acme" })),
  limit,
  cursor: Type.Optional(cursor),
});

/** `/connections`: what ops and provisioning code call. */
export async function connectionRoutes(app: ApiScope, { connections }: ConnectionRoutesOptions): Promise<void> {
  const answer = { 200: connectionSchema };

  const create = {
    operationId: "createConnection",
    summary: "Create a connection",
    description:
      "Client-credentials and password connections fetch their first token at once: where the provider refuses, nothing is stored. Others wait for a person: make a consent link.",
    tags,
    problems: ["conflict", "provider_rejected", "client_rejected"] as const,
    body: newConnection,
    response: { 201: connectionSchema },
  };
  app.post(
    "/connections",
    { schema: create, config: audited("connections.create", "connection", "name") },
    async (request, reply) => {
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
    },
  );

  const list = {
    operationId: "listConnections",
    summary: "List connections, newest first",
    description:
      "Those that the key's patterns cover, and which carry the labels that it is bound to. All that is asked for must hold.",
    tags,
    querystring: filter,
    response: { 200: pageOf("ConnectionPage", connectionSchema) },
  };
  app.get("/connections", { schema: list }, async (request) => {
    const items = await connections.list(
      principalOf(request),
      readPage("connections", request.query),
      readFilter(request.query),
    );
    return { items: items.map(viewConnection), next_cursor: nextCursor("connections", items, request.query) };
  });

  const read = {
    operationId: "getConnection",
    summary: "A connection",
    description: "Its state, never a token.",
    tags,
    problems: ["connection_not_found"] as const,
    params,
    response: answer,
  };
  app.get("/connections/:connection", { schema: read }, async (request) =>
    viewConnection(await connections.get(principalOf(request), request.params.connection)),
  );

  const change = {
    operationId: "updateConnection",
    summary: "Change, disable or enable a connection",
    description:
      "What the body names is replaced. Its name, provider, client and grant stay. A label that some caller is bound to is changed only by a key with `admin` that is bound to no labels.",
    tags,
    problems: ["connection_not_found", "conflict", "provider_rejected", "client_rejected"] as const,
    params,
    body: patch,
    response: answer,
  };
  app.patch(
    "/connections/:connection",
    { schema: change, config: audited("connections.update", "connection", "connection") },
    async (request) =>
      viewConnection(await connections.patch(principalOf(request), request.params.connection, defined(request.body))),
  );

  const remove = {
    operationId: "deleteConnection",
    summary: "Revoke at the provider where possible, and delete",
    description: unconfirmedHeader,
    tags,
    problems: ["connection_not_found", "conflict"] as const,
    params,
    querystring: closed({
      revoke: Type.Boolean({
        default: true,
        description: "false: delete only, and leave the grant at the provider",
        example: false,
      }),
    }),
    response: { 204: noContent },
  };
  app.delete(
    "/connections/:connection",
    { schema: remove, config: audited("connections.delete", "connection", "connection") },
    async (request, reply) => {
      const unconfirmed = await connections.delete(principalOf(request), request.params.connection, request.query);
      return await reply.code(204).headers(unconfirmedBy(unconfirmed)).send(null);
    },
  );

  const refreshSchema = {
    operationId: "refreshConnection",
    summary: "Refresh now; or say what its provider's answers do not about the end of a grant",
    description:
      "A refresh that is under way is waited for, not repeated. The answer is the connection, never a token.",
    tags,
    problems: ["connection_not_found", "conflict", "provider_rejected", "client_rejected"] as const,
    params,
    body: refreshWish,
    response: answer,
  };
  app.post(
    "/connections/:connection/refresh",
    { schema: refreshSchema, config: audited("connections.refresh", "connection", "connection") },
    async (request) => {
      const wish = readWish(request.body);
      return viewConnection(await connections.refresh(principalOf(request), request.params.connection, wish));
    },
  );

  const history = {
    operationId: "listConnectionEvents",
    summary: "A connection's history, newest first",
    description: "What happened to it, and what its refreshes came to.",
    tags,
    problems: ["connection_not_found"] as const,
    params,
    querystring: closed({
      limit,
      cursor: Type.Optional(
        Type.String({
          pattern: "^[0-9]{1,18}$",
          description: "`next_cursor` of the page before; without it, the first page",
          example: "42",
        }),
      ),
    }),
    response: { 200: pageOf("EventPage", eventSchema) },
  };
  app.get("/connections/:connection/events", { schema: history }, async (request) => {
    const { limit: size, cursor: before } = request.query;
    const page = { limit: size, before: before === undefined ? null : BigInt(before) };
    const items = await connections.events(principalOf(request), request.params.connection, page);
    const last = items.length < size ? null : String(items.at(-1)?.id);
    return { items: items.map(viewEvent), next_cursor: last };
  });
}

/** @throws BrokerError naming the field, if fields exclude each other */
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
