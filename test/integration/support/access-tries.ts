import { type AccessStage, type Asked, clientOf, labelsOf, type Whose } from "./access-stage.ts";

/** What is asked, made anew for each kind of key: a route of docs/access.md and what it is asked about. */
export type Try = { route: string; about: string; ask: (stage: AccessStage) => Promise<Asked> };

const about: Record<Whose, string> = {
  own: "own",
  closed: "own, on a client that is for others",
  another: "own, of another customer",
  foreign: "foreign",
};
const everyone: readonly Whose[] = ["own", "closed", "another", "foreign"];
type Side = "own" | "foreign";
const sides: readonly Side[] = ["own", "foreign"];

type Make = (stage: AccessStage, whose: Whose) => Promise<string>;
type Rest = { body?: unknown; bodyFor?: (whose: Whose) => unknown; make?: Make; note?: string };

const plain: Make = async (stage, whose) => await stage.connection(whose);
const connected: Make = async (stage, whose) => await stage.connected(whose);

/** A route with the name of a connection in its path. */
const onConnection = (route: string, { body, bodyFor = () => body, make = plain, note = "" }: Rest = {}): Try[] =>
  everyone.map((whose) => ({
    route,
    about: about[whose] + note,
    ask: async (stage) => asked(route, await make(stage, whose), bodyFor(whose)),
  }));

function asked(route: string, name: string, body?: unknown): Asked {
  const [method = "", path = ""] = route.split(" ");
  return { method, path: path.replace(/:\w+/, name), ...(body !== undefined && { body }) };
}

/** The same about keys and workloads, which may be bound to another customer's label. */
const onKeys = (route: string, ask: (stage: AccessStage, whose: Side | "another") => Promise<Asked>): Try[] =>
  (["own", "another", "foreign"] as const).map((whose) => ({
    route,
    about: about[whose],
    ask: async (stage) => await ask(stage, whose),
  }));

const onOwnOrForeign = (route: string, ask: (stage: AccessStage, whose: Side) => Promise<Asked>): Try[] =>
  sides.map((whose) => ({ route, about: about[whose], ask: async (stage) => await ask(stage, whose) }));

function declaring(stage: AccessStage, bounds: Record<string, unknown>): Asked {
  const declaration = stage.declaration(`workload-${stage.next("own")}`);
  return { method: "POST", path: "/workloads", body: { ...declaration, ...bounds, expires_at: stage.soon } };
}

/** A route about a client, a key or a workload that names no connections. */
const onIdle = (route: string, make: (stage: AccessStage) => Promise<string>, body?: unknown): Try => ({
  route,
  about: "for no connections",
  ask: async (stage) => asked(route, await make(stage), body),
});

/** A route that needs no key, or whose answer does not depend on what it is about. */
const same = (route: string, what = "", rest: Partial<Asked> = {}): Try => ({
  route,
  about: what,
  ask: async () => ({ ...asked(route, "unknown"), ...rest }),
});

const ofConnections: Try[] = [
  ...onConnection("GET /tokens/:connection", { make: connected }),
  ...everyone.map((whose): Try => ({
    route: "POST /connections",
    about: about[whose],
    ask: async (stage) => {
      const of = { client: clientOf(whose), labels: labelsOf(whose) };
      const body = { name: stage.next(whose), provider: "sandbox", scopes: ["read"], ...of };
      return { method: "POST", path: "/connections", body };
    },
  })),
  ...onConnection("GET /connections/:connection"),
  ...everyone.map((whose): Try => ({
    route: "GET /connections",
    about: about[whose],
    ask: async (stage) => ({ method: "GET", path: "/connections", shows: await stage.connection(whose) }),
  })),
  ...onConnection("PATCH /connections/:connection", {
    bodyFor: (whose) => ({ labels: { ...labelsOf(whose), a: "b" }, disabled: true }),
    note: ": labels, `disabled: true`",
  }),
  {
    route: "PATCH /connections/:connection",
    about: "own: its label `customer` taken off",
    ask: async (stage) =>
      asked("PATCH /connections/:connection", await stage.connection("own"), { labels: { a: "b" } }),
  },
  ...onConnection("PATCH /connections/:connection", { body: { scopes: ["read", "write"] }, note: ": `scopes`" }),
  ...onConnection("PATCH /connections/:connection", { body: { disabled: false }, note: ": `disabled: false`" }),
  ...onConnection("DELETE /connections/:connection"),
  ...onConnection("GET /connections/:connection/events"),
  ...onConnection("POST /connections/:connection/consent-links", { body: {} }),
  ...onConnection("POST /connections/:connection/code", { body: { code: "x" } }),
  ...onConnection("POST /connections/:connection/device"),
  ...onConnection("POST /connections/:connection/import", { body: { access_token: "x", expires_in: 60 } }),
  ...onConnection("POST /connections/:connection/account", { body: { accept: true }, note: ": `accept: true`" }),
  ...onConnection("POST /connections/:connection/account", { body: { accept: false }, note: ": `accept: false`" }),
  ...onConnection("POST /connections/:connection/refresh"),
  ...onConnection("POST /connections/:connection/refresh", {
    body: { retry_ended: true },
    note: ": `retry_ended: true`",
  }),
  ...onConnection("POST /connections/:connection/refresh", { body: { end: true }, note: ": `end: true`" }),
  same("POST /consents/:ticket/complete", "an unknown ticket, or one of a link that another key made", {
    body: { end_user: "42" },
  }),
];

