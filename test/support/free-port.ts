import { createServer } from "node:net";

const lowest = 20_000;
const highest = 32_000;
const handedOut = new Set<number>();

/**
 * A free port of 127.0.0.1, below the range from which the system takes ports for outgoing connections, so that
 * nothing takes it while its server restarts.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (!handedOut.has(port) && (await canListen(port))) {
      handedOut.add(port);
      return port;
    }
  }
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => {
      resolve(false);
    });
    server.listen(port, "127.0.0.1", () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}
