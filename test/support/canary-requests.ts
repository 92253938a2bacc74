import { request } from "undici";
import type { CanaryStage } from "./canary-stage.ts";

type Given = { body?: string; type?: string; authorization?: string };

const json = (body: unknown): Given => ({ body: JSON.stringify(body), type: "application/json" });
const as = (authorization: string): Given => ({ authorization });

/** Requests that are wrong, with secrets where they should and should not stand. @returns those that were not refused */
export async function sendWrongRequests(stage: CanaryStage): Promise<string[]> {
  const { shop, provider, adminKey, metricsKey, pastedKey } = stage;
  const { secret } = provider.client;
  const [first] = provider.ledger.currentRefreshTokens();
  const cases: [string, string, Given?][] = [
    ["POST", "/clients", json({ name: "b", provider: "strict", client_id: "b", client_secrett: secret })],
    ["POST", "/clients", json({ name: shop.user.password, provider: "strict", client_id: "b" })],
    ["POST", "/clients", json({ name: "b", provider: "strict", client_id: [secret] })],
    ["PATCH", "/clients/app", json({ client_secret: { value: secret } })],
    ["POST", "/connections", json({ name: "b", provider: "shopware", credentials: shop.user.password })],
    [
      "POST",
      "/connections",
      json({ name: "b", provider: "shopware", grant: "password", credentials: { pass: shop.user.password } }),
    ],
    ["POST", "/connections", { body: `{"credentials":{"password":"${shop.user.password}"`, type: "application/json" }],
    [
      "POST",
      "/connections",
      { body: `client_secret=${encodeURIComponent(secret)}`, type: "application/x-www-form-urlencoded" },
    ],
    ["POST", "/connections", json({ labels: Array.from({ length: 9000 }, () => secret) })],
    ["POST", "/connections/acme/import", json({ refresh_token: [first], access_token: 5 })],
    ["POST", "/connections/acme/import", json({ refresh_token: `${first}\n` })],
    ["POST", "/connections/acme/import", json({ refresh: first })],
    ["POST", "/connections/acme/code", json({ code: first })],
    ["GET", `/tokens/acme?min_ttl=${first}`],
    ["GET", `/tokens/acme?access_token=${first}`],
    ["GET", `/tokens/acme?rejected_version=1&rejected_version=${first}`],
    ["GET", `/tokens/acme`, as(`Bearer ${first}`)],
    ["GET", `/tokens/acme`, as(`Basic ${Buffer.from(`admin:${adminKey}`).toString("base64")}`)],
    ["GET", `/metrics`, as(`Bearer ${adminKey}`)],
    ["GET", `/connections?cursor=${metricsKey}`],
    ["GET", `/callback/strict?state=${first}&code=${first}`],
    ["GET", `/callback/strict?state=${first}&state=${secret}&error=${first}&error_description=${first}`],
    ["GET", `/connect/${first}`],
    ["POST", `/connect/${first}`, { body: `csrf=${first}`, type: "application/x-www-form-urlencoded" }],
    ["POST", "/no/such/route", json({ secret })],
    ["TRACE", "/tokens/acme"],
    ["GET", `/tokens/${pastedKey}`],
    ["GET", `/connections/${pastedKey}/events`],
    ["GET", `/tokens/${pastedKey}`, as("Bearer nobody")],
    ["GET", `/tokens/%${first}`],
  ];
  const accepted: string[] = [];
  for (const [method, path, { body, type, authorization } = {}] of cases) {
    const headers = {
      authorization: authorization ?? `Bearer ${adminKey}`,
      ...(type === undefined ? {} : { "content-type": type }),
    };
    const given = { method: method as "GET", headers, body: body ?? null };
    const { statusCode, body: answered } = await request(`${stage.proxy.url}${path}`, given);
    await answered.dump();
    if (statusCode < 400 || statusCode > 499) accepted.push(`${method} ${path}: ${statusCode}`);
  }
  return accepted;
}
