/** The little of oidc-provider that the tests use; the package brings no types. */
declare module "oidc-provider" {
  import type { IncomingMessage, ServerResponse } from "node:http";

  type Context = { oidc: { params?: Record<string, unknown>; entities: Record<string, unknown> } };

  export class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>);
    callback(): (request: IncomingMessage, response: ServerResponse) => void;
    on(event: "grant.success", listener: (context: Context) => void): this;
    on(event: "grant.error", listener: (context: Context, error: Error & { error_detail?: string }) => void): this;
    on(event: "grant.revoked", listener: (context: Context, grantId: string) => void): this;
    on(event: "server_error", listener: (context: Context, error: Error) => void): this;
  }
}
