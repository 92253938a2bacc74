import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { AuditRow } from "../../src/audit/entries.ts";
import { ConnectedStage } from "../support/connected-stage.ts";
import { findCanaries } from "../support/canaries.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices } from "../support/services/index.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { walkConsent } from "../support/walk-consent.ts";
import { run } from "../unit/cli/run.ts";

type Entry = Omit<AuditRow, "at"> & { at: string };

let stage: ConnectedStage;
/** Keys as they were shown, and the ids by which the audit names them. */
const keys = { provisioning: "", reading: "" };
const ids = { provisioning: "", reading: "", link: "" };

const idOf = (key: string) => key.split("_")[1] ?? "";
/** What a request with this key, such as `POST /connections`, is answered with. */
const as = async (key: string, route: string, body?: unknown) => {
  const [method = "", path = ""] = route.split(" ");
  const asked = { method: method as "POST", key, ...(body !== undefined && { body }) };
  return (await stage.first.api.api(path, asked)).status;
};
const audit = async (filters: Record<string, string> = {}, key = stage.first.adminKey) =>
  (
    await stage.first.api.api<{ items: Entry[]; next_cursor: string | null }>(
      `/audit?${new URLSearchParams({ limit: "200", ...filters }).toString()}`,
      { key },
    )
  ).body;

const only = async (filters: Record<string, string>) => (await audit(filters)).items;

/** Oldest first, as a line each: who, what, to what, with which result. */
function told(items: readonly Entry[]): string[] {
  const names = new Map([
    [ids.provisioning, "provisioning"],
    [ids.reading, "reading"],
    [ids.link, "link"],
  ]);
  return items
    .toReversed()
    .map(
      ({ actor, action, target, result }) =>
        `${actor.kind} ${names.get(actor.id ?? "") ?? actor.id}: ${action} ${target?.kind} ${names.get(target?.name ?? "") ?? target?.name}: ${result}`,
    );
}

/** Waits until the broker has written what this test has done so far. */
const written = async (action: string, count: number) =>
  await until(`${count} entries of ${action} are in the database`, async () => {
    const [row] = await query<{ count: number }>(
      stage.databaseUrl,
      "SELECT count(*)::int AS count FROM audit.entries WHERE action = $1",
      [action],
    );
    return (row?.count ?? 0) >= count;
  });

/** Everything that the API can change, by two keys and a person at a link. */
async function walk(): Promise<void> {
  const { api, adminKey } = stage.first;
  const pattern = { connections: ["acme-*"] };
  keys.provisioning = await api.createKey({ name: "provisioning", abilities: ["connections"], ...pattern });
  keys.reading = await api.createKey({ name: "reading", abilities: ["tokens"], ...pattern });
  ids.provisioning = idOf(keys.provisioning);
  ids.reading = idOf(keys.reading);
  await as(adminKey, "PATCH /clients/app", { connections: ["acme-*"], scopes: ["read"] });
  const { provisioning, reading } = keys;
  const own = { name: "acme-shop", provider: stage.provider.id, client: "app", scopes: ["read"] };
  expect(await as(provisioning, "POST /connections", own)).toBe(201);
  expect(await as(provisioning, "POST /connections", own)).toBe(409);
  expect(await as(provisioning, "POST /connections", { ...own, name: "other-shop" })).toBe(403);
  expect(await as(provisioning, "PATCH /connections/other-shop", { labels: {} })).toBe(404);
  expect(await as(provisioning, "PATCH /connections/acme-shop", { labels: { team: "orders" } })).toBe(200);
  expect(await as(reading, "DELETE /connections/acme-shop")).toBe(403);
  const link = await stage.first.api.api<{ id: string; url: string }>("/connections/acme-shop/consent-links", {
    method: "POST",
    key: provisioning,
    body: {},
  });
  ids.link = link.body.id;
  await walkConsent(link.body.url, { decision: "deny" });
}

