import { html } from "hono/html";
import { page } from "../pages/layout.ts";

const sandboxScopes: Readonly<Record<string, string>> = {
  read: "read the things in this sandbox",
  write: "change the things in this sandbox",
};

/** An authorization request that may be asked about, or what is wrong with it. */
export type AuthorizeRequest =
  | { kind: "valid"; redirectUri: string; state: string | null; scope: string; challenge: string }
  /** To be told to the client (RFC 6749, section 4.1.2.1). */
  | { kind: "refused"; redirectUri: string; state: string | null; error: string; description: string }
  /** To be told to the person: the redirect URI itself cannot be trusted. */
  | { kind: "untrusted"; description: string };

/** Checks a request as OAuth 2.1, section 4.1.1, asks: code flow, exact redirect URI, PKCE with S256. */
export function readAuthorizeRequest(
  query: unknown,
  client: { clientId: string; redirectUri: string },
): AuthorizeRequest {
  const read = (name: string) => {
    const value: unknown = typeof query === "object" && query !== null ? Reflect.get(query, name) : undefined;
    return typeof value === "string" ? value : null;
  };
  if (read("client_id") !== client.clientId) return { kind: "untrusted", description: "client_id is not known here" };
  const redirectUri = read("redirect_uri");
  if (redirectUri !== client.redirectUri) {
    return { kind: "untrusted", description: `redirect_uri must be ${client.redirectUri}` };
  }
  const state = read("state");
  const refuse = (error: string, description: string) =>
    ({ kind: "refused", redirectUri, state, error, description }) satisfies AuthorizeRequest;
  if (read("response_type") !== "code") return refuse("unsupported_response_type", "response_type must be code");
  const challenge = read("code_challenge") ?? "";
  if (!/^[A-Za-z0-9_-]{43}$/.test(challenge)) return refuse("invalid_request", "code_challenge must be a SHA-256");
  if (read("code_challenge_method") !== "S256") return refuse("invalid_request", "code_challenge_method must be S256");
  const scope = read("scope") ?? "read";
  if (!scope.split(" ").every((each) => Object.hasOwn(sandboxScopes, each))) {
    return refuse("invalid_scope", `scope must be of ${Object.keys(sandboxScopes).join(", ")}`);
  }
  return { kind: "valid", redirectUri, state, scope, challenge };
}

/** The address to go back to with an answer; `iss` as RFC 9207 asks. */
export function answerUrl(
  { redirectUri, state }: { redirectUri: string; state: string | null },
  answer: Record<string, string>,
): string {
  const url = new URL(redirectUri);
  for (const [name, value] of Object.entries(answer)) url.searchParams.set(name, value);
  if (state !== null) url.searchParams.set("state", state);
  return url.href;
}

/** The sandbox's own consent. The form goes back to this very address, so nothing of the request stands in the page. */
export async function authorizePage(scope: string): Promise<string> {
  const lines = scope.split(" ").map((each) => html`<li>${sandboxScopes[each]} <code>${each}</code></li>`);
  const body = html`<h1>Sandbox: give access?</h1>
    <p>
      This is the practice provider that is built into Freshet, and this page plays the part of a provider’s own. There
      is no real account behind it.
    </p>
    <h2>The broker asks to</h2>
    <ul class="can">
      ${lines}
    </ul>
    <form method="post" class="actions">
      <button class="button" type="submit" name="decision" value="authorize">Authorize</button>
      <button class="button quiet" type="submit" name="decision" value="deny">Deny</button>
    </form>
    <p class="soft">
      Its access tokens live for 90 seconds and its refresh tokens work once, so there is a refresh to watch soon.
    </p>`;
  return await page({ title: "Sandbox: give access?", body });
}

/** For a request that must not be sent back to anyone. */
export async function refusedPage(description: string): Promise<string> {
  const body = html`<h1>The sandbox cannot answer this</h1>
    <p>The request that led here is not one that this provider accepts:</p>
    <p class="said">${description}</p>
    <div class="next">
      <h2>What now?</h2>
      <p>Open the link you were given and start again from there.</p>
    </div>`;
  return await page({ title: "The sandbox cannot answer this", body });
}
