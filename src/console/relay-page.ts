import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import { whomToAsk, type Asker } from "./asker.ts";
import { page, pageHeaders } from "./layout.ts";

/** For who has scripts; the button does the same. */
const script = "document.forms[0].submit();";
const scriptHash = createHash("sha256").update(script).digest("base64");

/** The one page with a script: by its hash, and no other. */
export const relayHeaders = pageHeaders("here", `'sha256-${scriptHash}'`);

/** Sends on from our own address what the provider's page has posted to it (src/consent/posted-answer.ts). */
export async function relayPage({ action, sealed }: { action: string; sealed: string }, asker: Asker): Promise<string> {
  const body = html`<h1>One more step</h1>
    <p>The provider has sent you back with its answer. Press “Continue” to finish.</p>
    <form method="post" action="${action}" class="actions">
      <input type="hidden" name="answer" value="${sealed}" />
      <button class="button" type="submit">Continue</button>
    </form>
    ${raw(`<script>${script}</script>`)} ${whomToAsk(asker)}`;
  return await page({ title: "One more step", body, hasForm: true });
}
