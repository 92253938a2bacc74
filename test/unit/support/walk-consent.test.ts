import { once } from "node:events";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GenericProvider } from "../../support/providers/generic.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { walkConsent } from "../../support/walk-consent.ts";
import { challenge } from "./providers/send.ts";

let provider: GenericProvider;
let server: Server;
let origin: string;

beforeEach(async () => {
  provider = await new GenericProvider().start();
  server = createServer((request, response) => void standIn(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  provider.redirectUris.add(`${origin}/callback/strict`);
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await provider.stop();
});

/** Behaves as a consent page does: a POST needs the cookie, the token bound to it, and a same-origin Origin. */
async function standIn(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", origin);
  const cookie = request.headers.cookie ?? "";
  if (url.pathname.startsWith("/callback/")) {
    const outcome = url.searchParams.get("error") ?? (url.searchParams.has("code") ? "connected" : "nothing");
    response.writeHead(cookie.includes("browser=b1") ? 200 : 403, { "content-type": "text/html" });
    response.end(`<h1>It is <b>${outcome}</b> &amp; done</h1>`);
  } else if (url.pathname === "/connect/used") {
    response.writeHead(410).end("<p>This link has been used.</p>");
  } else if (request.method === "POST") {
    const form = new URLSearchParams(await text(request));
    const fits = cookie === "browser=b1" && form.get("csrf") === 'a"b&c' && request.headers.origin === origin;
    response.writeHead(fits ? 303 : 403, { location: fits ? authorizeUrl() : "/" }).end();
  } else {
    const cookies = ["browser=b1; Path=/; HttpOnly; SameSite=Lax", "elsewhere=1; Path=/console"];
    response.writeHead(200, { "content-type": "text/html", "set-cookie": cookies });
    response.end(
      `<form method="post"><input type=hidden name='csrf' value="a&quot;b&amp;c"><button>Continue</button></form>`,
    );
  }
}

function authorizeUrl(): string {
  const url = new URL("/authorize", provider.origin);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: provider.client.id,
    redirect_uri: `${origin}/callback/strict`,
    code_challenge: challenge,
    code_challenge_method: "S256",
  }).toString();
  return url.href;
}

describe("a scripted walk through consent", () => {
  it("ends on the broker's last page after a yes", async () => {
    expect(await walkConsent(`${origin}/connect/link`)).toMatchObject({ status: 200, text: "It is connected & done" });
  });

  it("ends on the broker's last page after a no", async () => {
    const page = await walkConsent(`${origin}/connect/link`, { decision: "deny" });
    expect(page.text).toBe("It is access_denied & done");
  });

  it("returns the page of a link that asks nothing any more", async () => {
    expect(await walkConsent(`${origin}/connect/used`)).toMatchObject({
      status: 410,
      text: "This link has been used.",
    });
  });

  it("keeps the cookies of one browser away from another", async () => {
    const first = new ScriptedBrowser();
    await walkConsent(`${origin}/connect/link`, { browser: first });
    expect(first.cookiesFor(`${origin}/callback/strict`)).toEqual(new Map([["browser", "b1"]]));
    const page = await new ScriptedBrowser().open(`${origin}/callback/strict?code=x`);
    expect(page.status).toBe(403);
  });
});
