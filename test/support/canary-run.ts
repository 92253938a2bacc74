import { request } from "undici";
import type { CanaryStage } from "./canary-stage.ts";
import { everyEcho } from "./providers/echoing.ts";
import type { Credentials } from "./providers/strict-server.ts";
import { ScriptedBrowser } from "./scripted-browser.ts";
import { approve, walkConsent } from "./walk-consent.ts";

const client = ({ id, secret }: Credentials) => ({ client_id: id, client_secret: secret });

/** Clients and connections of every kind; those of the shop fetch their first tokens. */
export async function register({ api, provider, shop, kitchen }: CanaryStage): Promise<void> {
  await api.createClient({ name: "app", provider: provider.id, ...client(provider.client) });
  await api.createClient({ name: "kitchen", provider: "apicbase", ...client(kitchen.client) });
  const inputs = { shop_url: shop.origin };
  await api.createClient({ name: "shop", provider: "shopware", inputs, ...client(shop.client) });
  const admin = { name: "admin", provider: "shopware", grant: "password", inputs };
  await api.createConnection({ ...admin, credentials: { ...shop.user } });
  await api.createConnection({
    name: "integration",
    provider: "shopware",
    client: "shop",
    grant: "client_credentials",
  });
  await api.createConnection({ name: "acme", provider: provider.id, client: "app" });
  await api.createConnection({ name: "soup", provider: "apicbase", client: "kitchen", scopes: ["library"] });
}

/** Consents that are denied, abandoned, failed in every way that repeats what was sent, and at last good. @returns statuses */
export async function consent(stage: CanaryStage): Promise<number[]> {
  const { api, provider } = stage;
  const browser = new ScriptedBrowser();
  const { url } = await api.consentLink("acme");
  const denied = await walkConsent(url, { decision: "deny", browser });
  const failed: number[] = [];
  for (const echo of everyEcho) {
    provider.echoNext(echo);
    failed.push((await walkConsent(url, { browser })).status);
  }
  const refused = await answerByHand(stage, { url, browser, error: "server_error" });
  const good = await walkConsent(url, { browser });
  await answerByHand(stage, { url: (await api.consentLink("acme")).url, browser, error: null });
  await browser.close();
  return [denied.status, ...new Set(failed), refused, good.status];
}

/** The provider sends the browser back with an error that repeats the state; or the person never comes back. */
async function answerByHand(
  { provider, proxy }: CanaryStage,
  { url, browser, error }: { url: string; browser: ScriptedBrowser; error: string | null },
): Promise<number> {
  const stopAt = (address: URL) => address.origin === provider.origin;
  const { url: asked } = await browser.submit(await browser.open(url), { stopAt });
  if (error === null) return 0;
  const back = new URL(`${proxy.url}/callback/${provider.id}`);
  const state = asked.searchParams.get("state") ?? "";
  back.search = new URLSearchParams({ state, error, error_description: `what is ${state}?` }).toString();
  return (await browser.open(back)).status;
}

/**
 * Consents that an app completes: with a wrong user, an echoing provider, and twice with the right one. The ticket stands in addresses of the app
 * alone. @returns statuses
 */
export async function completeByApp({ api, provider, returnTo }: CanaryStage): Promise<number[]> {
  await api.createConnection({ name: "of-app", provider: provider.id, client: "app" });
  const browser = new ScriptedBrowser();
  const link = async () => await api.consentLink("of-app", { completion: "app", end_user: "42", return_to: returnTo });
  const stopAt = ({ href }: URL) => href.startsWith(returnTo);
  const ticketOf = async (url: string) => {
    const page = await browser.submit(await browser.open(url), { stopAt: ({ origin }) => origin === provider.origin });
    const back = await browser.open(await approve(page.url.href, browser), { stopAt });
    return back.url.searchParams.get("ticket") ?? "";
  };
  const complete = async (ticket: string, end_user = "42") =>
    (await api.api(`/consents/${ticket}/complete`, { method: "POST", body: { end_user } })).status;
  const wrong = await complete(await ticketOf((await link()).url), "7");
  const { url } = await link();
  const refused = await ticketOf(url);
  provider.echoNext(...everyEcho.slice(0, 1));
  const first = await complete(refused);
  const good = await ticketOf(url);
  const rest = [await complete(good), await complete(good), await complete(refused)];
  await browser.close();
  return [wrong, first, ...rest];
}

/** Brings a code and token sets through the API, right ones and wrong ones. @returns statuses */
export async function handOver({ api, provider, kitchen }: CanaryStage): Promise<number[]> {
  const query = `response_type=code&client_id=${kitchen.client.id}&scope=library`;
  const copied = await approve(`${kitchen.origin}/oauth/authorize/?${query}`);
  const code = copied.searchParams.get("code") ?? "";
  const post = async (path: string, body: unknown) => (await api.api(path, { method: "POST", body })).status;
  const first = await post("/connections/soup/code", { code });
  const second = await post("/connections/soup/code", { code });
  const { accessToken, refreshToken, expiresIn } = provider.issueTokenSet();
  const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: expiresIn };
  for (const name of ["twin", "other-twin"]) await api.createConnection({ name, provider: provider.id, client: "app" });
  const imported = await post("/connections/twin/import", { ...set, verify: false });
  const duplicate = await post("/connections/other-twin/import", set);
  provider.echoNext({ part: "fields", as: "dead grant" });
  const other = provider.issueTokenSet();
  const dead = await post("/connections/other-twin/import", { refresh_token: other.refreshToken, verify: true });
  return [first, second, imported, duplicate, dead];
}