const administration: Try[] = [
  ...onOwnOrForeign("POST /clients", async (stage, whose) => {
    const name = `app-${stage.next(whose)}`;
    const patterns = [whose === "own" ? "acme-x-*" : "other-*"];
    return { method: "POST", path: "/clients", body: { name, provider: "bol", client_id: "x", connections: patterns } };
  }),
  {
    route: "POST /clients",
    about: "for no connections",
    ask: async (stage) => {
      const body = { name: `app-${stage.next("own")}`, provider: "bol", client_id: "x" };
      return { method: "POST", path: "/clients", body };
    },
  },
  ...onOwnOrForeign("GET /clients", async (stage, whose) => ({
    method: "GET",
    path: "/clients",
    shows: await stage.client(whose),
  })),
  ...["GET", "DELETE"].flatMap((method) =>
    onOwnOrForeign(`${method} /clients/:client`, async (stage, whose) =>
      asked(`${method} /clients/:client`, await stage.client(whose)),
    ),
  ),
  onIdle("DELETE /clients/:client", async (stage) => await stage.client("nobody")),
  ...onOwnOrForeign("PATCH /clients/:client", async (stage, whose) =>
    asked("PATCH /clients/:client", await stage.client(whose), { client_secret: "other" }),
  ),
  {
    route: "PATCH /clients/:client",
    about: "own, opened to foreign connections",
    ask: async (stage) => asked("PATCH /clients/:client", await stage.client("own"), { connections: ["*"] }),
  },
  {
    route: "PATCH /clients/:client",
    about: "own, closed to all connections",
    ask: async (stage) => asked("PATCH /clients/:client", await stage.client("own"), { connections: [] }),
  },
  onIdle("PATCH /clients/:client", async (stage) => await stage.client("nobody"), { connections: ["acme-x-*"] }),
  {
    route: "PATCH /clients/:client",
    about: "own, used by a foreign connection",
    ask: async (stage) => {
      const client = await stage.client("own");
      await stage.api.createConnection({ name: stage.next("foreign"), provider: "sandbox", client });
      return asked("PATCH /clients/:client", client, { client_id: "other" });
    },
  },
  same("GET /providers"),
  same("GET /providers/:provider", "", { path: "/providers/bol" }),
  ...onKeys("POST /keys", async (stage, whose) => {
    const { soon: expires_at } = stage;
    const bounds = { connections: [whose === "foreign" ? "other-*" : "acme-x-*"], labels: labelsOf(whose), expires_at };
    return { method: "POST", path: "/keys", body: { name: stage.next(whose), abilities: ["admin"], ...bounds } };
  }),
  {
    route: "POST /keys",
    about: "own, with `tokens`",
    ask: async (stage) => ({
      method: "POST",
      path: "/keys",
      body: {
        name: stage.next("own"),
        abilities: ["admin", "tokens"],
        connections: ["acme-x-*"],
        labels: labelsOf("own"),
        expires_at: stage.soon,
      },
    }),
  },
  {
    route: "POST /keys",
    about: "for no connections",
    ask: async (stage) => ({
      method: "POST",
      path: "/keys",
      body: {
        name: stage.next("own"),
        abilities: ["admin"],
        connections: [],
        labels: labelsOf("own"),
        expires_at: stage.soon,
      },
    }),
  },
  ...onKeys("GET /keys", async (stage, whose) => ({
    method: "GET",
    path: "/keys",
    shows: await stage.key(whose),
  })),
  {
    route: "GET /keys",
    about: "for no connections",
    ask: async (stage) => ({ method: "GET", path: "/keys", shows: await stage.key("nobody") }),
  },
  ...onKeys("DELETE /keys/:id", async (stage, whose) => asked("DELETE /keys/:id", await stage.key(whose))),
  onIdle("DELETE /keys/:id", async (stage) => await stage.key("nobody")),
  ...onKeys("POST /workloads", async (stage, whose) => {
    const connections = [whose === "foreign" ? "other-*" : "acme-x-*"];
    return declaring(stage, { abilities: ["admin"], connections, labels: labelsOf(whose) });
  }),
  {
    route: "POST /workloads",
    about: "own, with `tokens`",
    ask: async (stage) => {
      const abilities = ["admin", "tokens"];
      return declaring(stage, { abilities, connections: ["acme-x-*"], labels: labelsOf("own") });
    },
  },
  {
    route: "POST /workloads",
    about: "for no connections",
    ask: async (stage) => declaring(stage, { abilities: ["admin"], connections: [], labels: labelsOf("own") }),
  },
  ...onKeys("GET /workloads", async (stage, whose) => ({
    method: "GET",
    path: "/workloads",
    shows: await stage.workload(whose),
  })),
  {
    route: "GET /workloads",
    about: "for no connections",
    ask: async (stage) => ({ method: "GET", path: "/workloads", shows: await stage.workload("nobody") }),
  },
  ...onKeys("DELETE /workloads/:name", async (stage, whose) =>
    asked("DELETE /workloads/:name", await stage.workload(whose)),
  ),
  onIdle("DELETE /workloads/:name", async (stage) => await stage.workload("nobody")),
  same("GET /encryption"),
  same("POST /encryption/rotate", "", { body: {} }),
  same("GET /encryption/rotation", "after a rotation"),
  same("GET /audit"),
  same("GET /audit/export"),
  same("GET /audit/verify"),
  same("POST /audit/verify", "", { body: { heads: [] } }),
  ...onOwnOrForeign("GET /recovery", async (stage, whose) => ({
    method: "GET",
    path: "/recovery",
    shows: await stage.held(whose),
  })),
  ...onOwnOrForeign("POST /recovery", async (stage, whose) => ({
    method: "POST",
    path: "/recovery",
    body: { connections: [await stage.held(whose)] },
  })),
];

