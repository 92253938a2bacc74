import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../../support/free-port.ts";
import { json, type HostileAnswer, type Repeated, type Step } from "./hostile-steps.ts";

/** The tokens in a correct answer of a hostile server. */
export const honest = { access_token: "honest-access", token_type: "Bearer", expires_in: 600 };

/** A token endpoint of raw TCP with one hostile answer, which can also behave. Take it with `await using`. */
export class HostileServer implements AsyncDisposable {
  readonly url: string;
  /** The requests that came whole, in order, as they came. */
  readonly requests: string[] = [];
  isHonest = false;
  readonly #answer: HostileAnswer;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number, answer: HostileAnswer) {
    this.url = `http://127.0.0.1:${port}`;
    this.#answer = answer;
    this.#server = createServer((socket) => this.#serve(socket)).listen(port, "127.0.0.1");
  }

  static async start(answer: HostileAnswer): Promise<HostileServer> {
    const server = new HostileServer(await freePort(), answer);
    await once(server.#server, "listening");
    return server;
  }

  /** The refresh tokens that were sent, in order. */
  get sent(): (string | null)[] {
    return this.requests.map((request) => new URLSearchParams(request.split("\r\n\r\n")[1]).get("refresh_token"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((closed) => void this.#server.close(closed));
  }

  #serve(socket: Socket): void {
    const { begins = "request" } = this.#answer;
    const { isHonest } = this;
    let request = "";
    let hasBegun = false;
    const begin = () => {
      if (hasBegun) return;
      hasBegun = true;
      void play(socket, isHonest ? [json(honest)] : this.#steps(request));
    };
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("data", (data) => {
      request += data.toString("latin1");
      if (begins === "first bytes" && !isHonest) begin();
      if (!isWhole(request)) return;
      this.requests.push(request);
      begin();
    });
    if (begins === "connected" && !isHonest) begin();
  }

  #steps(request: string): readonly Step[] {
    const { steps } = this.#answer;
    return typeof steps === "function" ? steps(request) : steps;
  }
}

function isWhole(request: string): boolean {
  const [headers = "", body] = request.split("\r\n\r\n");
  return body?.length === Number(/^content-length: (\d+)/im.exec(headers)?.[1]);
}

async function play(socket: Socket, steps: readonly Step[]): Promise<void> {
  for (const step of steps) {
    if (socket.destroyed) return;
    if (typeof step === "string" || Buffer.isBuffer(step)) socket.write(step);
    else if ("waitMs" in step) await sleep(step.waitMs);
    else if ("repeat" in step) await repeat(socket, step);
    else return step.end === "reset" ? await reset(socket) : undefined;
  }
  socket.end();
}

async function repeat(socket: Socket, step: Repeated): Promise<void> {
  const closed = new Promise((resolve) => void socket.once("close", resolve));
  for (let time = 0; time < step.times && !socket.destroyed; time++) {
    const hasRoom = socket.write(step.repeat);
    if (!hasRoom) await Promise.race([closed, new Promise((drained) => void socket.once("drain", drained))]);
    if (step.everyMs !== undefined) await sleep(step.everyMs);
  }
}

/** After what was written has left. */
async function reset(socket: Socket): Promise<void> {
  await sleep(20);
  socket.resetAndDestroy();
}
