import { once } from "node:events";
import { connect, type Socket } from "node:net";

type Herd = {
  /** Each gets as many callers as the others. */
  ports: readonly number[];
  callers: number;
  path: string;
  key: string;
};

/**
 * Lets all callers ask in one turn of the event loop, over connections that were opened and used before, and waits for the last answer. By
 * hand, since two cores run this, four brokers, Postgres and Redis.
 * @returns milliseconds from the first byte that is sent to the last answer @throws for an answer that is not 200
 */
export async function releaseHerd({ ports, callers, path, key }: Herd): Promise<number> {
  const sockets = await Promise.all(
    Array.from({ length: callers }, async (_, index) => {
      const socket = connect(ports[index % ports.length] ?? 0, "127.0.0.1").setNoDelay(true);
      await once(socket, "connect");
      return socket;
    }),
  );
  try {
    await Promise.all(sockets.map((socket) => ask(socket, "/livez", key)));
    const startedMs = performance.now();
    await Promise.all(sockets.map((socket) => ask(socket, path, key)));
    return performance.now() - startedMs;
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

function ask(socket: Socket, path: string, key: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let answer = "";
  const onData = (chunk: Buffer) => {
    answer += chunk.toString("latin1");
    if (!isWhole(answer)) return;
    socket.off("data", onData).off("close", onClose);
    if (answer.startsWith("HTTP/1.1 200 ")) resolve();
    else reject(new Error(`${path}: ${answer}`));
  };
  const onClose = () => reject(new Error(`${path}: the connection was closed`));
  socket.on("data", onData).once("close", onClose);
  socket.write(`GET ${path} HTTP/1.1\r\nhost: broker\r\nauthorization: Bearer ${key}\r\n\r\n`);
  return promise;
}

function isWhole(answer: string): boolean {
  const headEnd = answer.indexOf("\r\n\r\n");
  if (headEnd < 0) return false;
  const length = Number(/^content-length: (\d+)/im.exec(answer.slice(0, headEnd))?.[1]);
  return answer.length >= headEnd + 4 + length;
}
