import type { FastifyInstance } from "fastify";
import { randomBytes } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";
import { request } from "undici";
import { createBroker, type Broker } from "../../../src/broker.ts";
import { readConfig } from "../../../src/config.ts";
import { faultsOfHeaders } from "../../support/answer-headers.ts";
import { BrokerApi } from "../../support/broker-api.ts";
import { freePort } from "../../support/free-port.ts";
import { TokenIssuer } from "../../support/issuer.ts";
import { useRole } from "../../support/services/index.ts";
import { query } from "../../support/query.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";

/** The kinds of key, in the order of the columns of docs/access.md. */
export const kindsOfKey = [
  "none",
  "tokens",
  "connections",
  "admin",
  "connections and admin",
  "bound",
  "ADMIN_KEY",
] as const;
/** Keys that are bound to labels and have one ability: their column follows from two others. */
export const boundKinds = ["bound tokens", "bound connections", "bound admin"] as const;
export type KindOfKey = (typeof kindsOfKey)[number] | (typeof boundKinds)[number];

/** What keys may do; a workload of WORKLOADS_FILE may do the same. */
const rights = {
  tokens: { abilities: ["tokens"], isBound: false },
  connections: { abilities: ["connections"], isBound: false },
  admin: { abilities: ["admin"], isBound: false },
  "connections and admin": { abilities: ["connections", "admin"], isBound: false },
  bound: { abilities: ["tokens", "connections", "admin"], isBound: true },
  "bound tokens": { abilities: ["tokens"], isBound: true },
  "bound connections": { abilities: ["connections"], isBound: true },
  "bound admin": { abilities: ["admin"], isBound: true },
};
const workloadKinds = Object.keys(rights) as (keyof typeof rights)[];
const longSeconds = 80_000;

/** A request, a text being a form, and where it asks for a list, the name or id that is looked for in it. */
export type Asked = { method: string; path: string; body?: unknown; shows?: string };

/**
 * Whether the caller's patterns cover a thing; `closed`: its own connection, on a client that is for others; `another`: covered by its patterns, with
 * the label of another customer.
 */
export type Whose = "own" | "closed" | "another" | "foreign";

/** Of clients and keys. */
const patternsOf = { own: ["acme-x-*"], another: ["acme-x-*"], foreign: ["other-*"], nobody: [] };

/** Of connections and keys. A foreign thing has the caller's label, so that its name alone keeps the caller away. */
export const labelsOf = (whose: Whose | "nobody") => ({ customer: whose === "another" ? "beta" : "acme" });

/** As browsers reach it in production; the tests come by HTTP, as a load balancer does. */
const publicUrl = "https://broker.example";

/** The name of the client that a connection uses. */
export const clientOf = (whose: Whose) => (whose === "own" || whose === "another" ? "own" : "foreign");

/** A broker in this process, on real Postgres: its routes are known, and every request goes over HTTP. */
export class AccessStage {
  readonly api: BrokerApi;
  readonly routes: string[];
  readonly #broker: Broker;
  readonly #databaseUrl: string;
  readonly #keys: Partial<Record<KindOfKey, string>>;
  readonly #issuer: TokenIssuer;
  /** The token of a workload of each kind that has a column. */
  readonly workloads: ReadonlyMap<KindOfKey, string>;
  #count = 0;

  private constructor(
    parts: Pick<AccessStage, "api" | "keys" | "routes" | "workloads"> & {
      broker: Broker;
      databaseUrl: string;
      issuer: TokenIssuer;
    },
  ) {
    this.#issuer = parts.issuer;
    this.workloads = parts.workloads;
    this.#broker = parts.broker;
    this.api = parts.api;
    this.#databaseUrl = parts.databaseUrl;
    this.#keys = parts.keys;
    this.routes = parts.routes;
  }

  get keys(): Partial<Record<KindOfKey, string>> {
    return this.#keys;
  }

  static async start(databaseUrl: string): Promise<AccessStage> {
    const port = await freePort();
    const adminKey = randomBytes(32).toString("base64url");
    const issuer = await TokenIssuer.create();
    const config = readConfig({
      PORT: String(port),
      PUBLIC_URL: publicUrl,
      DATABASE_URL: await useRole(databaseUrl),
      DATABASE_MIGRATION_URL: databaseUrl,
      DATA_DIR: (await temporaryFolder("data")).path,
      ENCRYPTION_KEYS: `k1:${randomBytes(32).toString("base64")}`,
      ADMIN_KEY: adminKey,
      SANDBOX: "true",
      TRUST_PROXY: "127.0.0.0/8",
      WORKLOADS_FILE: await fileOf(issuer),
    });
    const routes = noteRoutes();
    const broker = await createBroker(config, pino({ level: "silent" }));
    await broker.app.listen({ host: "127.0.0.1", port });
    broker.lifecycle.ready = true;
    const api = new BrokerApi(`http://127.0.0.1:${port}`, adminKey);
    for (const [name, pattern] of [
      ["own", "acme-*"],
      ["foreign", "other-*"],
    ] as const) {
      await api.createClient({ name, provider: "sandbox", client_id: "x", client_secret: "x", connections: [pattern] });
    }
    const keys: Partial<Record<KindOfKey, string>> = { ADMIN_KEY: adminKey };
    const workloads = new Map<KindOfKey, string>();
    for (const kind of workloadKinds) {
      keys[kind] = await api.createKey({ name: kind, ...boundsOf(kind) });
      if (!isColumn(kind)) continue;
      const exp = Number(issuer.claims()["iat"]) + longSeconds;
      workloads.set(kind, await issuer.sign({ claims: { sub: kind, exp } }));
    }
    return new AccessStage({ broker, api, databaseUrl, keys, workloads, issuer, routes });
  }

