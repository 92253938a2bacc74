import { Type } from "typebox";
import type { ClientService } from "../../registry/client-service.ts";
import { principalOf } from "../auth.ts";
import { nextCursor, readPage } from "../page.ts";
import { clientSchema, closed, cursor, inputMap, limit, pageOf, patternList, scopeList } from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
import { viewClient } from "../views.ts";

export type ClientRoutesOptions = { clients: ClientService; publicUrl: string };

const tags = ["clients"];
const params = Type.Object({ client: Type.String() });
const clientId = Type.String({ minLength: 1, maxLength: 512 });
const clientSecret = Type.String({
  minLength: 1,
  maxLength: 32_768,
  description: "write-only; a private key or certificate and key, as PEM, where the provider takes those",
});

/** It may stand at the end of a redirect URI, where `continue` is a page of this broker's. */
const clientName = Type.String({
  pattern: "^(?!continue$)[a-z0-9][a-z0-9._-]{0,127}$",
  description: "a-z, 0-9, then also . _ -, at most 128 characters; not continue",
});

const newClient = closed({
  name: clientName,
  provider: Type.String({ maxLength: 128 }),
  client_id: clientId,
  client_secret: Type.Optional(clientSecret),
  scopes: Type.Optional(scopeList),
  connections: Type.Optional(patternList),
  inputs: Type.Optional(inputMap),
});

const patch = closed(
  {
    client_id: Type.Optional(clientId),
    client_secret: Type.Optional(clientSecret),
    scopes: Type.Optional(scopeList),
    connections: Type.Optional(patternList),
    inputs: Type.Optional(inputMap),
    own_redirect_uri: Type.Optional(
      Type.Boolean({
        description:
          "true: /callback/:provider/:client, false: the shared /callback/:provider again, also for a client that had its own; register the redirect_uri of the answer at the provider before the next consent",
      }),
    ),
  },
  { minProperties: 1 },
);

/** `/clients`: OAuth clients as registered at providers. */
export async function clientRoutes(app: ApiScope, { clients, publicUrl }: ClientRoutesOptions): Promise<void> {
  const answer = { 200: clientSchema };

  const create = { summary: "Create a client", tags, body: newClient, response: { 201: clientSchema } };
  app.post("/clients", { schema: create }, async (request, reply) => {
    const {
      name,
      provider,
      client_id,
      client_secret = null,
      scopes = [],
      connections = [],
      inputs = {},
    } = request.body;
    const identity = { name, provider, clientId: client_id, clientSecret: client_secret };
    const client = await clients.create(principalOf(request), { ...identity, scopes, patterns: connections, inputs });
    return await reply.code(201).send(viewClient(client, publicUrl));
  });

  const list = {
    summary: "List clients, newest first",
    tags,
    querystring: closed({ provider: Type.Optional(Type.String()), limit, cursor: Type.Optional(cursor) }),
    response: { 200: pageOf(clientSchema) },
  };
  app.get("/clients", { schema: list }, async (request) => {
    const { provider } = request.query;
    const items = await clients.list(readPage("clients", request.query), provider === undefined ? {} : { provider });
    return {
      items: items.map((client) => viewClient(client, publicUrl)),
      next_cursor: nextCursor("clients", items, request.query),
    };
  });

  app.get("/clients/:client", { schema: { summary: "A client", tags, params, response: answer } }, async (request) =>
    viewClient(await clients.get(request.params.client), publicUrl),
  );

  const change = {
    summary:
      "Change a client; a new secret keeps the one before until it has worked. Inputs change only with a new secret, and not while a connection of it holds anything",
    tags,
    params,
    body: patch,
  };
  app.patch("/clients/:client", { schema: { ...change, response: answer } }, async (request) => {
    const { client_id, client_secret, scopes, connections, inputs, own_redirect_uri } = request.body;
    const changes = {
      ...(client_id === undefined ? {} : { clientId: client_id }),
      ...(client_secret === undefined ? {} : { clientSecret: client_secret }),
      ...(scopes === undefined ? {} : { scopes }),
      ...(connections === undefined ? {} : { patterns: connections }),
      ...(inputs === undefined ? {} : { inputs }),
      ...(own_redirect_uri === undefined ? {} : { ownRedirectUri: own_redirect_uri }),
    };
    return viewClient(await clients.patch(principalOf(request), request.params.client, changes), publicUrl);
  });

  const remove = { summary: "Delete a client that no connection uses", tags, params, response: { 204: Type.Null() } };
  app.delete("/clients/:client", { schema: remove }, async (request, reply) => {
    await clients.delete(principalOf(request), request.params.client);
    return await reply.code(204).send(null);
  });
}
