import { once } from "node:events";
import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { pipeline } from "node:stream";
import { freePort } from "../support/free-port.ts";

/** As in deploy/haproxy.cfg: two answers of a kind in a row take a target in or out. */
const checkMs = 1000;
const checksToChange = 2;

type Target = { origin: string; agent: Agent; isUp: boolean; others: number };

/**
 * A load balancer as operators run them: it asks /readyz once a second, gives requests to the targets that are ready by turns,
 * keeps connections to them alive, and repeats nothing. Take it with `await using`.
 */
export class Balancer implements AsyncDisposable {
  readonly url: string;
  /** What went wrong between it and its targets. */
  readonly troubles: string[] = [];
  /** Checks that were late or answered late. In these cases the balancer may not have noticed in time that a target ends. */
  lateChecks = 0;
  readonly #targets: Target[];
  readonly #server: Server;
  readonly #timer: NodeJS.Timeout;
  #turn = 0;
  #checkedAtMs = performance.now();

  private constructor(port: number, origins: readonly string[]) {
    this.url = `http://127.0.0.1:${port}`;
    this.#targets = origins.map((origin) => ({ origin, agent: new Agent({ keepAlive: true }), isUp: true, others: 0 }));
    this.#server = createServer((incoming, outgoing) => this.#pass(incoming, outgoing)).listen(port, "127.0.0.1");
    this.#timer = setInterval(() => this.#checkAll(), checkMs);
  }

  /** @param origins base URLs of targets that are ready */
  static async start(origins: readonly string[]): Promise<Balancer> {
    const balancer = new Balancer(await freePort(), origins);
    await once(balancer.#server, "listening");
    return balancer;
  }

  isUp(origin: string): boolean {
    return this.#targets.some((target) => target.origin === origin && target.isUp);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#server.closeAllConnections();
    await new Promise((closed) => void this.#server.close(closed));
    for (const { agent } of this.#targets) agent.destroy();
  }

  #checkAll(): void {
    const nowMs = performance.now();
    if (nowMs - this.#checkedAtMs > 1.5 * checkMs) this.lateChecks++;
    this.#checkedAtMs = nowMs;
    for (const target of this.#targets) void this.#check(target);
  }

  async #check(target: Target): Promise<void> {
    const askedMs = performance.now();
    const isReady = await isTargetReady(target);
    if (performance.now() - askedMs > checkMs / 2) this.lateChecks++;
    target.others = isReady === target.isUp ? 0 : target.others + 1;
    if (target.others < checksToChange) return;
    target.isUp = isReady;
    target.others = 0;
  }

  #pass(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const ready = this.#targets.filter(({ isUp }) => isUp);
    const target = ready[this.#turn++ % ready.length];
    if (target === undefined) return this.#fail(outgoing, "no target is ready");
    const { method = "GET", url: path = "/", headers } = incoming;
    const sent = request(new URL(path, target.origin), { method, headers, agent: target.agent }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      pipeline(answer, outgoing, () => {});
    });
    sent.once("error", (error) => this.#fail(outgoing, `${target.origin}: ${error.message}`));
    pipeline(incoming, sent, () => {});
  }

  #fail(outgoing: ServerResponse, trouble: string): void {
    this.troubles.push(trouble);
    if (!outgoing.headersSent) outgoing.writeHead(502).end();
  }
}

async function isTargetReady({ origin }: Target): Promise<boolean> {
  const answer = await fetch(`${origin}/readyz`).catch(() => null);
  await answer?.body?.cancel();
  return answer?.status === 200;
}
