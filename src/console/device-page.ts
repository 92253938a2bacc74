import { html } from "hono/html";
import type { ConsentQuestion } from "../consent/consent-service.ts";
import { nameOf, purposeOf, whomToAsk, type Asker } from "./asker.ts";
import { page } from "./layout.ts";

const refreshSeconds = 5;

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
      <time datetime="${device.expiresAt.toISOString()}">${words.format(device.expiresAt)} UTC</time>. Not expecting
      this? Then do not enter it.
    </p>
    ${whomToAsk(asker)}`;
  return await page({ title: `Connect ${connectionName} at ${providerName}`, body, refreshSeconds });
}

const words = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", timeZone: "UTC" });
