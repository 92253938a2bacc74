import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import type { Principal } from "../../../src/callers/principal.ts";
import { createFreshRead, serverWith } from "../../../src/http/fresh-read.ts";
import { KeptConnection } from "../../../src/tokens/cache.ts";
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
const issued = { connection: "acme-shop", tokenType: "☃", scopes: ['"expires_in":0,'], warnings: [] };

type Given = {
  by?: Principal;
  name?: string;
  labels?: Record<string, string>;
  token?: string;
  isClosing?: boolean;
  /** The row is not in memory. What happens when it is read. */
  reads?: (response: { destroyed: boolean }) => "found" | "missing";
};

/** What is sent for one request, if it takes the short way, and what is counted. */
async function ask(request: Partial<IncomingMessage>, given: Given = {}) {
  const { by = caller, name = row.name, isClosing = false, reads } = given;
  const { labels: ofRow = row.labels, token: accessToken = "ab/c" } = given;
  let isInMemory = reads === undefined;
  const opened = { row: { ...row, name, labels: ofRow }, accessToken, unreadable: null, askedAt: 0, asOf: null };
  const found = new KeptConnection(opened, (text) => text);
  const sent: unknown[] = [];
  const counted: unknown[] = [];
  const done: string[] = [];
  const loaded = new WeakMap<IncomingMessage, Promise<typeof found | null>>();
  const read = createFreshRead({
    keys: { known: (key) => (key === "right" ? by : null) },
    workloads: { known: (token) => (token === "eyJ.right.x" ? by : null) },
    loaded,
    tokens: {
      fresh: (asked, labels): FreshToken | null => {
        expect(labels).toBe(by.labels);
        return isInMemory && asked === name ? { found, expiresInSeconds: 77 } : null;
      },
      async load(asked) {
        done.push(`read ${asked}`);
        await Promise.resolve();
        isInMemory = reads?.(response) === "found";
        return isInMemory && asked === name ? found : null;
      },
      noteFresh: () => void done.push("noted"),
      issueFresh() {
        done.push("issued");
        return {
          ...issued,
          token: null,
          accessToken,
          version: 1,
          expiresAt: null,
          expiresInSeconds: 1,
        } as unknown as IssuedToken;
      },
    },
    readCounter: () => (connection) => void counted.push(connection),
    headers: { "x-one": "1" },
    isClosing: () => isClosing,
  });
  const response = {
    destroyed: false,
    writeHead: (status: number, headers: string[]) => void sent.push(status, headers),
    end: (body: string, encoding: string) => void sent.push(Buffer.from(body, encoding as BufferEncoding)),
  };
  const wasAnswered = await read(request as IncomingMessage, response as unknown as ServerResponse);
  const wasRead = await loaded.get(request as IncomingMessage)?.then(
    (what) => what?.row.name ?? null,
    (error: Error) => error.message,
  );
  return { wasAnswered, sent, counted, done, ...(wasRead !== undefined && { wasRead }) };
}

const plain = { method: "GET", url: "/tokens/acme-shop", headers: { authorization: "Bearer right" } };

test.each(["ab/c", 'a"b\\c'])(
  "a plain read by a known caller is answered, counted, and as long as it says, with the token %s",
  async (token) => {
    const { wasAnswered, sent, counted, done } = await ask(plain, { token });
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
    expect(JSON.parse(body.toString("utf8"))).toEqual({
      connection: "acme-shop",
      access_token: token,
      token_type: "☃",
      expires_at: row.expiresAt?.toISOString(),
      expires_in: 77,
      scopes: ['"expires_in":0,'],
      version: row.version,
      warnings: [],
    });
  },
);

test("a workload's read is answered as a key's", async () => {
  const request = { ...plain, headers: { authorization: "Bearer eyJ.right.x" } };
  expect(await ask(request)).toEqual(await ask(plain));
  expect((await ask({ ...plain, headers: { authorization: "Bearer eyJ.wrong.x" } })).wasAnswered).toBe(false);
});

