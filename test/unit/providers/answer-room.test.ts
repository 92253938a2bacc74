import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as fc from "fast-check";
import type { Dispatcher } from "undici";
import { expect, onTestFinished, test, vi } from "vitest";
import { AnswerRoom, type AnswerShare, freeBytes, maxBodyBytes } from "../../../src/providers/http/answer-room.ts";
import { createEgress, parseNetworks } from "../../../src/providers/http/egress.ts";
import { HttpExchange } from "../../../src/providers/http/exchange.ts";
import { createOAuthClient } from "../../../src/providers/oauth/oauth-client.ts";
import { buildTokenRequest } from "../../../src/providers/oauth/token-request.ts";
import { hangMs } from "../../support/patience.ts";
import { define } from "./definitions.ts";

const mostOfOne = maxBodyBytes - freeBytes;

/** What is still in use on the heap, after garbage is collected: nobody knows when that happens by itself. */
function heldBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

test("the first 64 KiB of an answer are taken however little room there is", () => {
  const room = new AnswerRoom(mostOfOne);
  const full = room.open();
  expect(full.grow(maxBodyBytes, () => {})).toBe(true);
  expect(room.open().grow(freeBytes, () => {})).toBe(true);
  expect(room.open().grow(freeBytes + 1, () => {})).toBe(false);
});

test("an answer that waits goes on once another has been dealt with; one that is given up waits no more", async () => {
  const room = new AnswerRoom(mostOfOne);
  const [first, second, third] = [room.open(), room.open(), room.open()];
  const heard: string[] = [];
  expect(first.grow(maxBodyBytes, () => {})).toBe(true);
  expect(second.grow(maxBodyBytes, () => heard.push("second"))).toBe(false);
  expect(third.grow(freeBytes + 1, () => heard.push("third"))).toBe(false);
  second.release();
  first.release();
  await Promise.resolve();
  expect(heard).toEqual(["third"]);
});

test("whatever the order in which bytes come, no more room is taken than there is, and all answers come to their end", () => {
  const size = fc.integer({ min: 1, max: maxBodyBytes });
  const answers = fc.array(size, { minLength: 1, maxLength: 40 });
  const order = fc.infiniteStream(fc.nat());
  fc.assert(
    fc.property(answers, order, fc.integer({ min: mostOfOne, max: 4 * mostOfOne }), (sizes, picks, bytes) => {
      const room = new AnswerRoom(bytes);
      const open = sizes.map((whole) => ({ whole, got: 0, waits: false, share: room.open() }));
      const step = 150_000;
      const retry = (one: (typeof open)[number]) => (one.waits = !one.share.grow(one.got, () => {}));
      while (open.length > 0) {
        for (const waiting of open.filter(({ waits }) => waits)) retry(waiting);
        const ready = open.filter(({ waits }) => !waits);
        expect(ready.length, "all wait for each other").toBeGreaterThan(0);
        const one = ready[(picks.next().value as number) % ready.length];
        if (one === undefined) throw new Error("none");
        one.got = Math.min(one.whole, one.got + step);
        retry(one);
        expect(open.reduce((sum, { share }) => sum + share.bytes, 0)).toBeLessThanOrEqual(bytes);
        if (!one.waits && one.got === one.whole) {
          one.share.release();
          open.splice(open.indexOf(one), 1);
        }
      }
    }),
    { numRuns: 50 },
  );
});

test("an answer in chunks of one byte takes no more memory than in one piece", async () => {
  const room = new AnswerRoom();
  const opened = vi.spyOn(room, "open");
  const exchange = new HttpExchange({ totalMs: hangMs, mayStillSend: () => true, room, relayedBy: null });
  const controller = { pause() {}, resume() {}, abort() {} } as unknown as Dispatcher.DispatchController;
  exchange.onRequestStart(controller);
  exchange.onResponseStart(controller, 200, {});
  const chunk = Buffer.from("x");
  const before = heldBytes();
  for (let size = 0; size < maxBodyBytes; size++) exchange.onResponseData(controller, chunk);
  expect(heldBytes() - before).toBeLessThan(32 * 1024 * 1024); // one object for each would be 100 MB
  const [share] = opened.mock.results;
  expect(share?.value).toMatchObject({ bytes: mostOfOne });
  exchange.onResponseEnd();
  const outcome = await exchange.outcome;
  expect(outcome).toMatchObject({ kind: "answered", response: { complete: true } });
  if (outcome.kind === "answered") expect(outcome.response.body.equals(Buffer.alloc(maxBodyBytes, "x"))).toBe(true);
});

test("a hundred answers of 1 MiB that come bit by bit are all taken, and hold no more than their room between them", async () => {
  const body = JSON.stringify({ access_token: "a", refresh_token: "r2" }).padEnd(maxBodyBytes);
  const pieces = 16;
  const answers = 100;
  let arrived = 0;
  const all = Promise.withResolvers<void>();
  // The server waits until all requests are there. Then each gets a piece in turn, so that all are halfway at the same time.
  const server = http.createServer((_request, response) => {
    if (++arrived === answers) all.resolve();
    void (async () => {
      await all.promise;
      for (let index = 0; index < pieces; index++) {
        const size = body.length / pieces;
        const isTaken = response.write(body.slice(index * size, (index + 1) * size));
        if (!isTaken) await once(response, "drain");
        else await new Promise((resolve) => setImmediate(resolve));
      }
      response.end();
    })();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const roomBytes = 8 * 1024 * 1024;
  const shares: AnswerShare[] = [];
  let most = 0;
  let waits = 0;
  class Watched extends AnswerRoom {
    override open(): AnswerShare {
      const share = super.open();
      shares.push(share);
      const grow = share.grow.bind(share);
      share.grow = (size, onRoom) => {
        const isGiven = grow(size, onRoom);
        if (!isGiven) waits += 1;
        const held = shares.reduce((sum, { bytes }) => sum + bytes, 0);
        most = Math.max(most, held);
        return isGiven;
      };
      const release = share.release.bind(share);
      share.release = () => {
        shares.splice(shares.indexOf(share), 1);
        release();
      };
      return share;
    }
  }
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
  const definition = define("grants: [import]", `id: own\ntoken: { url: "${url}" }`);
  const values = { client: { id: "c", secret: "s" }, refreshToken: "r1" };
  const request = buildTokenRequest({ definition, grant: "refresh_token", obtainedBy: "import", values });
  const client = createOAuthClient({
    egress: createEgress({ networks: parseNetworks("127.0.0.0/8"), trustedOrigin: null }),
    room: new Watched(roomBytes),
    timeouts: { connectMs: 2 * hangMs, headersMs: 2 * hangMs, totalMs: 2 * hangMs },
  });
  const given = await Promise.all(
    Array.from(
      { length: answers },
      async () => await client.requestToken({ definition, request, mayStillSend: () => true }),
    ),
  );
  expect(new Set(given.map(({ kind }) => kind))).toEqual(new Set(["granted"]));
  expect(waits).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(roomBytes);
  expect(shares).toEqual([]);
});
