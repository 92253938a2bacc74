import { once } from "node:events";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { AuthorizePage, type AuthorizeRules } from "./authorize-page.ts";
import { type Call, bearerToken, everyField, readCall } from "./call.ts";
import { Fault } from "./fault.ts";
import { type CodeRequest, GrantBook, type GrantRules, type TokenSet } from "./grant-book.ts";
import { type Interference, Interferences } from "./interference.ts";
import { Ledger } from "./ledger.ts";
import type { Answer, Route } from "./route.ts";

/** What a test may change while the server runs. */
export type Switches = GrantRules & {
  /** How long it waits before it handles a token request: nothing is spent yet. */
  delayMs: number;
  /** How long it waits between handling a token request and its answer: everything is spent. */
  answerDelayMs: number;
};

export type Credentials = { id: string; secret: string };

/** A provider definition for `PROVIDERS_DIR`, as written into a YAML file. */
export type DefinitionFile = { id: string; extends: string } & Record<string, unknown>;

type Closing = (status?: number) => void;

const defaultSwitches: Switches = {
  accessLifeSeconds: 3600,
  codeLifeSeconds: 600,
  refreshLifeSeconds: null,
  rotation: "rotating",
  reuse: "kills_family",
  graceSeconds: 0,
  oldAccessTokenDies: true,
  delayMs: 0,
  answerDelayMs: 0,
};

/**
 * A provider over real HTTP that refuses whatever its documents refuse, keeps a ledger, and fails on demand. One
 * subclass per system says which requests it knows and how its errors look.
 */
export abstract class StrictServer implements AsyncDisposable {
  readonly ledger = new Ledger();
  readonly grants: GrantBook;
  readonly switches: Switches;
  readonly client: Credentials;
  readonly #first: { switches: Switches; client: Credentials };
  /** Exactly these are accepted. */
  readonly redirectUris = new Set<string>();
  readonly #authorizePage: AuthorizePage | null;
  readonly #interferences = new Interferences();
  readonly #server: Server;
  #origin = "";
  #clockAheadMs = 0;
  #mayGoOn: Promise<void> = Promise.resolve();
  #release: () => void = () => {};

