import { html } from "hono/html";
import { page } from "../console/layout.ts";
import { sandboxScopes } from "./authorize-request.ts";

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
