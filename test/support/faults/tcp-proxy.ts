import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { freePort } from "../free-port.ts";
import { Link } from "./tcp-link.ts";

/** What goes wrong between a client and its server. A test may change it at any moment. A change counts for what comes after it. */
export type Faults = {
  delayToServerMs: number;
  delayToClientMs: number;
  /** `reset`: refused by a reset at once. `swallowed`: accepted, and whatever is sent there vanishes. */
  newConnections: "served" | "reset" | "swallowed";
  /** The answers of each connection end, orderly, after so many bytes. */
  cutAnswersAfterBytes: number | null;
  lostAnswers: LostAnswers | null;
  /** Redis: what is pushed to a connection after its SUBSCRIBE was confirmed vanishes. */
  losesPushes: boolean;
};

/** Requests get through, and their answers do not. */
export type LostAnswers = {
  /** Answers are lost from the moment when the client of the connection has sent this text once, or any text if none is given. */
  from?: string;
  /** How many connections lose answers in this way; all unless given. */
  times?: number;
  /** What becomes of the connection: it stays and is silent, or is reset once the server has answered. */
  ending: "silence" | "reset";
};

/** What the proxy did, for tests that must know that a fault has struck. */
export type FaultCounts = { connections: number; lostAnswers: number; lostPushes: number; cut: number };

const noFaults: Faults = {
  delayToServerMs: 0,
  delayToClientMs: 0,
  newConnections: "served",
  cutAnswersAfterBytes: null,
  lostAnswers: null,
  losesPushes: false,
};

/** A TCP proxy in front of one server, with faults to switch on and off. Take it with `await using`. */
export class FaultProxy implements AsyncDisposable {
  readonly port: number;
  /** The target's URL with this proxy in its place. */
  readonly url: string;
  readonly faults: Faults = { ...noFaults };
  readonly counts: FaultCounts = { connections: 0, lostAnswers: 0, lostPushes: 0, cut: 0 };
  readonly #target: URL;
  readonly #server: Server;
  readonly #links = new Set<Link>();
  readonly #swallowed = new Set<Socket>();
  #stalled: PromiseWithResolvers<void> | null = null;

  constructor(target: URL, port: number) {
    this.#target = target;
    this.port = port;
    const url = new URL(target);
    url.hostname = "127.0.0.1";
    url.port = String(port);
    this.url = target.pathname === "/" ? url.href.replace(/\/$/, "") : url.href;
    this.#server = createServer({ allowHalfOpen: true }, (client) => {
      this.#accept(client);
    });
  }

  async listen(): Promise<this> {
    this.#server.listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  /** How many connections are open. */
  get open(): number {
    return this.#links.size;
  }

  /** Breaks every connection that is open now. */
  reset(): void {
    for (const link of this.#links) link.reset();
  }

  /** Nothing gets through in either direction until `resume`, as over a line that is cut: what was sent follows then. */
  stall(): void {
    this.#stalled ??= Promise.withResolvers<void>();
  }

  resume(): void {
    this.#stalled?.resolve();
    this.#stalled = null;
  }

  /** For connections: resolves while nothing stalls. */
  async untilFlowing(): Promise<void> {
    while (this.#stalled !== null) await this.#stalled.promise;
  }

  /** Every fault off. Answers that were lost stay lost. */
  heal(): void {
    Object.assign(this.faults, noFaults);
    this.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    for (const link of this.#links) link.destroy();
    for (const socket of this.#swallowed) socket.destroy();
    await new Promise((closed) => void this.#server.close(closed));
  }

  #accept(client: Socket): void {
    this.counts.connections++;
    client.on("error", () => {});
    if (this.faults.newConnections === "reset") client.resetAndDestroy();
    else if (this.faults.newConnections === "swallowed") this.#swallow(client);
    else this.#join(client);
  }

  #swallow(client: Socket): void {
    this.#swallowed.add(client);
    client.resume();
    client.once("end", () => client.end());
    client.once("close", () => this.#swallowed.delete(client));
  }

  #join(client: Socket): void {
    const { hostname, port } = this.#target;
    const link = new Link({ client, host: hostname, port: Number(port), proxy: this });
    this.#links.add(link);
    client.once("close", () => this.#links.delete(link));
  }
}

/** Starts a proxy in front of the server that `target`, a URL with a port, leads to. */
export async function startFaultProxy(target: string): Promise<FaultProxy> {
  return await new FaultProxy(new URL(target), await freePort()).listen();
}
