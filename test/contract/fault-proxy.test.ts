import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePort } from "../support/free-port.ts";
import { type FaultProxy, startFaultProxy } from "../support/faults/tcp-proxy.ts";
import { until } from "../support/patience.ts";
import { describeWithServices, useRedis } from "../support/services/index.ts";

let server: Server;
let target: string;
/** What has reached the server. */
let received = "";

beforeAll(async () => {
  server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => {
      received += data.toString();
      socket.write(`answer to ${data.toString()}`);
    });
  });
  const port = await freePort();
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  target = `tcp://127.0.0.1:${port}`;
});

afterAll(() => void server.close());

/** A client that keeps everything that it receives, and how its connection ended. */
async function dial(proxy: FaultProxy) {
  const socket: Socket = connect(proxy.port, "127.0.0.1");
  const heard = { text: "", end: "open" };
  socket.on("data", (data) => (heard.text += data.toString()));
  socket.on("end", () => (heard.end = "ended"));
  socket.on("error", (error: NodeJS.ErrnoException) => (heard.end = error.code ?? "error"));
  // A connection may be reset before it is seen to be there.
  await once(socket, "connect").catch(() => {});
  return { socket, heard };
}

it("without faults everything passes, the end of a connection included", async () => {
  await using proxy = await startFaultProxy(target);
  const { socket, heard } = await dial(proxy);
  socket.write("one;");
  await until("the answer", () => heard.text === "answer to one;");
  socket.end("two;");
  await until(
    "the second answer and the end",
    () => heard.text === "answer to one;answer to two;" && heard.end === "ended",
  );
  expect(proxy.counts).toEqual({ connections: 1, lostAnswers: 0, lostPushes: 0, cut: 0 });
});

it("bytes are delayed in the direction that is asked for", async () => {
  await using proxy = await startFaultProxy(target);
  const { socket, heard } = await dial(proxy);
  proxy.faults.delayToClientMs = 150;
  received = "";
  const sentMs = performance.now();
  socket.write("slow;");
  await until("the server has it", () => received === "slow;");
  expect(heard.text).toBe("");
  await until("the answer", () => heard.text !== "");
  expect(performance.now() - sentMs).toBeGreaterThanOrEqual(149);
});

it("open connections are reset, and new ones too where that is asked for", async () => {
  await using proxy = await startFaultProxy(target);
  const first = await dial(proxy);
  first.socket.write("hello;");
  await until("the answer", () => first.heard.text !== "");
  proxy.faults.newConnections = "reset";
  proxy.reset();
  await until("the open connection is reset", () => first.heard.end === "ECONNRESET");
  const second = await dial(proxy);
  await until("the new connection is reset", () => second.heard.end === "ECONNRESET");
});

it("a black hole accepts, and nothing comes of it", async () => {
  await using proxy = await startFaultProxy(target);
  proxy.faults.newConnections = "swallowed";
  received = "";
  const { socket, heard } = await dial(proxy);
  socket.write("lost;");
  await sleep(50);
  expect([received, heard]).toEqual(["", { text: "", end: "open" }]);
});

it("what a stalled line holds back follows when it is mended", async () => {
  await using proxy = await startFaultProxy(target);
  const { socket, heard } = await dial(proxy);
  proxy.stall();
  received = "";
  socket.write("held;");
  await sleep(50);
  expect([received, heard.text]).toEqual(["", ""]);
  proxy.resume();
  await until("the answer", () => heard.text === "answer to held;");
});

it("answers are cut after as many bytes as asked for, at every offset", async () => {
  await using proxy = await startFaultProxy(target);
  const whole = "answer to x";
  for (let bytes = 0; bytes < whole.length; bytes++) {
    proxy.faults.cutAnswersAfterBytes = bytes;
    const { socket, heard } = await dial(proxy);
    socket.write("x");
    await until("the end", () => heard.end === "ended");
    expect(heard.text).toBe(whole.slice(0, bytes));
  }
});

it("an answer is lost from a given text on, which the server has received, and the connection is reset", async () => {
  await using proxy = await startFaultProxy(target);
  proxy.faults.lostAnswers = { from: "COMMIT;", times: 1, ending: "reset" };
  const { socket, heard } = await dial(proxy);
  socket.setNoDelay(true);
  received = "";
  socket.write("BEGIN;");
  await until("the answer", () => heard.text === "answer to BEGIN;");
  socket.write("COM");
  await until("the server has it", () => received === "BEGIN;COM");
  socket.write("MIT;");
  await until("the reset", () => heard.end === "ECONNRESET");
  expect(received).toBe("BEGIN;COMMIT;");
  expect(heard.text).not.toContain("MIT");
  const next = await dial(proxy);
  next.socket.write("COMMIT;");
  await until("the answer", () => next.heard.text === "answer to COMMIT;");
  expect(proxy.counts.lostAnswers).toBe(1);
});

it("a connection that loses its answers in silence stays open", async () => {
  await using proxy = await startFaultProxy(target);
  proxy.faults.lostAnswers = { ending: "silence" };
  const { socket, heard } = await dial(proxy);
  received = "";
  socket.write("a;");
  await until("the server has it", () => received === "a;");
  await sleep(60);
  expect(heard).toEqual({ text: "", end: "open" });
});

it("a server that is not there resets whoever connects", async () => {
  await using proxy = await startFaultProxy(`tcp://127.0.0.1:${await freePort()}`);
  const { heard } = await dial(proxy);
  await until("an end", () => heard.end !== "open");
});

describeWithServices(["redis"], "a fault proxy before Redis", () => {
  it("drops messages and nothing else", async () => {
    const url = await useRedis();
    await using proxy = await startFaultProxy(url);
    const [commands, subscriber] = [new Redis(proxy.url), new Redis(proxy.url)];
    const heard: string[] = [];
    subscriber.on("message", (_channel, text: string) => heard.push(text));
    const channel = `fault-proxy-${proxy.port}`;
    await subscriber.subscribe(channel);
    proxy.faults.losesPushes = true;
    expect(await commands.publish(channel, "lost")).toBe(1);
    await until("a message is lost", () => proxy.counts.lostPushes > 0);
    proxy.faults.losesPushes = false;
    await commands.publish(channel, "heard");
    await until("a message is heard", () => heard.length > 0);
    expect(heard).toEqual(["heard"]);
    commands.disconnect();
    subscriber.disconnect();
  });
});