const unbound = { ...caller, labels: {} };
const url = "/tokens/acme-shop";

test("a row that is not in memory is read first, once", async () => {
  const { wasAnswered, sent, counted, done } = await ask({ ...plain }, { by: unbound, reads: () => "found" });
  expect([wasAnswered, sent[0], counted, done]).toEqual([
    true,
    200,
    ["acme-shop"],
    ["read acme-shop", "issued", "noted"],
  ]);
});

test("for a caller whose patterns do not cover the name, what nobody has is read, and memory is not asked", async () => {
  const asked = await ask({ ...plain }, { by: { ...unbound, connections: ["other-*"] }, reads: () => "found" });
  expect(asked).toEqual({ wasAnswered: false, sent: [], counted: [], done: ["read acme-shop#"], wasRead: null });
});

const gone = (response: { destroyed: boolean }) => {
  response.destroyed = true;
  return "found" as const;
};
const away = () => {
  throw new Error("away");
};

test("nobody is answered, and nothing counted, who has gone meanwhile", async () => {
  const { wasAnswered, sent, counted } = await ask({ ...plain }, { by: unbound, reads: gone });
  expect([wasAnswered, sent, counted]).toEqual([true, [], []]);
});

test("what was read in vain is not read again by the general way, and an outage is that of both", async () => {
  const missing = await ask({ ...plain }, { by: unbound, reads: () => "missing" });
  expect(missing).toMatchObject({ wasAnswered: false, sent: [], counted: [], wasRead: null });
  const failed = await ask({ ...plain }, { by: unbound, reads: away });
  expect(failed).toMatchObject({ wasAnswered: false, sent: [], counted: [], wasRead: "away" });
  const other = await ask({ ...plain, url: "/tokens/acme-other" }, { by: unbound, reads: () => "found" });
  expect(other).toMatchObject({ wasAnswered: false, sent: [], counted: [] });
});

test.each<[string, object, Given]>([
  ["by a caller who is bound to labels", { url }, {}],
  ["by a caller without the ability", { url }, { by: { ...unbound, abilities: ["connections"] } }],
  ["for a further token", { url: `${url}#page` }, { by: unbound }],
  ["with an escape sequence", { url: "/tokens/acme%2Dshop" }, { by: unbound }],
  ["with a query", { url: `${url}?min_ttl=1` }, { by: unbound }],
  ["while the process stops", { url }, { by: unbound, isClosing: true }],
])("nothing is read first for a request %s", async (_is, request, given) => {
  const asked = await ask({ ...plain, ...request }, { ...given, reads: () => "found" });
  expect(asked).toEqual({ wasAnswered: false, sent: [], counted: [], done: [] });
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
  ["by a caller with labels whose patterns do not cover it", plain, { by: { ...caller, connections: ["other-*"] } }],
  ["of a connection with other labels", plain, { labels: { customer: "other" } }],
  [
    "for a further token, which is reached only through its connection",
    { ...plain, url: "/tokens/acme-shop#page" },
    { name: "acme-shop#page" },
  ],
  ["while the process stops", plain, { isClosing: true }],
])("nothing is done for a request %s", async (_is, request, given) => {
  expect(await ask(request as Partial<IncomingMessage>, given)).toEqual({
    wasAnswered: false,
    sent: [],
    counted: [],
    done: [],
  });
});

const general = (_request: IncomingMessage, response: ServerResponse) => void response.end("general");

const fault = new Error("of the short way");
const atOnce = () => {
  throw fault;
};
const later = async () => await Promise.reject(fault);

test.each([
  ["at once", atOnce],
  ["later", later],
])(
  "a fault in the short way, %s, ends no process: the general way answers, and the fault is told",
  async (_when, broken) => {
    const told: unknown[] = [];
    const factory = serverWith(broken, { http: {}, onError: (error) => void told.push(error) });
    const server = factory(general, { keepAliveTimeout: 1000, connectionTimeout: 0 });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/tokens/acme-shop`);
    expect([await answer.text(), told]).toEqual(["general", [fault]]);
    server.close();
  },
);
