import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { connect, type Server, type Socket } from "node:net";
import { expect, it } from "vitest";
import { requireFreePorts } from "../../../src/start/first-warnings.ts";
import { freePort } from "../../support/free-port.ts";

const listening = "tracing:net.server.listen:asyncEnd";

it("whoever connects while the port is looked at is cut off, and does not keep the start waiting", async () => {
  const port = await freePort();
  const wasCutOff: boolean[] = [];
  // The probe is closed only when somebody has connected.
  const lateClose = (message: unknown) => {
    const { server } = message as { server: Server };
    const close = server.close.bind(server);
    server.close = () => {
      server.once("connection", (socket: Socket) => {
        wasCutOff.push(socket.destroyed);
        socket.destroy(); // so that a fault ends this test as well
        close();
      });
      connect({ port, host: "127.0.0.1" }).on("error", () => {}); // it is cut off
      return server;
    };
  };
  subscribe(listening, lateClose);
  try {
    await requireFreePorts({ host: "127.0.0.1", port, metricsPort: null });
  } finally {
    unsubscribe(listening, lateClose);
  }
  expect(wasCutOff).toEqual([true]);
});
