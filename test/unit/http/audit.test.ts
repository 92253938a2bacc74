import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { fastify, type FastifyBaseLogger, type FastifyInstance, type RouteOptions } from "fastify";
import { Type } from "typebox";
import { afterEach, describe, expect, it } from "vitest";
import { BrokerError, connectionNotFound } from "../../../src/errors.ts";
import { type AppParts, buildApp } from "../../../src/http/app.ts";
import { audited, auditRoutes, noteInAudit } from "../../../src/http/audit.ts";
import { createRequireAbility } from "../../../src/http/auth.ts";
import { installErrorHandler } from "../../../src/http/error-handler.ts";
import { answerHeaders } from "../../../src/http/headers.ts";
import { createMinuteLimit } from "../../../src/http/limits.ts";
import { closed, requestBody } from "../../../src/http/schemas.ts";
import { installSchemas, refuseControlCharacters, refuseUnknownFields } from "../../../src/http/validation.ts";
import type { Principal } from "../../../src/callers/principal.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { NotedAudit } from "../../support/noted-audit.ts";

const principal: Principal = {
  callerId: "k1",
  labels: {},
  actor: { kind: "key", id: "k1", name: "orders" },
  abilities: ["connections"],
  connections: ["acme-*"],
  expiresAt: null,
};
const body = requestBody(
  "Thing",
  { description: "A thing" },
  { name: Type.String({ pattern: "^[a-z0-9-]+$" }), secret: Type.Optional(Type.String()) },
);
const authorization = "Bearer a-key";

/** Some routes of the API behind the real hooks. `handle` stands for what a handler does. */
async function serve(handle: () => Promise<void> = async () => {}) {
  const audit = new NotedAudit();
  const app = fastify();
  installSchemas(app);
  installErrorHandler(app, { asker: null, headers: answerHeaders("http://localhost:8080") });
  const keys = {
    known: () => null,
    authenticate: async (key: string) => {
      if (key === "a-key") return principal;
      throw new BrokerError("unauthenticated", "The key is unknown.");
    },
  };
  const workloads = { authenticate: async () => principal };
  const wrongKeys = createMinuteLimit(2, { monotonicMs: () => 0 });
  const requireAbility = createRequireAbility({ keys, workloads, wrongKeys, onRefused: () => audit.countRefused() });
  /** What the audit had when the handler ran. */
  const seen: string[][] = [];
  const run = async () => {
    seen.push(audit.lines());
    await handle();
  };
  await app.register(async (scope) => {
    requireAbility(scope, "connections");
    refuseUnknownFields(scope);
    refuseControlCharacters(scope);
    auditRoutes(scope, audit);
    const create = { schema: { body }, config: audited("connections.create", "connection", "name") };
    scope.post("/things", create, async (request, reply) => {
      await run();
      noteInAudit(request, { detail: { link: "l1" } });
      return await reply.code(201).send({ ok: true });
    });
    const change = { schema: { body: closed({}) }, config: audited("connections.update", "connection", "thing") };
    scope.patch("/things/:thing", change, async () => {
      await run();
      return {};
    });
    scope.get("/things", async () => ({}));
    scope.get("/looks", { config: audited("audit.read", "audit") }, async () => ({}));
  });
  await app.register(async (scope) => {
    requireAbility(scope, "admin");
    auditRoutes(scope, audit);
    scope.delete("/keys/:id", { config: audited("keys.revoke", "key", "id") }, async () => ({}));
  });
  await app.ready();
  apps.push(app);
  const ask = async (method: "GET" | "POST" | "PATCH" | "DELETE", url: string, payload?: object) =>
    await app.inject({ method, url, headers: { authorization }, ...(payload && { payload }) });
  return { app, audit, ask, seen };
}

const apps: { close(): Promise<unknown> }[] = [];

afterEach(async () => {
  await Promise.all(apps.splice(0).map(async (app) => await app.close()));
});