/** For each kind of echo one reader causes one refresh, which the provider answers with it. @returns the statuses that readers got */
export async function failRefreshes({ api, provider }: CanaryStage): Promise<number[]> {
  provider.echoNext(...everyEcho);
  const statuses = await Promise.all(
    everyEcho.map(async (_echo, index) => {
      const name = `echo-${index}`;
      await api.createConnection({ name, provider: provider.id, client: "app" });
      const { accessToken, refreshToken } = provider.issueTokenSet();
      const set = { access_token: accessToken, refresh_token: refreshToken ?? "", expires_in: 0 };
      await api.importTokens(name, set);
      const { status } = await api.token(name, { wait: 30 });
      await api.api(`/connections/${name}`);
      await api.api(`/connections/${name}/events`);
      return status;
    }),
  );
  return [...new Set(statuses)].sort((one, other) => one - other);
}

/** The shop refuses a user's password and a client's secret, and repeats them. @returns statuses */
export async function failCredentials({ api, shop }: CanaryStage): Promise<number[]> {
  const { username, password } = shop.user;
  const said = (status: number, code: string, secret = password) => {
    const detail = `${username} / ${secret} / ${JSON.stringify({ secret })} / ${encodeURIComponent(secret)}`;
    return { status, body: { errors: [{ code, status: String(status), title: `No ${secret}`, detail }] } };
  };
  const inputs = { shop_url: shop.origin };
  const admin = { provider: "shopware", grant: "password", inputs, credentials: { username, password } };
  const integration = { provider: "shopware", grant: "client_credentials", client: "shop" };
  const create = async (body: object) => (await api.api("/connections", { method: "POST", body })).status;
  shop.failNext(said(400, "6"));
  const refused = await create({ name: "refused", ...admin });
  shop.failNext(said(401, "4", shop.client.secret));
  const rejected = await create({ name: "rejected", ...integration });
  shop.failNext(said(500, "0"));
  const away = await create({ name: "away", ...admin });
  // The refresh token is dead, and the password does not work any more.
  const [refreshToken = ""] = shop.ledger.currentRefreshTokens();
  shop.failNext(said(401, "8", refreshToken));
  shop.failNext(said(400, "6"));
  const dead = (await api.api("/connections/admin/refresh", { method: "POST" })).status;
  return [refused, rejected, away, dead];
}

/** The client's secret changes at the provider, and the broker learns it afterwards. @returns statuses */
export async function changeSecret({ api, provider }: CanaryStage): Promise<number[]> {
  const refresh = async () => (await api.api("/connections/acme/refresh", { method: "POST" })).status;
  const secret = provider.changeSecret();
  const refused = await refresh();
  await api.changeClient("app", { client_secret: secret });
  return [refused, await refresh()];
}

/** A service with a key of its own reads all tokens, and an operator looks at everything. @returns the status of each answer */
export async function readEverything({ api, provider, proxy, metricsKey }: CanaryStage): Promise<number[]> {
  const key = await api.createKey({ name: "service", abilities: ["tokens"], connections: ["*"] });
  const tokens = ["acme", "admin", "integration", "soup", "twin"].map(async (name) =>
    api.token(name, { key, include: "request" }),
  );
  const forced = ["acme", "integration"].map(async (name) =>
    api.api(`/connections/${name}/refresh`, { method: "POST" }),
  );
  const rejected = await api.token("twin", { key, rejected_version: 1 });
  const lists = ["connections", "clients", "providers", "keys", "openapi.json", "docs/", "livez", "readyz"];
  const audit = ["audit?limit=200", "audit/export", "audit/verify"];
  const one = [
    "connections/acme",
    "connections/acme/events",
    "connections/admin/events",
    "clients/app",
    `providers/${provider.id}`,
  ];
  const seen = [...lists, ...audit, ...one].map(async (path) => api.api(`/${path}`));
  const answers = await Promise.all([...tokens, ...forced, ...seen]);
  const metrics = await request(`${proxy.url}/metrics`, { headers: { authorization: `Bearer ${metricsKey}` } });
  await metrics.body.dump();
  return [...answers, rejected].map(({ status }) => status).concat(metrics.statusCode);
}

/** A connection is deleted and its grant revoked, which the provider refuses with an echo. */
export async function remove({ api }: CanaryStage): Promise<void> {
  for (const name of ["twin", "echo-0"]) await api.deleteConnection(name);
}

/** Postgres and Redis go away in the middle of work, and come back. @returns what was answered meanwhile */
export async function outage({ api, brokers, postgres, redis }: CanaryStage): Promise<number[]> {
  for (let turn = 0; turn < brokers.length; turn++) await api.token("acme"); // each has it in its cache
  await Promise.all([postgres.stop(), redis.stop()]);
  const paths = [
    "/tokens/acme?min_ttl=0",
    "/tokens/soup?rejected_version=2",
    "/connections",
    "/clients/app",
    "/tokens/unread",
  ];
  const answers = await Promise.all(paths.map(async (path) => api.api(path)));
  const posts = ["/connections/acme/refresh", "/connections/acme/consent-links"];
  const refused = await Promise.all(posts.map(async (path) => api.api(path, { method: "POST" })));
  await Promise.all([postgres.restart(), redis.restart()]);
  return [...answers, ...refused].map(({ status }) => status);
}
