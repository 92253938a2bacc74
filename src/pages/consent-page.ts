import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import type { ConsentQuestion } from "../consent/links.ts";
import { consentTimes } from "../time.ts";
import { type Asker, type Markup, nameOf, page, pageHeaders, purposeOf, whomToAsk } from "./layout.ts";

/** The page that asks: who will be able to do what, at which provider, under which name, and what for. */
export async function consentPage(question: ConsentQuestion, asker: Asker): Promise<string> {
  const { connectionName, providerName, clientId, manual } = question;
  const title = `Connect ${connectionName} at ${providerName}?`;
  const body = html`<h1>Connect <em>${connectionName}</em> at ${providerName}?</h1>
    <p>
      <strong>${nameOf(asker)}</strong> asks for access to an account at ${providerName}, where it is known as
      application <code>${clientId}</code>.
    </p>
    ${purposeOf(question)}
    <h2>${nameOf(asker)} will be able to</h2>
    ${permissions(question)} ${manual === null ? plainForm(question) : manualForm(question, manual.authorizationUrl)}
    <p class="soft">
      Not expecting this? Just close the page: nothing has been connected. The link works until
      ${time(question.expiresAt)}.
    </p>
    ${whomToAsk(asker)}`;
  return await page({ title, body, hasForm: true });
}

function permissions({ scopes, providerName }: ConsentQuestion): Markup {
  if (scopes.length === 0) {
    return html`<ul class="can">
      <li>do what ${providerName} allows this application; its next page may tell more</li>
    </ul>`;
  }
  const lines = scopes.map(({ scope, words }) =>
    words === null ? html`<li>use <code>${scope}</code></li>` : html`<li>${words} <code>${scope}</code></li>`,
  );
  return html`<ul class="can">
    ${lines}
  </ul>`;
}

function plainForm({ csrf, providerName, endsAt }: ConsentQuestion): Markup {
  const then = endsAt === null ? "" : html` You then come back to <strong>${endsAt}</strong>.`;
  return html`<p>${providerName} will ask you to sign in and to confirm. Your password stays there.${then}</p>
    <form method="post" class="actions">
      <input type="hidden" name="csrf" value="${csrf}" />
      <button class="button" type="submit">Continue to ${providerName}</button>
    </form>`;
}

function manualForm({ csrf, providerName }: ConsentQuestion, authorizationUrl: string): Markup {
  return html`<ol class="steps">
    <li>
      <p>
        <a href="${authorizationUrl}" target="_blank" rel="noopener noreferrer">Open ${providerName}</a> in a new tab,
        sign in and confirm. It then shows you a code, or the code is in the address of its last page.
      </p>
    </li>
    <li>
      <form method="post">
        <input type="hidden" name="csrf" value="${csrf}" />
        <label for="code">Code, or the whole address</label>
        <input
          type="text"
          id="code"
          name="code"
          required
          maxlength="8192"
          autocomplete="off"
          autocapitalize="off"
          spellcheck="false"
          aria-describedby="code-hint"
        />
        <p class="soft" id="code-hint">Paste it soon: such codes may live for a minute only.</p>
        <button class="button" type="submit">Connect</button>
      </form>
    </li>
  </ol>`;
}

const words = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short", timeZone: "UTC" });

function time(at: Date): Markup {
  return html`<time datetime="${at.toISOString()}">${words.format(at)} UTC</time>`;
}

/** The page that shows a code to type in at the provider (RFC 8628, section 3.3), and that waits for it to be confirmed. */
export async function devicePage(
  question: ConsentQuestion & { device: NonNullable<ConsentQuestion["device"]> },
  asker: Asker,
): Promise<string> {
  const { connectionName, providerName, device } = question;
  const address = device.verificationUriComplete ?? device.verificationUri;
  const body = html`<h1>Connect <em>${connectionName}</em> at ${providerName}</h1>
    <p><strong>${nameOf(asker)}</strong> asks for access to an account at ${providerName}.</p>
    ${purposeOf(question)}
    <ol class="steps">
      <li>
        <p>
          <a href="${address}" target="_blank" rel="noopener noreferrer">Open ${providerName}</a> in a new tab, or go to
          <code>${device.verificationUri}</code> on any device, and sign in.
        </p>
      </li>
      <li>
        <p>Enter this code there, or check that it is the one you are shown:</p>
        <p class="user-code"><code>${device.userCode}</code></p>
      </li>
      <li>
        <p>Confirm. This page then says by itself that the account is connected.</p>
      </li>
    </ol>
    <p class="soft">
      The code works until
      <time datetime="${device.expiresAt.toISOString()}">${timeOfDay.format(device.expiresAt)} UTC</time>. Not expecting
      this? Then do not enter it.
    </p>
    ${whomToAsk(asker)}`;
  return await page({
    title: `Connect ${connectionName} at ${providerName}`,
    body,
    refreshSeconds: consentTimes.pageRefreshSeconds,
  });
}

const timeOfDay = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", timeZone: "UTC" });

/** With scripts the form is sent by itself; without, the button does the same. */
const script = "document.forms[0].submit();";
const scriptHash = createHash("sha256").update(script).digest("base64");

/** The only page with a script, which the policy allows by its hash. Its form may lead on to the app that completes the consent. */
export const relayHeaders = pageHeaders("away", `'sha256-${scriptHash}'`);

/** Sends on from our own address what the provider's page has posted to it (`sealPosted` in src/consent/round-trip.ts). */
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
