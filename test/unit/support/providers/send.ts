import { createHash } from "node:crypto";
import { request } from "undici";
import type { StrictServer } from "../../../support/providers/strict-server.ts";
import { approve } from "../../../support/walk-consent.ts";

export type Sent = {
  method?: "GET" | "POST" | "PUT";
  query?: Record<string, string>;
  headers?: Record<string, string>;
  form?: Record<string, string>;
  json?: unknown;
  text?: string;
};
export type Received = { status: number; body: string; json: Record<string, unknown> };

export const redirectUri = "http://127.0.0.1:9/callback";
export const verifier = "verifier-verifier-verifier-verifier-verifier";
export const challenge = createHash("sha256").update(verifier).digest("base64url");

/** Sends one request exactly as given, without any correction. */
export async function send(server: StrictServer, path: string, sent: Sent): Promise<Received> {
  const url = new URL(path, server.origin);
  for (const [name, value] of Object.entries(sent.query ?? {})) url.searchParams.append(name, value);
  const [type, body] = encode(sent);
  const headers = { ...(type ? { "content-type": type } : {}), ...sent.headers };
  const answer = await request(url, { method: sent.method ?? "POST", headers, body: body ?? null });
  const text = await answer.body.text();
  return { status: answer.statusCode, body: text, json: text.startsWith("{") ? JSON.parse(text) : {} };
}

/** Status and OAuth error in one, as the tables of refusals name them. */
export function outcome({ status, json }: Received): string {
  return typeof json["error"] === "string" ? `${status} ${json["error"]}` : String(status);
}

export function basic(id: string, secret: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString("base64")}` };
}

/** A code, obtained by clicking "Authorize" on the server's page. */
export async function codeFrom(server: StrictServer, path: string, params: Record<string, string>): Promise<string> {
  const url = new URL(path, server.origin);
  url.search = new URLSearchParams(params).toString();
  return (await approve(url.href)).searchParams.get("code") ?? "";
}

/** A copy without one field, or with another value in it. */
export function but(
  fields: Record<string, string>,
  changed: Record<string, string | undefined>,
): Record<string, string> {
  const entries = Object.entries({ ...fields, ...changed });
  return Object.fromEntries(entries.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

function encode({ form, json, text }: Sent): [string | undefined, string | undefined] {
  if (form) return ["application/x-www-form-urlencoded", new URLSearchParams(form).toString()];
  if (json !== undefined) return ["application/json", JSON.stringify(json)];
  return [undefined, text];
}
