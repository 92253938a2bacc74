import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { query } from "../support/query.ts";
import { describeWithServices, startPrivatePostgres, statementsIn } from "../support/services/index.ts";
import { AccessStage, labelsOf } from "./support/access-stage.ts";

type Document = { paths: Record<string, Record<string, { requestBody?: unknown }>> };
type Answer = { status: number; body: Record<string, unknown>; text: string };

/** Bodies with which each route would do something. */
const bodies: Record<string, unknown> = {
  "PATCH /connections/{connection}": { disabled: true },
  "POST /connections/{connection}/consent-links": {},
  "POST /connections/{connection}/code": { code: "x" },
  "POST /connections/{connection}/import": { access_token: "stolen", expires_in: 60 },
  "POST /connections/{connection}/account": { accept: true },
  "POST /connections/{connection}/refresh": {},
};

const customer = labelsOf("own");
const acme = { provider: "sandbox", client: "own", scopes: ["read"] };

// The key may do everything, for every name, with connections of one customer. It knows the names of the others.
describeWithServices(["postgres"], "an attacker with a key that is bound to labels", () => {
  let postgres: Awaited<ReturnType<typeof startPrivatePostgres>>;
  let stage: AccessStage;
  let key: string;
  const own = "acme-own";
  const foreign = ["acme-beta", "acme-none", "acme-more"];
  const unknown = "acme-nope";

  const ask = async (path: string, given: { method?: string; body?: unknown; by?: string } = {}): Promise<Answer> => {
    const { method = "GET", body, by = key } = given;
    const answer = await fetch(new URL(path, stage.api.url), {
      method,
      headers: { authorization: `Bearer ${by}`, ...(body !== undefined && { "content-type": "application/json" }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      redirect: "manual",
    });
    const text = await answer.text();
    const isJson = answer.headers.get("content-type")?.includes("json") === true && !text.includes("}\n");
    return { status: answer.status, body: isJson ? (JSON.parse(text) as Answer["body"]) : {}, text };
  };
  const make = async (name: string, labels: Record<string, string>) =>
    expect((await ask("/connections", { method: "POST", body: { name, ...acme, labels }, by: admin() })).status).toBe(
      201,
    );
  const admin = () => stage.keys.ADMIN_KEY ?? "";
  const refused = async (path: string, given: Parameters<typeof ask>[1]) => {
    const { status, body } = await ask(path, given);
    return [status, body["code"], body["detail"]];
  };
  const rows = async () =>
    await query(postgres.url, "SELECT to_jsonb(c) - 'in_use' AS row FROM connections c ORDER BY name");
  /** Code and text of a creation with a client, without the client's name. */
  const createWith = async (client: string) => {
    const body = { name: "acme-steal", provider: "sandbox", client, scopes: ["read"], labels: customer };
    const { status, text } = await ask("/connections", { method: "POST", body });
    return `${status} ${text.replaceAll(client, "CLIENT")}`;
  };
  const labelQueries = async () =>
    statementsIn(await postgres.log()).filter((text) => text.includes("SELECT 1 AS found"));
  const bindTo = async (labels: Record<string, string>): Promise<{ id: string; reader: string }> => {
    const reader = await stage.api.createKey({ name: "r", abilities: ["tokens"], connections: ["*"], labels });
    return { id: reader.split("_")[1] ?? "", reader };
  };
  const connect = async (name: string, refreshToken: string) =>
    await stage.api.importTokens(name, { access_token: "a-token", refresh_token: refreshToken, expires_in: 3600 });

  beforeAll(async () => {
    postgres = await startPrivatePostgres({ logStatements: true });
    stage = await AccessStage.start(postgres.url);
    await make(own, { ...customer, team: "orders" });
    const [beta = "", none = "", more = ""] = foreign;
    await make(beta, { customer: "beta" });
    await make(none, {});
    await make(more, { customer: "acme2", customers: "acme", Customer: "acme" });
    for (const name of [own, ...foreign]) await connect(name, `refresh-token-of-${name}`);
    key = await stage.api.createKey({
      name: "tenant",
      abilities: ["tokens", "connections", "admin"],
      connections: ["*"],
      labels: customer,
    });
  });

  afterAll(async () => {
    await stage.stop();
    await postgres[Symbol.asyncDispose]();
  });

  it("gets from every route about a connection of others, byte for byte, what it gets for one that does not exist, and changes nothing", async () => {
    const { paths } = (await ask("/openapi.json")).body as unknown as Document;
    const routes = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { requestBody }]) => ({
        route: `${method.toUpperCase()} ${path}`,
        takesBody: requestBody !== undefined,
      })),
    );
    const about = routes.filter(({ route }) => route.includes("{connection}"));
    expect(about.length).toBeGreaterThan(10);
    const before = await rows();
    const forms = ["", "?token=user", "?rejected_version=1", "?include=request", "?min_ttl=3600&wait=0"];
    for (const { route, takesBody } of about) {
      const [method = "", path = ""] = route.split(" ");
      expect(takesBody, `name a body for ${route}`).toBe(Object.hasOwn(bodies, route));
      for (const form of path.startsWith("/tokens/") ? forms : [""]) {
        const get = async (name: string) => {
          const at = path.replace("{connection}", name) + form;
          const { status, text } = await ask(at, { method, body: bodies[route] });
          return `${status} ${text.replaceAll(name, "NAME")}`;
        };
        const missing = await get(unknown);
        expect(missing, route).toContain("404");
        expect(missing, route).toContain("connection_not_found");
        for (const name of foreign) expect(await get(name), `${route}${form} ${name}`).toBe(missing);
      }
    }
    expect(await rows()).toEqual(before);
    expect((await ask(`/tokens/${own}`)).body["access_token"]).toBe("a-token");
  });

  it("finds nothing of others in any list, whatever it looks for", async () => {
    const filters = [
      "label=customer:beta",
      "client=own",
      "provider=sandbox",
      "q=acme",
      "status=connected",
      "limit=200",
    ];
    for (const filter of filters) {
      const { text } = await ask(`/connections?${filter}`);
      for (const name of foreign) expect(text, filter).not.toContain(name);
    }
    const names: unknown[] = [];
    let cursor: string | null = null;
    do {
      const { body }: Answer = await ask(`/connections?limit=1${cursor === null ? "" : `&cursor=${cursor}`}`);
      names.push(...(body["items"] as { name: string }[]).map(({ name }) => name));
      cursor = body["next_cursor"] as string | null;
    } while (cursor !== null);
    expect(names).toEqual([own]);
  });

  it("reads in the audit what was done to its connections since they were made, and nothing of others or of their names before", async () => {
    const name = "acme-again";
    await make(name, { customer: "beta" });
    await stage.api.changeConnection(name, { disabled: true });
    expect((await ask(`/connections/${name}?revoke=false`, { method: "DELETE", by: admin() })).status).toBe(204);
    await make(name, customer);
    await stage.api.changeConnection(name, { disabled: true });
    const seen = async (filter: string) => {
      const { body } = await ask(`/audit?limit=200&${filter}`);
      return (body["items"] as { action: string; target: { name: string } }[]).map(
        ({ action, target }) => `${action} ${target.name}`,
      );
    };
    await expect.poll(async () => await seen(`connection=${name}`)).toEqual([`connections.update ${name}`]);
    expect(new Set((await seen("")).map((line) => line.split(" ")[1]))).toEqual(new Set([own, name]));
    for (const other of foreign) expect(await seen(`connection=${other}`)).toEqual([]);
    expect(await seen("type=keys.create")).toEqual([]);
    const lines = (await ask("/audit/export")).text.trim().split("\n");
    const targets = lines.map((line) => (JSON.parse(line) as { target: { name: string } }).target.name);
    expect(new Set(targets)).toEqual(new Set([own, name]));
    expect((await ask(`/connections/${name}`, { method: "DELETE", by: admin() })).status).toBe(204);
  });

  it("makes no connection that lacks its labels, and takes its labels off none of its own", async () => {
    const says = expect.stringMatching(/^labels: this key is bound to \{"customer":"acme"\}/);
    for (const labels of [undefined, {}, { customer: "beta" }, { Customer: "acme" }]) {
      const body = { name: "acme-new", ...acme, ...(labels && { labels }) };
      expect(await refused("/connections", { method: "POST", body })).toEqual([403, "forbidden", says]);
    }
    for (const labels of [{}, { customer: "beta" }, { team: "orders" }]) {
      const change = { method: "PATCH", body: { labels } };
      expect(await refused(`/connections/${own}`, change)).toEqual([403, "forbidden", says]);
    }
    const kept = { method: "PATCH", body: { labels: { ...customer, team: "finance" } } };
    expect((await ask(`/connections/${own}`, kept)).body["labels"]).toEqual({ customer: "acme", team: "finance" });
    const made = { method: "POST", body: { name: "acme-made", ...acme, labels: { ...customer, x: "y" } } };
    expect((await ask("/connections", made)).status).toBe(201);
    expect((await ask("/connections/acme-made/consent-links", { method: "POST", body: {} })).status).toBe(201);
  });

  it("gives no key that is bound to less, and neither sees nor ends other keys", async () => {
    const gift = { name: "gift", abilities: ["tokens"], connections: ["acme-*"] };
    for (const labels of [undefined, {}, { customer: "beta" }, { team: "acme" }]) {
      const body = { ...gift, ...(labels && { labels }) };
      const says = expect.stringMatching(/^labels: /);
      expect(await refused("/keys", { method: "POST", body })).toEqual([403, "forbidden", says]);
    }
    const narrower = { ...customer, team: "x" };
    const { status, body: given } = await ask("/keys", { method: "POST", body: { ...gift, labels: narrower } });
    expect([status, given["labels"]]).toEqual([201, narrower]);
    expect((await ask(`/tokens/${own}`, { by: String(given["key"]) })).status).toBe(404);
    const { body } = await ask("/keys?limit=200");
    const listed = body["items"] as { id: string; labels: Record<string, string> }[];
    expect(listed.length).toBeGreaterThan(1);
    expect(listed.every(({ labels }) => labels["customer"] === "acme")).toBe(true);
    const free = await stage.api.createKey({ name: "free", abilities: ["tokens"], connections: [own] });
    for (const id of [free.split("_")[1], await stage.key("another")]) {
      expect((await ask(`/keys/${id}`, { method: "DELETE" })).status).toBe(404);
    }
    expect((await ask(`/keys/${String(given["id"])}`, { method: "DELETE" })).status).toBe(204);
  });

  it("changes no client, and gets nothing that is about everybody; a client that is not open to it is none", async () => {
    const secret = { client_secret: "stolen" };
    const tries: [string, string, unknown?][] = [
      ["POST", "/clients", { name: "tenant-app", provider: "sandbox", client_id: "x", connections: ["acme-*"] }],
      ["PATCH", "/clients/own", secret],
      ["DELETE", "/clients/own"],
      ["GET", "/encryption"],
      ["GET", "/encryption/rotation"],
      ["POST", "/encryption/rotate", {}],
      ["GET", "/audit/verify"],
      ["GET", "/recovery"],
      ["POST", "/recovery", { all: true }],
    ];
    for (const [method, path, body] of tries) {
      const [status, code] = await refused(path, { method, ...(body !== undefined && { body }) });
      expect([status, code], `${method} ${path}`).toEqual([403, "forbidden"]);
    }
    expect(await createWith("foreign")).toBe(await createWith("no-such-client"));
  });

  it("is not told which connection has a refresh token that it hands in", async () => {
    const [beta = ""] = foreign;
    const hand = async (by: string) => {
      const body = { access_token: "x", refresh_token: `refresh-token-of-${beta}`, expires_in: 60 };
      return await ask(`/connections/${own}/import`, { method: "POST", body, by });
    };
    const told = await hand(admin());
    expect([told.status, told.body["detail"]]).toEqual([409, expect.stringContaining(beta)]);
    const { status, text } = await hand(key);
    expect(status).toBe(409);
    expect(text).toContain("duplicate_grant");
    expect(text).not.toContain(beta);
    await query(
      postgres.url,
      `INSERT INTO connection_events (connection_id, type, detail)
        SELECT id, 'other_sets_dropped', $1::jsonb FROM connections WHERE name = $2`,
      [JSON.stringify({ connections: [beta, own], kept: 1 }), own],
    );
    expect((await ask(`/connections/${own}/events`, { by: admin() })).text).toContain(beta);
    const history = (await ask(`/connections/${own}/events`)).text;
    expect(history).not.toContain("other_sets_dropped");
    for (const name of foreign) expect(history).not.toContain(name);
  });

  describe("a label that somebody is bound to", () => {
    it("is changed by an admin without labels alone, for every name that the key covers, and by all once nobody is bound to it", async () => {
      const { id, reader } = await bindTo({ region: "eu" });
      const name = "acme-moved";
      await make(name, { customer: "acme", region: "eu", note: "a" });
      await connect(name, "refresh-token-of-moved");
      const by = stage.keys.connections ?? "";
      const to = async (labels: Record<string, string>, who: string) =>
        (await refused(`/connections/${name}`, { method: "PATCH", body: { labels }, by: who })).slice(0, 2);
      const no = [403, "forbidden"];
      expect((await ask(`/tokens/${name}`, { by: reader })).status).toBe(200);
      for (const region of [{}, { region: "us" }]) {
        expect(await to({ customer: "acme", note: "a", ...region }, by)).toEqual(no);
        expect(await to({ customer: "acme", note: "a", ...region }, key)).toEqual(no);
      }
      expect(await to({ customer: "acme", region: "eu", note: "b" }, by)).toEqual([200, undefined]);
      expect(await to({ customer: "acme", region: "us" }, stage.keys["connections and admin"] ?? "")).toEqual([
        200,
        undefined,
      ]);
      // From the next read on, although the connection is in memory.
      expect((await ask(`/tokens/${name}`, { by: reader })).status).toBe(404);
      expect(await to({ customer: "acme", region: "eu" }, by)).toEqual(no);
      expect(await to({ customer: "acme", region: "eu" }, admin())).toEqual([200, undefined]);
      expect((await ask(`/tokens/${name}`, { by: reader })).status).toBe(200);
      expect((await ask(`/keys/${id}`, { method: "DELETE", by: admin() })).status).toBe(204);
      expect(await to({ customer: "acme", region: "us" }, by)).toEqual([200, undefined]);
    });

    it("counts also where only a workload of WORKLOADS_FILE is bound to it", async () => {
      const name = "acme-tier";
      await make(name, { customer: "acme", tier: "silver" });
      const to = async (tier: string, by: string) =>
        await refused(`/connections/${name}`, { method: "PATCH", body: { labels: { ...customer, tier } }, by });
      const says = expect.stringContaining('"tier"');
      expect(await to("gold", stage.keys.connections ?? "")).toEqual([403, "forbidden", says]);
      expect((await to("gold", admin()))[0]).toBe(200);
    });

    it("can be set at creation by a caller without labels: nothing is in the connection yet", async () => {
      const body = { name: "acme-2-set", ...acme, labels: { customer: "beta" } };
      expect((await ask("/connections", { method: "POST", body, by: stage.keys.connections ?? "" })).status).toBe(201);
    });
  });

  it("pays for each refusal with one query that finds nothing, whether the connection is there or not, in memory or not", async () => {
    const reader = await stage.api.createKey({
      name: "r",
      abilities: ["tokens"],
      connections: ["acme-*"],
      labels: customer,
    });
    const free = await stage.api.createKey({ name: "f", abilities: ["tokens"], connections: ["acme-*"] });
    const [cached = "", uncached = "acme-cold"] = [foreign[0]];
    await make(uncached, { customer: "beta" });
    await make("other-cold", customer);
    const verified = async () => {
      for (const by of [reader, free, key]) expect((await ask("/tokens/acme-own", { by })).status).toBe(200);
      expect((await ask(`/tokens/${cached}`, { by: free })).status).toBe(200);
    };
    /** The statements of a request, but those of the key, and of what goes on by itself. */
    const statementsOf = async (path: string, by: string) => {
      await verified();
      const before = statementsIn(await postgres.log()).length;
      expect((await ask(path, { by })).status).toBe(404);
      const all = statementsIn(await postgres.log()).slice(before);
      return all.filter((text) => /^SELECT[\s\S]* FROM connections c [\s\S]*WHERE c\.name = /.test(text));
    };
    // What the caller may have costs that query, too, when it is asked for with these labels for the first time.
    const first = await stage.api.createKey({
      name: "1",
      abilities: ["tokens"],
      connections: ["*"],
      labels: { team: "finance" },
    });
    expect((await ask(`/tokens/${unknown}`, { by: first })).status).toBe(404); // from here on the key is known
    for (const costs of [1, 0]) {
      const before = (await labelQueries()).length;
      expect((await ask(`/tokens/${own}`, { by: first })).status).toBe(200);
      expect((await labelQueries()).length - before).toBe(costs);
    }
    for (const { by, paths } of [
      { by: reader, paths: [unknown, cached, uncached, "other-x", "other-cold"].map((name) => `/tokens/${name}`) },
      { by: free, paths: [unknown, "other-x", "other-cold"].map((name) => `/tokens/${name}`) },
      { by: key, paths: [unknown, cached, uncached].map((name) => `/connections/${name}`) },
    ]) {
      const found: string[][] = [];
      for (const path of paths) found.push(await statementsOf(path, by));
      expect(found[0]).toHaveLength(1);
      for (const [index, statements] of found.entries()) expect(statements, paths[index]).toEqual(found[0]);
    }
  });
});
