import type { IncomingMessage, ServerResponse } from "node:http";
import { expect, test } from "vitest";
import type { Principal } from "../../../src/callers/principal.ts";
import { BrokerError } from "../../../src/errors.ts";
import { createRejectedRead } from "../../../src/http/rejected-read.ts";
import type { IssuedToken, TokenService } from "../../../src/tokens/read.ts";

const caller: Principal = {
  callerId: "k",
  actor: { kind: "key", id: "k", name: "reader" },
  abilities: ["tokens"],
  connections: ["acme-*"],
  labels: { customer: "acme" },
  expiresAt: null,
};
const issued: IssuedToken = {
  connection: "acme-shop",
  token: null,
  accessToken: "☃",
  tokenType: "Bearer",
  expiresAt: null,
  expiresInSeconds: null,
  scopes: [],
  missingScopes: [],
  version: 8,
  warnings: [],
};

type Given = { by?: Principal; isClosing?: boolean; get?: () => Promise<IssuedToken> };

/** What is asked of the core and sent for one request, and what is counted. */
async function ask(request: Partial<IncomingMessage>, given: Given = {}) {
  const { by = caller, isClosing = false, get = async () => issued } = given;
  const wishes: unknown[] = [];
  const sent: unknown[] = [];
  const counted: unknown[] = [];
  const asked = new WeakMap<IncomingMessage, ReturnType<TokenService["get"]>>();
  const read = createRejectedRead({
    keys: {
      known: (key) => (key === "right" ? by : null),
      authenticate: async (key) => {
        if (key === "not read for long") return by;
        throw new BrokerError("unauthenticated", "wrong");
      },
    },
    workloads: { known: (token) => (token === "eyJ.right.x" ? by : null) },
    tokens: {
      get: async (name, wish) => {
        wishes.push(name, wish);
        return await get();
      },
    },
    asked,
    countReadResult: ({ connection, result }) => void counted.push(connection, result),
    headers: { "x-one": "1" },
    isClosing: () => isClosing,
  });
  const response = {
    writeHead: (status: number, headers: string[]) => void sent.push(status, headers),
    end: (body: string) => void sent.push(Buffer.from(body)),
  };
  const wasAnswered = await read(request as IncomingMessage, response as unknown as ServerResponse);
  return { wasAnswered, wishes, sent, counted, asking: asked.get(request as IncomingMessage) };
}

const plain = {
  method: "GET",
  url: "/tokens/acme-shop?rejected_version=7",
  headers: { authorization: "Bearer right" },
};
const wish = { labels: caller.labels, minTtlSeconds: 60, rejectedVersion: 7, waitSeconds: 10 };

test("a caller that is known gets what the general way asks for, counted, and as long as it says", async () => {
  const { wasAnswered, wishes, sent, counted } = await ask(plain);
  const [status, headers, body] = sent as [number, string[], Buffer];
  expect([wasAnswered, wishes, status, counted]).toEqual([true, ["acme-shop", wish], 200, ["acme-shop", "ok"]]);
  expect(headers).toEqual([
    "x-one",
    "1",
    "content-type",
    "application/json; charset=utf-8",
    "content-length",
    String(body.length),
  ]);
  expect(JSON.parse(body.toString("utf8"))).toMatchObject({ access_token: "☃", version: 8 });
});

test("a token whose refresh fails is counted as stale", async () => {
  const warnings = [{ code: "refresh_failing" as const, detail: "d" }];
  expect((await ask(plain, { get: async () => ({ ...issued, warnings }) })).counted).toEqual(["acme-shop", "stale"]);
});

test("a key that has not called for seconds is read anew", async () => {
  const asked = await ask({ ...plain, headers: { authorization: "Bearer not read for long" } });
  expect([asked.wasAnswered, asked.wishes]).toEqual([true, ["acme-shop", wish]]);
});

test("a workload's read is answered as a key's", async () => {
  const asked = await ask({ ...plain, headers: { authorization: "Bearer eyJ.right.x" } });
  expect([asked.wasAnswered, asked.wishes]).toEqual([true, ["acme-shop", wish]]);
});

test("for a caller whose patterns do not cover the name, what nobody has is asked for", async () => {
  const { wishes } = await ask(plain, { by: { ...caller, connections: ["other-*"] } });
  expect(wishes[0]).toBe("acme-shop#");
});

test("a refusal is left to the general way, which gets it and asks for nothing again", async () => {
  const refused = new BrokerError("needs_reauthorization", "over");
  const { wasAnswered, wishes, sent, counted, asking } = await ask(plain, { get: () => Promise.reject(refused) });
  expect([wasAnswered, wishes.length, sent, counted]).toEqual([false, 2, [], []]);
  await expect(asking).rejects.toBe(refused);
});

test.each<[string, object, Given?]>([
  ["with another method", { method: "POST" }],
  ["without the version", { url: "/tokens/acme-shop" }],
  ["with a version that is none", { url: "/tokens/acme-shop?rejected_version=0" }],
  ["with a version that no row reaches", { url: "/tokens/acme-shop?rejected_version=2147483648" }],
  ["with a further wish", { url: "/tokens/acme-shop?rejected_version=7&wait=1" }],
  ["with an escape sequence", { url: "/tokens/acme%2Dshop?rejected_version=7" }],
  ["for a further token, which is reached only through its connection", { url: "/tokens/a#page?rejected_version=7" }],
  ["without a bearer", { headers: {} }],
  ["with another scheme", { headers: { authorization: "Basic right" } }],
  ["with a key that is not known", { headers: { authorization: "Bearer wrong" } }],
  ["by a caller without the ability", {}, { by: { ...caller, abilities: ["connections"] } }],
  ["while the process stops", {}, { isClosing: true }],
])("nothing is done for a request %s", async (_is, request, given) => {
  const { wasAnswered, wishes, sent, counted, asking } = await ask({ ...plain, ...request }, given);
  expect([wasAnswered, wishes, sent, counted, asking]).toEqual([false, [], [], [], undefined]);
});
