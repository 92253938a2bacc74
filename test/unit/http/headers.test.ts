import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { text } from "node:stream/consumers";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AppParts, buildApp } from "../../../src/http/app.ts";
import { createConsentLimits, createMinuteLimit } from "../../../src/http/limits.ts";
import { startMetricsServer } from "../../../src/http/routes/health.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { faultsOfHeaders } from "../../support/answer-headers.ts";
import { freePort } from "../../support/free-port.ts";

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const still = { monotonicMs: () => 0 };
const perMinute = { linkPagesPerMinute: 20, linkPostsPerMinute: 20, callbacksPerMinute: 20 };

/** The app on a port of its own, and each of its routes. The parts behind it are missing: what reaches one fails there. */
async function serve(publicUrl: string) {
  const routes: { method: string; url: string }[] = [];
  const note = (message: unknown) => {
    const { fastify } = message as { fastify: FastifyInstance };
    fastify.addHook("onRoute", ({ method, url }) => {
      for (const each of [method].flat()) routes.push({ method: each, url });
    });
    unsubscribe("fastify.initialization", note);
  };
  subscribe("fastify.initialization", note);
  const log: FastifyBaseLogger = createLogger("silent");
  const sandbox = { clientId: "sandbox", redirectUri: `${publicUrl}/callback/sandbox`, now: () => 0 };
  const parts = {
    log,
    trustProxy: [],
    consent: {},
    metricsOnApi: true,
    metricsKey: null,
    render: async () => "figures 1\n",
    check: async () => ({ database: "ok", redis: "ok" }),
    isReady: () => true,
    limits: createConsentLimits(perMinute, still),
    randomBytes: (size: number) => new Uint8Array(size),
    sandbox,
    publicUrl,
    organisation: { name: null, contact: null },
    audit: { countRefused() {} },
    keys: { known: () => null },
    wrongKeys: createMinuteLimit(60, still),
  };
  const app = await buildApp(parts as unknown as AppParts);
  await app.listen({ host: "127.0.0.1", port: 0 });
  return { app, routes, port: (app.server.address() as AddressInfo).port };
}

type Answer = { status: number; headers: Record<string, string>; type: string };

async function ask(url: string, init: RequestInit = {}): Promise<Answer> {
  const answer = await fetch(url, { redirect: "manual", ...init });
  await answer.text();
  const headers = Object.fromEntries(answer.headers);
  return { status: answer.status, headers, type: headers["content-type"] ?? "" };
}

/** The answer to bytes that need not be HTTP. */
async function write(port: number, bytes: string): Promise<Answer> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.end(bytes);
  const [head = ""] = (await text(socket)).split("\r\n\r\n");
  const [start = "", ...lines] = head.split("\r\n");
  const headers = Object.fromEntries(
    lines.map((line) => [line.split(":", 1)[0]?.toLowerCase() ?? "", line.replace(/^[^:]*: */, "")]),
  );
  return { status: Number(start.split(" ")[1]), headers, type: headers["content-type"] ?? "" };
}

/** What is refused before a route is looked for, as a browser and as a program would send it. */
const malformed = ["*/*", browser].flatMap((accept) => [
  `TAKE / HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\n\r\n`,
  `GET / HTTP/9.9\r\nhost: x\r\naccept: ${accept}\r\n\r\n`,
  `GET /${"x".repeat(20_000)} HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\n\r\n`,
  `POST /connections HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\ncontent-length: -1\r\n\r\n`,
  `GET /%zz HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\nconnection: close\r\n\r\n`,
  `GET /tokens/${"x".repeat(600)} HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\nconnection: close\r\n\r\n`,
]);

describe.each(["https://broker.example", "http://localhost:8080"])("every answer of a broker at %s", (publicUrl) => {
  let served: Awaited<ReturnType<typeof serve>>;
  let base: string;
  const expectRight = (what: string, { headers }: Answer) => {
    expect([what, faultsOfHeaders(headers, { publicUrl })]).toEqual([what, []]);
  };

  beforeAll(async () => {
    served = await serve(publicUrl);
    base = `http://127.0.0.1:${served.port}`;
  });

  afterAll(async () => {
    await served.app.close();
  });

  test("of each of its routes, to browsers and programs, whether the request is good, refused, too frequent or fails inside", async () => {
    const statuses = new Set<number>();
    const forms = { "content-type": "application/x-www-form-urlencoded", origin: publicUrl };
    const kinds: RequestInit[] = [
      { headers: { accept: "*/*", ...forms } },
      { headers: { accept: browser, ...forms } },
      { headers: { accept: "*/*", authorization: "Bearer of-nobody", "content-type": "application/json" } },
      { headers: { accept: browser, origin: "null", "content-type": "text/odd" } },
    ];
    expect(served.routes.length).toBeGreaterThan(60);
    for (const { method, url } of served.routes) {
      const path = url.replaceAll(/:\w+/g, "x").replace("*", "static/index.html");
      for (const kind of kinds) {
        const body = /^(POST|PATCH|PUT)$/.test(method) ? "x=y" : null;
        const answer = await ask(base + path, { method, body, ...kind });
        statuses.add(answer.status);
        expectRight(`${method} ${path}`, answer);
      }
    }
    for (let count = 0; count < 61; count++) {
      const answer = await ask(`${base}/clients`);
      statuses.add(answer.status);
      expectRight("GET /clients", answer);
    }
    expect([...statuses]).toEqual(expect.arrayContaining([200, 303, 400, 401, 403, 415, 429, 500]));
  });

  test("of what is no route, a method that is none of a route, a body that is too large, and what is no HTTP", async () => {
    const statuses: number[] = [];
    for (const accept of ["*/*", browser]) {
      const tries: [string, RequestInit][] = [
        ["/xyz", {}],
        ["/xyz", { method: "OPTIONS" }],
        ["/livez", { method: "DELETE" }],
        ["/docs/xyz", {}],
        ["/connect", { method: "POST", body: "x" }],
        ["/sandbox/xyz", {}],
        [
          "/sandbox/token",
          {
            method: "POST",
            body: "x".repeat(40_000),
            headers: { accept, "content-type": "application/x-www-form-urlencoded" },
          },
        ],
      ];
      for (const [path, init] of tries) {
        const answer = await ask(base + path, { headers: { accept }, ...init });
        statuses.push(answer.status);
        expectRight(`${init.method ?? "GET"} ${path}`, answer);
      }
    }
    for (const bytes of malformed) {
      const answer = await write(served.port, bytes);
      statuses.push(answer.status);
      expect(answer.type).toMatch(/html|json/);
      expectRight(bytes.slice(0, 30), answer);
    }
    expect([...new Set(statuses)].toSorted((one, other) => one - other)).toEqual([400, 404, 405, 413]);
  });

  test("of the port for metrics", async () => {
    const port = await freePort();
    const options = { render: async () => "figures 1\n", metricsKey: "right", wrongKeys: createMinuteLimit(3, still) };
    const close = await startMetricsServer({ host: "127.0.0.1", metricsPort: port, publicUrl }, options);
    const url = `http://127.0.0.1:${port}/metrics`;
    const right = { headers: { authorization: "Bearer right" } };
    const answers = [await ask(url, right), await ask(`${url}/x`), await ask(url, { method: "POST" })];
    for (let count = 0; count < 4; count++) answers.push(await ask(url));
    answers.push(await write(port, malformed[0] ?? ""));
    await close();
    expect(answers.map(({ status }) => status)).toEqual([200, 404, 405, 401, 401, 401, 429, 400]);
    for (const answer of answers) expectRight("metrics", answer);
  });
});
