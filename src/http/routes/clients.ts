import { Type } from "typebox";
import type { ClientService } from "../../services/clients.ts";
import { clientSchema } from "../admin-answers.ts";
import { audited } from "../audit.ts";
import { principalOf } from "../auth.ts";
import { nextCursor, readPage } from "../page.ts";
import {
  type ApiScope,
  closed,
  cursor,
  inputMap,
  limit,
  noContent,
  pageOf,
  patternList,
  requestBody,
  scopeList,
  textField,
} from "../schemas.ts";
import { viewClient } from "../views.ts";

export type ClientRoutesOptions = { clients: ClientService; publicUrl: string };

const tags = ["clients"];
const params = Type.Object({ client: textField("Name of the client", "shop-app") });
const clientId = Type.String({ minLength: 1, maxLength: 512, description: "The id that the provider has given" });
const clientSecret = Type.String({
  minLength: 1,
  maxLength: 32_768,
  description: "Write-only; a private key or certificate and key, as PEM, where the provider takes those",
});

/** A client's name may end a redirect URI, where `continue` is a page of this broker. */
const clientName = Type.String({
  pattern: "^(?!continue$)[a-z0-9][a-z0-9._-]{0,127}$",
  description: "a-z, 0-9, then also . _ -, at most 128 characters; not continue",
});

const newClient = requestBody(
  "NewClient",
  {
    description: "A client to create",
    example: {
      name: "shop-app",
      provider: "sandbox",
      client_id: "4b2f0c1e",
      client_secret: "…",
      connections: ["acme-*"],
    },
  },
  {
    name: clientName,
    provider: Type.String({ maxLength: 128, description: "Id of the provider's definition" }),
    client_id: clientId,
    client_secret: Type.Optional(clientSecret),
    scopes: Type.Optional(scopeList),
    connections: Type.Optional(patternList),
    inputs: Type.Optional(inputMap),
  },
);

const patch = requestBody(
  "ClientChanges",
  { description: "What to change; the rest stays", example: { client_secret: "…" }, minProperties: 1 },
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
);

/** `/clients`: OAuth clients as registered at providers. */
export async function clientRoutes(app: ApiScope, { clients, publicUrl }: ClientRoutesOptions): Promise<void> {
  const answer = { 200: clientSchema };

  const create = {
    operationId: "createClient",
    summary: "Create a client",
    description: "The answer names the `redirect_uri` to register at the provider.",
    tags,
    problems: ["conflict"] as const,
    body: newClient,
    response: { 201: clientSchema },
  };
  app.post(
    "/clients",
    { schema: create, config: audited("clients.create", "client", "name") },
    async (request, reply) => {
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
    },
  );

  const list = {
    operationId: "listClients",
    summary: "List clients, newest first",
    description: "All clients, whatever the key's patterns.",
    tags,
    querystring: closed({
      provider: Type.Optional(textField("Only those of this provider, by id", "sandbox")),
      limit,
      cursor: Type.Optional(cursor),
    }),
    response: { 200: pageOf("ClientPage", clientSchema) },
  };
  app.get("/clients", { schema: list }, async (request) => {
    const { provider } = request.query;
    const items = await clients.list(readPage("clients", request.query), provider === undefined ? {} : { provider });
    return {
      items: items.map((client) => viewClient(client, publicUrl)),
      next_cursor: nextCursor("clients", items, request.query),
    };
  });

  const read = {
    operationId: "getClient",
    summary: "A client",
    description: "All but its secret.",
    tags,
    problems: ["not_found"] as const,
    params,
    response: answer,
  };
  app.get("/clients/:client", { schema: read }, async (request) =>
    viewClient(await clients.get(request.params.client), publicUrl),
  );

  const change = {
    operationId: "updateClient",
    summary: "Change a client",
    description:
      "A new secret keeps the one before until it has worked. Inputs change only with a new secret, and not while a connection of it holds anything.",
    tags,
    problems: ["not_found", "conflict"] as const,
    params,
    body: patch,
  };
  app.patch(
    "/clients/:client",
    { schema: { ...change, response: answer }, config: audited("clients.update", "client", "client") },
    async (request) => {
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
    },
  );

  const remove = {
    operationId: "deleteClient",
    summary: "Delete a client that no connection uses",
    description: "Its secrets are erased.",
    tags,
    problems: ["not_found", "conflict"] as const,
    params,
    response: { 204: noContent },
  };
  app.delete(
    "/clients/:client",
    { schema: remove, config: audited("clients.delete", "client", "client") },
    async (request, reply) => {
      await clients.delete(principalOf(request), request.params.client);
      return await reply.code(204).send(null);
    },
  );
}
