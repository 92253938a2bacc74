import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:https";
import { selfSigned } from "./certificate.ts";

/** An issuer's web server, by https on this machine, with a certificate that nobody but `ca` vouches for. */
export class IssuerServer implements AsyncDisposable {
  /** What it serves, by path. A text is an address to which it redirects. */
  readonly documents: Record<string, unknown> = {};
  /** Paths of all requests. */
  readonly requests: string[] = [];
  readonly ca: string;
  readonly networks = ["127.0.0.0/8"];
  readonly #server: Server;

  private constructor() {
    const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
    this.ca = selfSigned(keys, ["127.0.0.1"]);
    const key = keys.privateKey.export({ format: "pem", type: "pkcs8" });
    this.#server = createServer({ key, cert: this.ca }, ({ url = "" }, response) => {
      this.requests.push(url);
      const document = this.documents[url];
      if (typeof document === "string") response.writeHead(302, { location: document }).end();
      else if (document === undefined) response.writeHead(404).end();
      else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(document));
    });
  }

  static async start(): Promise<IssuerServer> {
    const server = new IssuerServer();
    server.#server.listen(0, "127.0.0.1");
    await once(server.#server, "listening");
    return server;
  }

  get url(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the issuer does not listen");
    return `https://127.0.0.1:${address.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
