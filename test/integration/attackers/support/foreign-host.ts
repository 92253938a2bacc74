import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { readCall } from "../../../support/providers/call.ts";

/**
 * A host of the attacker's: it notes every connection and every request, and answers as a token endpoint would. At the end of a test of an
 * attacker, both lists must be empty.
 */
export class ForeignHost implements AsyncDisposable {
  readonly requests: string[] = [];
  connections = 0;
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  private constructor() {
    this.#server.on("connection", () => void (this.connections += 1));
  }

  /** @param address of the loopback range, so that networks can tell it from the provider's */
  static async start(address = "127.0.0.1"): Promise<ForeignHost> {
    const host = new ForeignHost();
    host.#server.listen(0, address);
    await once(host.#server, "listening");
    return host;
  }

  get origin(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the foreign host does not listen");
    return `http://${address.address}:${address.port}`;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, path, headers, body } = await readCall(request);
    this.requests.push(`${method} ${path} ${JSON.stringify(headers)} ${body}`);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ access_token: "attackers-own", token_type: "Bearer", expires_in: 3600 }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