  /** Before the tokens of the workloads end: what they give ends by then. */
  get soon(): string {
    return new Date((Number(this.#issuer.claims()["iat"]) + longSeconds / 2) * 1000).toISOString();
  }

  /** What a workload is declared by, its tokens apart from those of all others. */
  declaration(name: string): Record<string, unknown> {
    return { name, ...declared(this.#issuer), match: { sub: name } };
  }

  /** The name of a workload. */
  async workload(whose: "own" | "another" | "foreign" | "nobody"): Promise<string> {
    const name = `workload-${this.next("own")}`;
    const bounds = { abilities: ["tokens"], connections: patternsOf[whose], labels: labelsOf(whose) };
    const body = { ...this.declaration(name), ...bounds };
    const { status } = await this.api.api("/workloads", { method: "POST", body });
    if (status !== 201) throw new Error(`the workload was answered with ${status}`);
    return name;
  }

  /** Never the same twice. */
  next(whose: Whose): string {
    return `${whose === "foreign" ? "other" : "acme"}-${++this.#count}`;
  }

  /** A connection that nobody has connected. */
  async connection(whose: Whose): Promise<string> {
    const name = this.next(whose);
    const client = clientOf(whose);
    await this.api.createConnection({ name, provider: "sandbox", client, scopes: ["read"], labels: labelsOf(whose) });
    return name;
  }

  /** A connection with a token. */
  async connected(whose: Whose): Promise<string> {
    const name = await this.connection(whose);
    await this.api.importTokens(name, { access_token: "a-token", expires_in: 3600 });
    return name;
  }

  /** A suspended connection: its row is older than its mark. */
  async held(whose: Whose): Promise<string> {
    const name = await this.connected(whose);
    await query(this.#databaseUrl, "UPDATE connections SET gone_back_from = generation + 1 WHERE name = $1", [name]);
    return name;
  }

  /** A client that nobody uses. */
  async client(whose: "own" | "foreign" | "nobody"): Promise<string> {
    const name = `app-${this.next("own")}`;
    const connections = patternsOf[whose];
    await this.api.createClient({ name, provider: "sandbox", client_id: "x", client_secret: "x", connections });
    return name;
  }

  /** The id of a key. */
  async key(whose: "own" | "another" | "foreign" | "nobody"): Promise<string> {
    const bounds = { connections: patternsOf[whose], labels: labelsOf(whose) };
    const key = await this.api.createKey({ name: this.next("own"), abilities: ["tokens"], ...bounds });
    return key.split("_")[1] ?? "";
  }

  /** What came of it, as a cell of the table says it. */
  async ask({ method, path, body, shows }: Asked, key: string | undefined): Promise<string> {
    const headers: Record<string, string> = {
      // Each request has an address of its own, since one address may not try so often without a key.
      "x-forwarded-for": `192.0.${Math.floor(++this.#count / 250)}.${1 + (this.#count % 250)}`,
      ...(key !== undefined && { authorization: `Bearer ${key}` }),
      ...(body !== undefined && {
        "content-type": typeof body === "string" ? "application/x-www-form-urlencoded" : "application/json",
      }),
    };
    const answer = await request(new URL(path, this.api.url), {
      method: method as "GET",
      headers,
      body: body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await answer.body.text();
    const faults = faultsOfHeaders(answer.headers, { publicUrl });
    if (faults.length > 0) return faults.join("; ");
    if (shows !== undefined && answer.statusCode === 200) {
      return text.includes(`"${shows}"`) ? "listed" : "not listed";
    }
    const isProblem = String(answer.headers["content-type"]).startsWith("application/problem+json");
    const { code } = isProblem ? (JSON.parse(text) as { code: string }) : { code: "" };
    return `${answer.statusCode} ${code}`.trim();
  }

  async stop(): Promise<void> {
    await this.api.close();
    await this.#broker.app.close();
    await this.#broker.core.idle();
    await this.#broker.close();
  }
}

const isColumn = (kind: KindOfKey): boolean => kindsOfKey.some((column) => column === kind);

function declared(issuer: TokenIssuer) {
  return { issuer: issuer.url, audience: issuer.audience, jwks: issuer.jwks() };
}

function boundsOf(kind: (typeof workloadKinds)[number]) {
  const { abilities, isBound } = rights[kind];
  return { abilities, connections: ["acme-*"], labels: isBound ? labelsOf("own") : {} };
}

/** A WORKLOADS_FILE: a workload of each kind, and one that alone is bound to the label `tier`. */
async function fileOf(issuer: TokenIssuer): Promise<string> {
  const workloads: unknown[] = workloadKinds.map((kind) =>
    Object.assign(boundsOf(kind), { name: kind.replaceAll(" ", "-"), match: { sub: kind } }, declared(issuer)),
  );
  const gold = { name: "gold", abilities: ["tokens"], connections: ["*"], labels: { tier: "gold" } };
  workloads.push({ ...gold, match: { sub: "gold" }, ...declared(issuer) });
  const path = join((await temporaryFolder("workloads")).path, "workloads.json");
  await writeFile(path, JSON.stringify({ workloads }));
  return path;
}

/** `GET /path` of every route that the app of a broker registers from here on; HEAD goes with GET. */
function noteRoutes(): string[] {
  const routes: string[] = [];
  const note = (message: unknown) => {
    const { fastify } = message as { fastify: FastifyInstance };
    fastify.addHook("onRoute", ({ method, url }) => {
      for (const one of [method].flat()) if (one !== "HEAD") routes.push(`${one} ${url}`);
    });
    unsubscribe("fastify.initialization", note);
  };
  subscribe("fastify.initialization", note);
  return routes;
}