/** What browsers and machines ask without a key: the key changes nothing. */
const open: Try[] = [
  same("GET /livez"),
  same("GET /readyz"),
  same("GET /metrics"),
  same("GET /"),
  same("GET /openapi.json"),
  same("GET /docs"),
  same("GET /docs/*", "", { path: "/docs/static/index.html" }),
  same("GET /connect/:link", "an unknown link"),
  same("POST /connect/:link", "a form of another origin", { body: "csrf=x" }),
  same("GET /callback/:provider", "an unknown state", { path: "/callback/sandbox?code=x&state=x" }),
  same("POST /callback/:provider", "a provider that posts nothing", {
    path: "/callback/sandbox",
    body: "state=x",
  }),
  same("POST /callback/:provider/continue", "a form of another origin", {
    path: "/callback/sandbox/continue",
    body: "answer=x",
  }),
  same("GET /callback/:provider/:client", "an unknown state", { path: "/callback/sandbox/x?code=x&state=x" }),
  same("POST /callback/:provider/:client", "a provider that posts nothing", {
    path: "/callback/sandbox/x",
    body: "state=x",
  }),
  same("POST /callback/:provider/:client/continue", "a form of another origin", {
    path: "/callback/sandbox/x/continue",
    body: "answer=x",
  }),
  same("GET /connected/*", "an unknown ticket", { path: "/connected/x" }),
  same("POST /connected/*", "a form of another origin", { path: "/connected/x", body: "csrf=x" }),
  same("GET /sandbox/authorize", "a request without parameters"),
  same("POST /sandbox/authorize", "a form without fields", { body: "x=y" }),
  same("POST /sandbox/token", "no client", { body: "x=y" }),
  same("POST /sandbox/revoke", "no client", { body: "x=y" }),
  same("GET /sandbox/api/me", "no token of the sandbox"),
];

export const tries: readonly Try[] = [...ofConnections, ...administration, ...open];
