import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import { text } from "node:stream/consumers";
import OAuth2Server from "@node-oauth/oauth2-server";
import type { ForeignServer, Registration, TokenRequest } from "./foreign-server.ts";

const { Request, Response } = OAuth2Server;
const page = `<form method="post"><button>Authorize</button></form>`;

/** @node-oauth/oauth2-server over HTTP, with a memory of tokens as its documents describe a model. It has no way to revoke. */
export async function startNodeOauth(registration: Registration): Promise<ForeignServer> {
  const { port, redirectUri, accessLifeSeconds } = registration;
  const client = { id: "broker", secret: randomBytes(24).toString("hex") };
  const origin = `http://127.0.0.1:${port}`;
  const model = memory(client, redirectUri);
  const oauth = new OAuth2Server({ model, accessTokenLifetime: accessLifeSeconds });
  const counted: TokenRequest[] = [];

  async function authorize(request: OAuth2Server.Request, response: OAuth2Server.Response): Promise<void> {
    if (request.method === "GET") response.body = page;
    else await oauth.authorize(request, response, { authenticateHandler: { handle: () => ({ name: "ada" }) } });
  }

  async function token(request: OAuth2Server.Request, response: OAuth2Server.Response): Promise<void> {
    try {
      await oauth.token(request, response);
    } finally {
      const grant_type: string | null = request.body.grant_type ?? null;
      counted.push({ path: "/token", grant_type, status: response.status ?? 0, body: JSON.stringify(response.body) });
    }
  }

  const routes: Record<string, typeof authorize> = {
    "/authorize": authorize,
    "/token": token,
    "/whoami": async (request, response) => void (await oauth.authenticate(request, response)),
  };
  const server = createServer((incoming, outgoing) => void answer(incoming, outgoing, routes));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");

  return {
    client,
    definition: {
      id: "node-oauth",
      extends: "oauth2",
      name: "@node-oauth/oauth2-server",
      docs: "https://node-oauthoauth2-server.readthedocs.io/",
      grants: ["authorization_code"],
      authorization: { url: `${origin}/authorize`, pkce: "required" },
      token: { url: `${origin}/token`, client_auth: "basic", encoding: "form" },
      // alwaysIssueNewRefreshToken is on. The model decides what else ends with a used refresh token: here nothing.
      refresh: { rotation: "always", reuse: "dead", old_access_token_dies: false },
      api: { base_url: origin },
    },
    requests: () => Promise.resolve(counted),
    async endGrants() {
      model.tokens.clear();
      await Promise.resolve();
    },
    async ask(accessToken) {
      return (await fetch(`${origin}/whoami`, { headers: { authorization: `Bearer ${accessToken}` } })).status;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Keeps codes and tokens; a refresh token that was revoked is gone, and the access token beside it stays. */
function memory({ id, secret }: { id: string; secret: string }, redirectUri: string) {
  const known = { id, grants: ["authorization_code", "refresh_token"], redirectUris: [redirectUri] };
  const codes = new Map<string, OAuth2Server.AuthorizationCode>();
  const tokens = new Map<string, OAuth2Server.Token>();
  return {
    tokens,
    getClient: async (clientId: string, clientSecret: string | null) =>
      clientId === id && (clientSecret === null || clientSecret === secret) ? known : null,
    async saveAuthorizationCode(
      code: Pick<OAuth2Server.AuthorizationCode, "authorizationCode" | "expiresAt" | "redirectUri">,
      client: OAuth2Server.Client,
      user: OAuth2Server.User,
    ) {
      const kept = { ...code, client, user };
      codes.set(code.authorizationCode, kept);
      return kept;
    },
    getAuthorizationCode: async (code: string) => codes.get(code),
    revokeAuthorizationCode: async ({ authorizationCode }: OAuth2Server.AuthorizationCode) =>
      codes.delete(authorizationCode),
    async saveToken(token: OAuth2Server.Token, client: OAuth2Server.Client, user: OAuth2Server.User) {
      const kept = { ...token, client, user };
      for (const each of [token.accessToken, token.refreshToken]) if (each !== undefined) tokens.set(each, kept);
      return kept;
    },
    getAccessToken: async (token: string) => tokens.get(token),
    getRefreshToken: async (token: string) => tokens.get(token) as OAuth2Server.RefreshToken | undefined,
    revokeToken: async ({ refreshToken }: OAuth2Server.RefreshToken) => tokens.delete(refreshToken),
  };
}

/** Gives a request to the library and its answer to HTTP, as the library's wrappers for web frameworks do. */
async function answer(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  routes: Record<string, (request: OAuth2Server.Request, response: OAuth2Server.Response) => Promise<void>>,
): Promise<void> {
  const url = new URL(incoming.url ?? "/", "http://127.0.0.1");
  const request = new Request({
    method: incoming.method ?? "GET",
    headers: incoming.headers as Record<string, string>,
    query: Object.fromEntries(url.searchParams),
    body: Object.fromEntries(new URLSearchParams(await text(incoming))),
  });
  const response = new Response({ headers: {} });
  try {
    await routes[url.pathname]?.(request, response);
  } catch (error) {
    // The library has written most refusals into the response before it throws them.
    if (response.status === 200) response.status = error instanceof OAuth2Server.OAuthError ? error.code : 500;
  }
  const type = typeof response.body === "string" ? "text/html" : "application/json";
  const body = typeof response.body === "string" ? response.body : JSON.stringify(response.body ?? {});
  outgoing.writeHead(response.status ?? 500, { "content-type": type, ...response.headers }).end(body);
}
