import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type Server, createServer } from "node:http";
import { Provider } from "oidc-provider";
import { freePort } from "./free-port.ts";
import type { DefinitionFile } from "./providers/strict-server.ts";

export type OidcPeerOptions = {
  redirectUris: string[];
  accessLifeSeconds?: number;
  /** Metadata of its client, beside or in the place of the usual. */
  client?: Record<string, unknown>;
  /** The same of its configuration; `features` are added to those that it has. */
  configuration?: { features?: Record<string, unknown> } & Record<string, unknown>;
};

/**
 * oidc-provider as a peer that this project did not write: a confidential client, PKCE, refresh tokens that work once.
 * Reusing one revokes the whole grant. Its own pages ask for login and consent.
 */
export class OidcPeer implements AsyncDisposable {
  readonly id = "oidc-peer";
  readonly origin: string;
  readonly client = { id: "broker", secret: randomBytes(24).toString("hex") };
  /** Token requests that were granted, by `grant_type`. */
  readonly granted: string[] = [];
  /** What was wrong with token requests that were refused. */
  readonly refused: string[] = [];
  /** Grants that were revoked, which is what a reused refresh token or code does. */
  readonly revokedGrants: string[] = [];
  /** The paths of all requests, in order. */
  readonly paths: string[] = [];
  accessLifeSeconds: number;
  readonly #server: Server;

  constructor(options: OidcPeerOptions & { origin: string }) {
    this.origin = options.origin;
    this.accessLifeSeconds = options.accessLifeSeconds ?? 3600;
    const provider = new Provider(this.origin, this.#configuration(options));
    this.#watch(provider);
    const handle = provider.callback();
    this.#server = createServer((request, response) => {
      this.paths.push(new URL(request.url ?? "/", this.origin).pathname);
      handle(request, response);
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(Number(new URL(this.origin).port), "127.0.0.1");
    await once(this.#server, "listening");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** How often a refresh was granted. */
  get refreshes(): number {
    return this.granted.filter((grantType) => grantType === "refresh_token").length;
  }

  /** How often a spent refresh token came again. */
  get reuses(): number {
    return this.refused.filter((reason) => reason.includes("refresh token already used")).length;
  }

  definitions(): DefinitionFile[] {
    return [
      {
        id: this.id,
        extends: "oauth2",
        name: "OpenID provider",
        grants: ["authorization_code", "import"],
        authorization: {
          url: `${this.origin}/auth`,
          issuer: this.origin,
          pkce: "required",
          scope: { default: ["openid"], required: ["openid"] },
        },
        token: { url: `${this.origin}/token`, client_auth: "basic", encoding: "form" },
        refresh: { rotation: "always", reuse: "kills_family", old_access_token_dies: false },
        api: { base_url: this.origin },
      },
    ];
  }

  #configuration({ redirectUris, client, configuration = {} }: OidcPeerOptions): Record<string, unknown> {
    const lifeSeconds = 86_400;
    return {
      clients: [
        {
          client_id: this.client.id,
          client_secret: this.client.secret,
          redirect_uris: redirectUris,
          grant_types: ["authorization_code", "refresh_token"],
          response_types: ["code"],
          token_endpoint_auth_method: "client_secret_basic",
          ...client,
        },
      ],
      cookies: { keys: [randomBytes(16).toString("hex")] },
      pkce: { required: () => true },
      rotateRefreshToken: true,
      issueRefreshToken: () => true,
      ...configuration,
      features: { devInteractions: { enabled: true }, ...configuration.features },
      ttl: {
        AccessToken: () => this.accessLifeSeconds,
        RefreshToken: lifeSeconds,
        Grant: lifeSeconds,
        Session: lifeSeconds,
        Interaction: 600,
      },
    };
  }

  #watch(provider: Provider): void {
    provider.on("grant.success", ({ oidc }) => {
      this.granted.push(String(oidc.params?.["grant_type"]));
    });
    provider.on("grant.error", (_context, error) => {
      this.refused.push(error.error_detail ?? error.message);
    });
    provider.on("grant.revoked", (_context, grantId) => {
      this.revokedGrants.push(grantId);
    });
    provider.on("server_error", (_context, error) => {
      this.refused.push(`server error: ${error.message}`);
    });
  }
}

/** Starts a peer on a port of its own on 127.0.0.1. */
export async function startOidcPeer(options: OidcPeerOptions): Promise<OidcPeer> {
  const peer = new OidcPeer({ ...options, origin: `http://127.0.0.1:${await freePort()}` });
  await peer.listen();
  return peer;
}
