import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import type { Principal } from "../../../src/callers/principal.ts";
import { createFreshRead, serverWith } from "../../../src/http/fresh-read.ts";
import type { FreshToken, IssuedToken } from "../../../src/tokens/read.ts";
import { tokenRow } from "../tokens/token-row.ts";

const caller: Principal = {
  callerId: "k",
  actor: { kind: "key", id: "k", name: "reader" },
  abilities: ["tokens"],
  connections: ["acme-*"],
  labels: { customer: "acme" },
  expiresAt: null,
};
const row = tokenRow({ name: "acme-shop", labels: { customer: "acme" } });
const issued = { connection: "acme-shop", accessToken: "☃", scopes: ['"expires_in":0,'], warnings: [] };

type Given = { by?: Principal; name?: string; labels?: Record<string, string>; isClosing?: boolean };

/** What is sent for one request, if it takes the short way, and what is counted. */
function ask(request: Partial<IncomingMessage>, given: Given = {}) {
  const { by = caller, name = row.name, labels = row.labels, isClosing = false } = given;
  const found = { row: { ...row, name, labels }, accessToken: "☃", unreadable: null, askedAt: 0, asOf: null };
  const sent: unknown[] = [];
  const counted: unknown[] = [];
  const done: string[] = [];
  const read = createFreshRead({
    keys: { known: (key) => (key === "right" ? by : null) },
    tokens: {
      fresh: (asked): FreshToken | null => (asked === name ? { found, expiresInSeconds: 77 } : null),
      noteFresh: () => void done.push("noted"),
      issueFresh() {
        done.push("issued");
        return { ...issued, expiresAt: null, expiresInSeconds: 1 } as unknown as IssuedToken;
      },
    },
    readCounter: (each) => () => void counted.push(each.connection),
    headers: { "x-one": "1" },
    isClosing: () => isClosing,
  });
  const response = {
    writeHead: (status: number, headers: string[]) => void sent.push(status, headers),
    end: (body: string, encoding: string) => void sent.push(Buffer.from(body, encoding as BufferEncoding)),
  };
  const wasAnswered = read(request as IncomingMessage, response as unknown as ServerResponse);
  return { wasAnswered, sent, counted, done };
}

const plain = { method: "GET", url: "/tokens/acme-shop", headers: { authorization: "Bearer right" } };

test("a plain read by a known caller is answered, counted, and as long as it says", () => {
  const { wasAnswered, sent, counted, done } = ask(plain);
  const [status, headers, body] = sent as [number, string[], Buffer];
  expect([wasAnswered, status, counted, done]).toEqual([true, 200, ["acme-shop"], ["issued", "noted"]]);
  expect(headers).toEqual([
    "x-one",
    "1",
    "content-type",
    "application/json; charset=utf-8",
    "content-length",
    String(body.length),
  ]);
  expect(JSON.parse(body.toString("utf8"))).toMatchObject({
    access_token: "☃",
    expires_in: 77,
    scopes: ['"expires_in":0,'],
  });
});

test.each<[string, object, Given?]>([
  ["with another method", { ...plain, method: "POST" }],
  ["with a query", { ...plain, url: "/tokens/acme-shop?min_ttl=1" }],
  ["for another path", { ...plain, url: "/connections/acme-shop" }],
  ["without a bearer", { ...plain, headers: {} }],
  ["with another scheme", { ...plain, headers: { authorization: "Basic right" } }],
  ["with a key that is not known", { ...plain, headers: { authorization: "Bearer wrong" } }],
  ["for a row that is not simply fresh", { ...plain, url: "/tokens/acme-other" }],
  ["by a caller without the ability", plain, { by: { ...caller, abilities: ["admin", "connections"] } }],
  ["by a caller whose patterns do not cover it", plain, { by: { ...caller, connections: ["other-*"] } }],
  ["of a connection with other labels", plain, { labels: { customer: "other" } }],
  [
    "for a further token, which is reached only through its connection",
    { ...plain, url: "/tokens/acme-shop#page" },
    { name: "acme-shop#page" },
  ],
  ["while the process stops", plain, { isClosing: true }],
])("nothing is done for a request %s", (_is, request, given) => {
  expect(ask(request as Partial<IncomingMessage>, given)).toEqual({
    wasAnswered: false,
    sent: [],
    counted: [],
    done: [],
  });
});

const general = (_request: IncomingMessage, response: ServerResponse) => void response.end("general");

test("a fault in the short way ends no process: the general way answers, and the fault is told", async () => {
  const told: unknown[] = [];
  const fault = new Error("of the short way");
  const broken = () => {
    throw fault;
  };
  const factory = serverWith(broken, { http: {}, onError: (error) => void told.push(error) });
  const server = factory(general, { keepAliveTimeout: 1000, connectionTimeout: 0 });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/tokens/acme-shop`);
  expect([await answer.text(), told]).toEqual(["general", [fault]]);
  server.close();
});