describeWithServices(["postgres"], "the audit over HTTP", () => {
  beforeAll(async () => {
    stage = await ConnectedStage.start({ redisUrl: null });
  });
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("says who did what, to what and with which result, in order, for two keys and a person at a link", async () => {
    await walk();
    const { provisioning, reading } = keys;
    expect(await as(provisioning, "POST /connections/acme-shop/refresh")).toBe(409);
    expect(await as(provisioning, "POST /connections/acme-shop/code", { code: "a-copied-code" })).toBe(409);
    expect(await as(provisioning, "POST /connections/acme-shop/device")).toBe(409);
    expect(await as(provisioning, "POST /connections/acme-shop/account", { accept: true })).toBe(404);
    const set = { access_token: "an-imported-token", expires_in: 3600 };
    expect(await as(provisioning, "POST /connections/acme-shop/import", set)).toBe(200);
    const second = await stage.first.api.api<{ id: string; url: string }>("/connections/acme-shop/consent-links", {
      method: "POST",
      key: provisioning,
      body: {},
    });
    await walkConsent(second.body.url);
    expect((await stage.first.api.token("acme-shop", { key: reading })).status).toBe(200);
    expect(await as(provisioning, "DELETE /connections/acme-shop")).toBe(204);
    const { adminKey } = stage.first;
    expect(await as(adminKey, `DELETE /keys/${ids.reading}`)).toBe(204);
    expect(await as(adminKey, "DELETE /clients/app")).toBe(204);
    expect(await as(adminKey, "POST /recovery", { all: true })).toBe(200);
    await written("recovery.confirm", 1);
    const { items } = await audit();
    const lines = told(items).map((line) => line.replaceAll(second.body.id, "second link"));
    expect(lines.slice(lines.findIndex((line) => line.includes("keys.create")))).toEqual([
      "key admin: keys.create key provisioning: ok",
      "key admin: keys.create key reading: ok",
      "key admin: clients.update client app: ok",
      "key provisioning: connections.create connection acme-shop: ok",
      "key provisioning: connections.create connection acme-shop: conflict",
      "key provisioning: connections.create connection null: forbidden",
      "key provisioning: connections.update connection null: connection_not_found",
      "key provisioning: connections.update connection acme-shop: ok",
      "key reading: connections.delete connection null: forbidden",
      "key provisioning: links.create connection acme-shop: ok",
      "link link: consents.begin connection acme-shop: ok",
      "link link: consents.complete connection acme-shop: denied",
      "key provisioning: connections.refresh connection acme-shop: authorization_pending",
      "key provisioning: connections.code connection acme-shop: grant_not_applicable",
      "key provisioning: connections.device connection acme-shop: grant_not_applicable",
      "key provisioning: connections.account connection null: not_found",
      "key provisioning: connections.import connection acme-shop: ok",
      "key provisioning: links.create connection acme-shop: ok",
      "link second link: consents.begin connection acme-shop: ok",
      "link second link: consents.complete connection acme-shop: ok",
      "key provisioning: connections.delete connection acme-shop: ok",
      "key admin: keys.revoke key reading: ok",
      "key admin: clients.delete client app: ok",
      "key admin: recovery.confirm connection null: ok",
    ]);
    expect(new Set(items.filter(({ actor }) => actor.kind !== "system").map(({ address }) => address))).toEqual(
      new Set(["127.0.0.1"]),
    );
    const by = Object.fromEntries(items.map((entry) => [`${entry.actor.id} ${entry.action}`, entry]));
    expect(by[`${ids.provisioning} connections.update`]?.detail).toEqual({ fields: ["labels"] });
    expect(by[`${ids.link} consents.begin`]?.actor).toEqual({ kind: "link", id: ids.link, name: ids.provisioning });
    expect(by[`${ids.provisioning} connections.import`]?.actor.name).toBe("provisioning");
  });

  it("gives what each filter asks for, page by page, and what was done to a connection that is gone", async () => {
    expect(new Set((await only({ actor: ids.link })).map(({ actor }) => actor.id))).toEqual(new Set([ids.link]));
    expect((await only({ type: "keys.create" })).map(({ result }) => result)).toEqual(["ok", "ok"]);
    const ofShop = await only({ connection: "acme-shop" });
    expect(told(ofShop).at(-1)).toContain("connections.delete connection acme-shop: ok");
    expect(new Set(ofShop.map(({ target }) => target?.name))).toEqual(new Set(["acme-shop"]));
    const [newest, second] = ofShop;
    const since = await only({ connection: "acme-shop", since: newest?.at ?? "" });
    expect(since.map(({ id }) => id)).toContain(newest?.id);
    const before = await only({ connection: "acme-shop", until: newest?.at ?? "" });
    expect([before[0]?.id, before.length]).toEqual([second?.id, ofShop.length - since.length]);
    const paged: Entry[] = [];
    for (let cursor: string | null = ""; cursor !== null;) {
      const page: { items: Entry[]; next_cursor: string | null } = await audit({
        connection: "acme-shop",
        limit: "4",
        ...(cursor !== "" && { cursor }),
      });
      paged.push(...page.items);
      cursor = page.next_cursor;
    }
    expect(paged).toEqual(ofShop);
    for (const wrong of [
      "?cursor=made-up",
      "?type=made.up",
      "?since=today",
      "/verify?heads=p1:1:mac",
      "/export?limit=5",
    ]) {
      const refused = await stage.first.api.api(`/audit${wrong}`);
      expect([wrong, refused.status, refused.body["code"]]).toEqual([wrong, 400, "invalid_request"]);
    }
    const noHead = { heads: ["p1:1:mac"] };
    expect((await stage.first.api.api("/audit/verify", { method: "POST", body: noHead })).status).toBe(400);
  });

  it("counts who reads a token, by caller, connection and result, and requests without a valid key", async () => {
    await stage.first.api.token("no-such", { key: keys.provisioning });
    await stage.first.api.api("/tokens/acme-shop", { key: "not-a-key" });
    type Count = { name: string | null; connection: string | null; result: string; count: number };
    const counts = await until("the counts are in the database", async () => {
      const rows = await query<Count>(
        stage.databaseUrl,
        `SELECT actor_name AS name, connection, result, sum(count)::int AS count FROM (
           SELECT actor_name, connection, result, count FROM audit.open_reads
           UNION ALL SELECT actor_name, target_name, result, (detail::json ->> 'count')::int FROM audit.entries
             WHERE action IN ('tokens.read', 'keys.refused')) all_counts
         GROUP BY 1, 2, 3`,
      );
      return rows.some(({ result }) => result === "unauthenticated") && rows;
    });
    expect(counts).toEqual(
      expect.arrayContaining([
        { name: "reading", connection: "acme-shop", result: "ok", count: 1 },
        { name: null, connection: null, result: "unauthenticated", count: 1 },
      ]),
    );
  });

  it("a key whose patterns do not cover all reads what was done to its connections, and nothing else", async () => {
    const { api } = stage.first;
    const key = await api.createKey({ name: "auditor", abilities: ["admin"], connections: ["acme-s*"] });
    await written("keys.create", 3);
    const { items } = await audit({}, key);
    expect(new Set(items.map(({ target }) => `${target?.kind} ${target?.name}`))).toEqual(
      new Set(["connection acme-shop"]),
    );
    const exported = await api.api<string>("/audit/export", { key });
    expect(linesOf(exported.body).map(({ id }) => id)).toEqual(items.map(({ id }) => id).toReversed());
  });

  it("exports all of it, oldest first, and writes down who reads it", async () => {
    await written("audit.export", 1);
    const { status, body, headers } = await stage.first.api.api<string>("/audit/export");
    expect([status, headers["content-type"]]).toEqual([200, "application/x-ndjson; charset=utf-8"]);
    const exported = linesOf(body);
    const listed = new Set((await audit()).items.map(({ id }) => id));
    expect(exported.filter(({ id }) => !listed.has(id))).toEqual([]);
    const times = exported.map(({ at }) => at);
    expect(times).toEqual(times.toSorted());
    expect(exported[0]?.action).toBe("system.start");
    expect(exported.map(({ action }) => action)).toEqual(expect.arrayContaining(["audit.read", "audit.export"]));
  });

  it("holds nothing of what was given: no key, code, token, link", async () => {
    const { body } = await stage.first.api.api<string>("/audit/export");
    // The id of a key is in it.
    const given = Object.values(keys).map((key) => key.split("_")[2] ?? "");
    const values = [...given, stage.first.adminKey, "a-copied-code", "an-imported-token", "team orders"];
    const secrets = [
      ...values,
      stage.provider.client.secret,
      ...stage.provider.ledger.tokens.map(({ value }) => value),
    ];
    const canaries = secrets.map((value, index) => ({ what: `secret ${index}`, value }));
    expect(findCanaries(canaries, [{ where: "the export", text: body }])).toEqual([]);
  });

  it("after a restart has the reads added up, and keys say when they were used last", async () => {
    await stage.first.stop("SIGINT");
    await stage.first.start();
    const counted = (await only({ type: "tokens.read", connection: "acme-shop" })).map(
      ({ actor, target, result, detail }) => [actor.name, target?.name, result, detail["count"]],
    );
    expect(counted).toEqual([["reading", "acme-shop", "ok", 1]]);
    type Key = { name: string; last_used_at: string | null };
    const { body } = await stage.first.api.api<{ items: Key[] }>("/keys");
    const lastUse = Object.fromEntries(body.items.map((key) => [key.name, key.last_used_at]));
    expect(lastUse["provisioning"]).toMatch(/^20\d\d-/);
    const unused = await stage.first.api.createKey({ name: "unused", abilities: ["tokens"], connections: ["a"] });
    expect(idOf(unused)).not.toBe("");
    const { items } = (await stage.first.api.api<{ items: Key[] }>("/keys?limit=1")).body;
    expect(items).toEqual([expect.objectContaining({ name: "unused", last_used_at: null })]);
  });

  it("is verified by the command line, which says what somebody has changed behind the broker's back", async () => {
    const env = { FRESHET_URL: stage.first.url, FRESHET_KEY: stage.first.adminKey };
    const log = join((await temporaryFolder("log")).path, "broker.log");
    await writeFile(log, stage.first.stdout);
    const whole = await run(["audit", "verify", "--heads", log], { env });
    expect(whole.out).toMatch(/newest entries of the log: \d\.\n$/);
    expect([whole.exitCode, whole.out]).toEqual([
      0,
      expect.stringMatching(/^Nothing is wrong\. Entries: \d+; processes: 2; /),
    ]);
    await query(
      stage.databaseUrl,
      "UPDATE audit.entries SET result = 'ok' WHERE action = 'consents.complete' AND result = 'denied'",
    );
    const changed = await run(["audit", "verify"], { env });
    expect([changed.exitCode, changed.out]).toEqual([1, expect.stringMatching(/^FAULT[^\n]*\nchanged /)]);
    const [row] = await query<{ last: number }>(
      stage.databaseUrl,
      "DELETE FROM audit.entries WHERE action = 'system.stop' RETURNING seq::int AS last",
    );
    const cut = await run(["audit", "verify", "--heads", log, "--json"], { env });
    const { faults } = JSON.parse(cut.out) as { faults: { kind: string; to: number }[] };
    expect(faults).toContainEqual(expect.objectContaining({ kind: "tail_missing", to: row?.last }));
    const listed = await run(["audit", "list", "--type", "connections.delete", "--json"], { env });
    expect(JSON.parse(listed.out)).toMatchObject({ items: [{ result: "ok" }, { result: "forbidden" }] });
  });
});

function linesOf(body: string): Entry[] {
  return body
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Entry);
}
