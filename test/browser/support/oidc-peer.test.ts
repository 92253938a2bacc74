import { createHash } from "node:crypto";
import { beforeEach, expect, it } from "vitest";
import { describeWithBrowser, screenshot } from "../../support/browser.ts";
import { GenericProvider } from "../../support/providers/generic.ts";
import { startOidcPeer } from "../../support/oidc-peer.ts";

const redirectUri = "http://127.0.0.1:9/callback/oidc-peer";
const verifier = "v".repeat(43);
const challenge = createHash("sha256").update(verifier).digest("base64url");
let state: string;

beforeEach(() => {
  state = crypto.randomUUID();
});

describeWithBrowser("pages of the test bench in Chromium", (openPage) => {
  it("oidc-provider asks for login and consent, and leads back with a code", async () => {
    await using peer = await startOidcPeer({ redirectUris: [redirectUri] });
    const page = await openPage();
    const back = page.waitForRequest((sent) => sent.url().startsWith(redirectUri));
    await page.goto(authorizeUrl(`${peer.origin}/auth`, peer.client.id));
    await page.fill('input[name="login"]', "ada");
    await page.fill('input[name="password"]', "any");
    await page.click("button");
    await page.click("text=Continue");
    const callback = new URL((await back).url());
    expect(callback.searchParams.get("state")).toBe(state);
    expect(callback.searchParams.get("code")).toBeTruthy();
  });

  it("a strict server's page has buttons that lead back", async () => {
    await using server = await new GenericProvider().start();
    server.redirectUris.add(redirectUri);
    const page = await openPage();
    const back = page.waitForRequest((sent) => sent.url().startsWith(redirectUri));
    await page.goto(authorizeUrl(`${server.origin}/authorize`, server.client.id).replace("scope=openid&", ""));
    await screenshot(page, "strict-provider");
    await page.click("text=Deny");
    expect(new URL((await back).url()).searchParams.get("error")).toBe("access_denied");
  });
});

function authorizeUrl(endpoint: string, clientId: string): string {
  const url = new URL(endpoint);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: clientId,
    redirect_uri: redirectUri,
    scope: "openid",
    state,
    code_challenge: challenge,
    code_challenge_method: "S256",
  }).toString();
  return url.href;
}
