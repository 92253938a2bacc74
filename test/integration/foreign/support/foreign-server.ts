import type { DefinitionFile } from "../../../support/providers/strict-server.ts";

/** One request to the token endpoint, or to the one that revokes, as the server counted it. */
export type TokenRequest = { path: string; grant_type: string | null; status: number; body: string };

/** An authorization server that is not of this project, with one person and one client. */
export type ForeignServer = AsyncDisposable & {
  readonly client: { id: string; secret: string };
  /** Written from the server's own documents. */
  readonly definition: DefinitionFile & { id: string };
  /** All that were answered, in order. */
  requests(): Promise<TokenRequest[]>;
  /** Somebody ends all grants at the server: no token of theirs is good any more. */
  endGrants(): Promise<void>;
  /** What the server's own check of access tokens answers: 200 for one that is good. */
  ask(accessToken: string): Promise<number>;
};

export type Registration = { port: number; redirectUri: string; accessLifeSeconds: number };
