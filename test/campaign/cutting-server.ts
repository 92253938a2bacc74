import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { freePort } from "../support/free-port.ts";
import { GenericProvider } from "../support/providers/generic.ts";
import type { DefinitionFile } from "../support/providers/strict-server.ts";

/** What marks the end of a body: its length, a last chunk, or the end of the connection. */
export type Framing = "length" | "chunked" | "close";

/** One answer: its framing, and how many of its bytes go out. */
export type Cut = { framing: Framing; bytes: number };

const head = ["HTTP/1.1 200 OK", "content-type: application/json", "cache-control: no-store"];

/** The bytes of a token answer. */
export function answerBytes(body: string, framing: Framing): string {
  const length = Buffer.byteLength(body);
  const framed = {
    length: { header: `content-length: ${length}`, text: body },
    chunked: { header: "transfer-encoding: chunked", text: `${length.toString(16)}\r\n${body}\r\n0\r\n\r\n` },
    close: { header: "connection: close", text: body },
  }[framing];
  return `${[...head, framed.header].join("\r\n")}\r\n\r\n${framed.text}`;
}

/**
 * A token endpoint of raw TCP in front of a strict provider's books: it handles requests as that one does. If a refresh token has a cut, it
 * sends only so many bytes of the answer. Take it with `await using`.
 */
class CuttingServer implements AsyncDisposable {
  readonly url: string;
  /** By refresh token; spent by the first request with it. */
  readonly cuts = new Map<string, Cut>();
  readonly #provider: GenericProvider;
  readonly #server: Server;

  private constructor(port: number, provider: GenericProvider) {
    this.url = `http://127.0.0.1:${port}`;
    this.#provider = provider;
    this.#server = createServer((socket) => this.#serve(socket)).listen(port, "127.0.0.1");
  }

  static async start(provider: GenericProvider): Promise<CuttingServer> {
    const server = new CuttingServer(await freePort(), provider);
    await once(server.#server, "listening");
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((closed) => void this.#server.close(closed));
  }

  #serve(socket: Socket): void {
    let text = "";
    socket.on("error", () => {});
    socket.on("data", (data) => {
      text += data.toString("latin1");
      const [headers = "", body] = text.split("\r\n\r\n");
      const length = Number(/^content-length: (\d+)/im.exec(headers)?.[1]);
      if (body?.length === length) this.#answer(socket, new URLSearchParams(body));
    });
  }

  #answer(socket: Socket, form: URLSearchParams): void {
    const refreshToken = form.get("refresh_token") ?? "";
    const fields = Object.fromEntries(form);
    const entry = { endpoint: "token", method: "POST", path: "/token", headers: {}, fields, inAt: Date.now() };
    const close = this.#provider.ledger.open(entry);
    const granted = this.#provider.grants.refresh(refreshToken, this.#provider.client.id);
    const { framing, bytes } = this.cuts.get(refreshToken) ?? { framing: "length", bytes: Infinity };
    this.cuts.delete(refreshToken);
    close(200);
    socket.end(answerBytes(bodyOf(granted), framing).slice(0, bytes));
  }
}

/** A strict provider whose token endpoint is a cutting server. */
export class CuttingProvider extends GenericProvider {
  #server: CuttingServer | undefined;

  override async start(): Promise<this> {
    await super.start();
    this.#server = await CuttingServer.start(this);
    return this;
  }

  override async stop(): Promise<void> {
    await super.stop();
    await this.#server?.[Symbol.asyncDispose]();
  }

  get cuts(): Map<string, Cut> {
    if (this.#server === undefined) throw new Error("the provider was never started");
    return this.#server.cuts;
  }

  override definitions(): DefinitionFile[] {
    const url = `${this.#server?.url}/token`;
    const withUrl = (one: DefinitionFile) => ({ ...one, token: { ...(one["token"] as object), url } });
    return super.definitions().map(withUrl);
  }
}

type ReceivedGrant = ReturnType<GenericProvider["issueTokenSet"]>;

/** Equally long for every token set. */
export function bodyOf({ accessToken, refreshToken, expiresIn }: ReceivedGrant): string {
  const tokens = {
    access_token: accessToken,
    token_type: "Bearer",
    expires_in: expiresIn,
    refresh_token: refreshToken,
  };
  return JSON.stringify(tokens);
}
