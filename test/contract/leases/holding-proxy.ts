import { connect, createServer, type Server, type Socket } from "node:net";
import { freePort } from "../../support/free-port.ts";

/** Passes everything on to a Redis; a test can delay its replies, as a network that stalls in one direction would. */
export class HoldingProxy {
  readonly url: string;
  /** What was sent, as it went over the wire. */
  readonly commands: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #held: (() => void)[] | null = null;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `redis://127.0.0.1:${port}`;
  }

  static async start(target: string): Promise<HoldingProxy> {
    const server = createServer();
    const port = await freePort();
    const proxy = new HoldingProxy(server, port);
    server.on("connection", (client) => proxy.#join(client, new URL(target)));
    await new Promise<void>((listening) => void server.listen(port, "127.0.0.1", listening));
    return proxy;
  }

  hold(): void {
    this.#held ??= [];
  }

  deliver(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const send of held) send();
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((closed) => void this.#server.close(closed));
  }

  #join(client: Socket, { hostname, port }: URL): void {
    const upstream = connect(Number(port), hostname);
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (data) => {
      this.commands.push(data.toString());
      upstream.write(data);
    });
    upstream.on("data", (data) => {
      if (this.#held === null) client.write(data);
      else this.#held.push(() => void client.write(data));
    });
  }
}
