import { once } from "node:events";
import { type IncomingMessage, type Server, type ServerResponse, createServer, request } from "node:http";
import { buffer } from "node:stream/consumers";
import { freePort } from "./free-port.ts";

/** One request and the whole of its answer. */
export type Exchange = {
  method: string;
  /** With the query. */
  path: string;
  status: number;
  statusMessage: string;
  /** As sent, names and values by turns. */
  rawHeaders: string[];
  body: string;
};

/** A load balancer that gives requests to its targets by turns and keeps every answer. Take it with `await using`. */
export class RecordingProxy implements AsyncDisposable {
  readonly url: string;
  /** Base URLs. */
  readonly targets: string[] = [];
  readonly exchanges: Exchange[] = [];
  readonly #server: Server;
  #turn = 0;

  private constructor(port: number) {
    this.url = `http://127.0.0.1:${port}`;
    this.#server = createServer((incoming, outgoing) => void this.#pass(incoming, outgoing));
    this.#server.listen(port, "127.0.0.1");
  }

  static async start(): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(await freePort());
    await once(proxy.#server, "listening");
    return proxy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = "GET", url: path = "/", rawHeaders } = incoming;
    const target = this.targets[this.#turn++ % this.targets.length] ?? "";
    const sent = request(new URL(target), { method, path, agent: false, setHost: false });
    for (let at = 0; at < rawHeaders.length; at += 2) sent.setHeader(rawHeaders[at] ?? "", rawHeaders[at + 1] ?? "");
    sent.end(await buffer(incoming));
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    const body = await buffer(answer);
    const { statusCode: status = 0, statusMessage = "" } = answer;
    this.exchanges.push({
      method,
      path,
      status,
      statusMessage,
      rawHeaders: answer.rawHeaders,
      body: body.toString("utf8"),
    });
    outgoing.writeHead(status, statusMessage, withoutFraming(answer.rawHeaders)).end(body);
  }
}

/** The body goes on as one piece. */
function withoutFraming(rawHeaders: string[]): string[] {
  return rawHeaders.filter(
    (_text, at) => !/^(transfer-encoding|connection|keep-alive)$/i.test(rawHeaders[at - (at % 2)] ?? ""),
  );
}