describe("what a request leaves in the audit", () => {
  it("who did what, to what, from where, with which fields and result; begun before the handler, ended before the answer", async () => {
    const { audit, ask, seen } = await serve();
    const answer = await ask("POST", "/things", { name: "acme-shop", secret: "s3cret-value" });
    expect(answer.statusCode).toBe(201);
    expect(seen).toEqual([["key k1 connections.create acme-shop: open"]]);
    expect(audit.entries).toEqual([
      {
        actor: { kind: "key", id: "k1", name: "orders" },
        action: "connections.create",
        target: { kind: "connection", name: "acme-shop" },
        address: "127.0.0.1",
        detail: { fields: ["name", "secret"] },
        mustNotFail: false,
        outcome: { result: "ok", detail: { link: "l1" } },
      },
    ]);
    expect(JSON.stringify(audit.entries)).not.toContain("s3cret");
  });

  it("a read leaves none, but for those that say so", async () => {
    const { audit, ask } = await serve();
    await ask("GET", "/things");
    await ask("GET", "/looks");
    expect(audit.lines()).toEqual(["key k1 audit.read -: ok"]);
  });

  it.each([
    ["conflict", 409, "acme-shop"],
    ["provider_rejected", 422, "acme-shop"],
    ["not_found", 404, "-"],
    ["invalid_request", 400, "-"],
  ] as const)("a refusal of the handler stands there by its code: %s", async (code, status, name) => {
    const { audit, ask } = await serve(async () => {
      throw new BrokerError(code, "No.");
    });
    expect((await ask("PATCH", "/things/acme-shop")).statusCode).toBe(status);
    expect(audit.lines()).toEqual([`key k1 connections.update ${name}: ${code}`]);
  });

  it("a fault of the broker stands there as internal_error", async () => {
    const { audit, ask } = await serve(async () => {
      throw new TypeError("a bug");
    });
    expect((await ask("PATCH", "/things/acme-shop")).statusCode).toBe(500);
    expect(audit.lines()).toEqual(["key k1 connections.update acme-shop: internal_error"]);
  });

  it("names that the caller may not see are left out: beyond its patterns, unknown, made up", async () => {
    const refused = await serve(async () => {
      throw connectionNotFound("x");
    });
    await refused.ask("PATCH", "/things/acme-pasted-secret");
    await refused.ask("PATCH", "/things/other-shop");
    expect(refused.audit.lines()).toEqual(Array(2).fill("key k1 connections.update -: connection_not_found"));
    expect(refused.seen[1]).toEqual([expect.anything(), "key k1 connections.update -: open"]);
  });

  it("what is refused before its handler is written as well, and nothing of it is repeated", async () => {
    const { audit, ask, seen } = await serve();
    const statuses = [
      await ask("DELETE", "/keys/frt-pasted"),
      await ask("POST", "/things", { name: "acme-x", [`pasted-${"x".repeat(20)}`]: 1 }),
      await ask("POST", "/things", { name: "Pasted Secret" }),
      await ask("POST", "/things", { name: "acme-x", secret: "x".repeat(2_000_000) }),
    ].map(({ statusCode }) => statusCode);
    expect(statuses).toEqual([403, 400, 400, 413]);
    expect(seen).toEqual([]);
    expect(audit.lines()).toEqual([
      "key k1 keys.revoke -: forbidden",
      "key k1 connections.create -: invalid_request",
      "key k1 connections.create -: invalid_request",
      "key k1 connections.create -: payload_too_large",
    ]);
    expect(JSON.stringify(audit.entries)).not.toMatch(/pasted/i);
  });

  it("without a valid key there is no entry: it is counted, also beyond the limit of wrong keys", async () => {
    const { app, audit } = await serve();
    const ask = async (headers: Record<string, string>) =>
      (await app.inject({ method: "PATCH", url: "/things/acme-x", headers })).statusCode;
    const statuses = [
      await ask({}),
      await ask({ authorization: "Bearer x" }),
      await ask({ authorization: "Bearer x" }),
    ];
    expect([statuses, audit.lines(), audit.refused]).toEqual([[401, 401, 429], [], 3]);
  });

  it("if neither disk nor database takes the entry, nothing is changed", async () => {
    const { audit, ask, seen } = await serve();
    audit.trouble = new BrokerError("storage_unavailable", "Nothing takes it.", { retryAfterSeconds: 5 });
    const answer = await ask("PATCH", "/things/acme-shop");
    expect([answer.statusCode, answer.json<{ code: string }>().code]).toEqual([503, "storage_unavailable"]);
    // What is refused anyway stays refused for its own reason.
    expect((await ask("DELETE", "/keys/x")).statusCode).toBe(403);
    expect([seen, audit.lines()]).toEqual([[], []]);
  });
});

it("a route that changes something and does not say what the audit calls it cannot be added", async () => {
  const app = fastify();
  auditRoutes(app, new NotedAudit());
  expect(() => app.put("/things", async () => ({}))).toThrow("PUT /things needs config.audit");
  expect(() => app.get("/things", async () => ({}))).not.toThrow();
  await app.close();
});

/** Routes that change something and are asked without a key: what writes their entries, or why there are none. */
const withoutKey = [
  "POST /connect/:link", // src/consent
  "POST /callback/:provider", // seals what is posted on to the next one, and changes nothing
  "POST /callback/:provider/:client",
  "POST /callback/:provider/continue", // src/consent
  "POST /callback/:provider/:client/continue",
  "POST /connected/*", // src/consent
];

it("every route of the broker that changes something has its action in the audit, one of its own", async () => {
  const routes: RouteOptions[] = [];
  const note = (message: unknown) => {
    const app = (message as { fastify: FastifyInstance }).fastify;
    app.addHook("onRoute", (route) => void routes.push({ ...route }));
    unsubscribe("fastify.initialization", note);
  };
  subscribe("fastify.initialization", note);
  const log: FastifyBaseLogger = createLogger("silent");
  const parts = {
    log,
    trustProxy: [],
    consent: {},
    metricsOnApi: true,
    sandbox: null, // stands for a provider, not for the broker
    publicUrl: "http://localhost:8080",
    organisation: { name: null, contact: null },
  };
  const app = await buildApp(parts as unknown as AppParts);
  await app.ready();
  await app.close();
  const named = routes.flatMap(({ method, url, config }) =>
    [method].flat().map((each) => ({ name: `${each} ${url}`, isRead: each === "GET" || each === "HEAD", config })),
  );
  const silent = named.filter(({ isRead, config }) => !isRead && config?.audit === undefined);
  expect(silent.map(({ name }) => name).sort()).toEqual(withoutKey.toSorted());
  // One action for each: who looks for one of them finds nothing else. The audit is verified in two ways.
  const told = named.filter(
    ({ config, name }) => config?.audit !== undefined && !/^HEAD|^POST .audit.verify$/.test(name),
  );
  const actions = told.map(({ config }) => config?.audit?.action);
  expect(actions).toEqual(expect.arrayContaining(["audit.read", "audit.export", "audit.verify", "keys.revoke"]));
  expect(new Set(actions).size).toBe(actions.length);
});