  constructor(options: { switches: Partial<Switches>; client: Credentials; authorize: AuthorizeRules | null }) {
    this.switches = { ...defaultSwitches, ...options.switches };
    this.client = { ...options.client };
    this.#first = { switches: { ...this.switches }, client: { ...this.client } };
    const now = () => Date.now() + this.#clockAheadMs;
    this.grants = new GrantBook({ rules: this.switches, ledger: this.ledger, now });
    const issue = (request: CodeRequest) => this.grants.issueCode(request);
    this.#authorizePage = options.authorize && new AuthorizePage({ rules: options.authorize, server: this, issue });
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  protected abstract routes(): Route[];
  protected abstract explain(fault: Fault): Answer;
  /** Definitions under the ids of the built-in ones, with every URL pointing here. */
  abstract definitions(): DefinitionFile[];

  get origin(): string {
    return this.#origin;
  }

  /** Listens on a port of its own on 127.0.0.1. */
  async start(): Promise<this> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the server has no port");
    this.#origin = `http://127.0.0.1:${address.port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Returns a token set, as the owner of the account would copy it from the provider's own pages. */
  issueTokenSet({ scope = "", slot }: { scope?: string; slot?: string } = {}): TokenSet {
    const from = { clientId: this.client.id, scope, grantType: "handed_over" };
    return this.grants.startFamily(slot === undefined ? from : { ...from, slot });
  }

  /** Moves this server's own clock, for what runs out: codes, access and refresh tokens. */
  advance(seconds: number): void {
    this.#clockAheadMs += seconds * 1000;
  }

  /** From now on only the new secret is right. */
  changeSecret(): string {
    this.client.secret = `secret-${crypto.randomUUID()}`;
    return this.client.secret;
  }

  killRefreshTokens(): void {
    this.grants.killRefreshTokens();
  }

  killAccessTokens(): void {
    this.grants.killAccessTokens();
  }

  /** Gives this answer to the next requests. It does what they ask for only if `afterCommit` is set. */
  failNext(answer: Answer & { times?: number; afterCommit?: boolean; endpoint?: string }): void {
    this.interfere({ kind: "answer", ...answer });
  }

  /** Never answers the next requests. With `afterCommit` it does what they ask for, so that everything is spent and only the answer is lost. */
  hangNext(options: Pick<Interference, "times" | "afterCommit" | "endpoint"> = {}): void {
    this.interfere({ kind: "hang", ...options });
  }

  /** Breaks the connection of the next requests. */
  resetNext(options: Pick<Interference, "times" | "afterCommit" | "endpoint"> = {}): void {
    this.interfere({ kind: "reset", ...options });
  }

  /** Holds the token requests that arrive, until the returned function is called. */
  holdTokens(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#mayGoOn = promise;
    this.#release = resolve;
    return resolve;
  }

  interfere(interference: Interference): void {
    this.#interferences.add(interference);
  }

  /** Forgets every interference that has not happened yet. */
  behave(): void {
    this.#interferences.clear();
  }

  /** As it was at first, with an empty ledger, for the next test. What it issued goes on working. */
  startOver(): void {
    Object.assign(this.switches, this.#first.switches);
    Object.assign(this.client, this.#first.client);
    this.behave();
    this.#release();
    this.ledger.startOver();
  }

  /** For subclasses: id and secret, compared with the client's own. */
  protected checkClient(id: string, secret: string): string {
    if (id !== this.client.id || secret !== this.client.secret) {
      throw new Fault("invalid_client", "Bad client credentials");
    }
    return id;
  }

  /** For subclasses: an API endpoint that checks the access token after whatever else `before` checks. */
  protected apiRoute(path: string, before: (call: Call) => void = () => {}): Route {
    const handle = (call: Call) => {
      before(call);
      this.grants.checkAccess(bearerToken(call));
      return { status: 200, body: { ok: true } };
    };
    return { method: "GET", path, endpoint: "api", handle };
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const call = await readCall(request);
    const route = this.#find(call);
    const { method, path, headers } = call;
    const entry = { endpoint: route.endpoint, method, path, headers, fields: everyField(call), inAt: Date.now() };
    const close = this.ledger.open(entry);
    response.once("close", () => {
      close();
    });
    const interference = this.#interferences.take(route.endpoint);
    if (interference && !interference.afterCommit) {
      this.#interrupt(interference, response, close);
      return;
    }
    const answer = await this.#work(route, call);
    if (interference) this.#interrupt(interference, response, close);
    else reply(response, answer, close);
  }

  async #work(route: Route, call: Call): Promise<Answer> {
    const slow = route.endpoint === "token";
    if (slow) await this.#mayGoOn;
    if (slow && this.switches.delayMs > 0) await sleep(this.switches.delayMs);
    const answer = this.#handle(route, call);
    if (slow && this.switches.answerDelayMs > 0) await sleep(this.switches.answerDelayMs);
    return answer;
  }

  #handle(route: Route, call: Call): Answer {
    try {
      return route.handle(call);
    } catch (error) {
      if (error instanceof Fault) return this.explain(error);
      throw error;
    }
  }

  #find(call: Call): Route {
    const here = [...this.routes(), ...(this.#authorizePage?.routes() ?? [])].filter(
      (route) => route.path === call.path,
    );
    const status = here.length > 0 ? 405 : 404;
    const nowhere = { ...call, endpoint: "nowhere", handle: () => ({ status, body: "" }) };
    return here.find((route) => route.method === call.method) ?? nowhere;
  }

  #interrupt(interference: Interference, response: ServerResponse, close: Closing): void {
    if (interference.kind === "answer") reply(response, interference, close);
    else if (interference.kind === "reset") response.socket?.resetAndDestroy();
  }
}

function reply(response: ServerResponse, answer: Answer, close: Closing): void {
  const isText = typeof answer.body === "string";
  const type = isText ? "text/html; charset=utf-8" : "application/json";
  response.writeHead(answer.status, { "content-type": type, "cache-control": "no-store", ...answer.headers });
  // The ledger's entry is closed before the last byte leaves, so that whoever has the answer finds it there.
  close(answer.status);
  response.end(isText ? answer.body : JSON.stringify(answer.body));
}
