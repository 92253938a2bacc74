import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import type { ConsentSubject } from "../consent/problem.ts";
import { style } from "./style.ts";

/** Escaped markup, as the `html` template makes it. */
export type Markup = ReturnType<typeof html>;

const styleHash = createHash("sha256").update(style).digest("base64");
const icon =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='%230b6e63' " +
  "stroke-width='2.4' stroke-linecap='round'%3E%3Cpath d='M2 8c3.5-3 6.5-3 10 0s6.5 3 10 0M2 16c3.5-3 6.5-3 10 0s6.5 3 10 0'/%3E%3C/svg%3E";

/** Where the forms of a page lead: there are none, to the broker's own pages, or from there to another site. */
export type FormsLead = "nowhere" | "here" | "away";

/**
 * Browsers also judge the redirects that follow a form (CSP Level 3, section 6.4.1.1), and silently stop the way to a provider that
 * is not named. A provider may send the person on to hosts that nobody knows beforehand, so that "away" names only the schemes.
 */
const formAction: Readonly<Record<FormsLead, string>> = {
  nowhere: "'none'",
  here: "'self'",
  away: "'self' https: http:",
};

/** What every page carries beside what every answer does (src/http/headers.ts). `script`: the source of the one script that it may run. */
export function pageHeaders(forms: FormsLead, script = "'none'"): Record<string, string> {
  const policy = [
    "default-src 'none'",
    `script-src ${script}`,
    `style-src 'sha256-${styleHash}'`,
    "img-src data:",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    `form-action ${formAction[forms]}`,
  ];
  return {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policy.join("; "),
    "x-robots-tag": "noindex, nofollow",
  };
}

/** In one piece, so that the element holds exactly the text that was hashed. */
const styleElement = raw(`<style>${style}</style>`);

const mark = html`<svg
  width="22"
  height="22"
  viewBox="0 0 24 24"
  fill="none"
  stroke="currentColor"
  stroke-width="2.4"
  stroke-linecap="round"
  aria-hidden="true"
>
  <path d="M2 8c3.5-3 6.5-3 10 0s6.5 3 10 0M2 16c3.5-3 6.5-3 10 0s6.5 3 10 0" />
</svg>`;

/** A whole document. `hasForm`: under `no-referrer` browsers send `Origin: null` with a form, so such a page sets another policy. */
export async function page(options: {
  title: string;
  body: Markup;
  hasForm?: boolean;
  /** Seconds after which the browser loads the page again, since it waits for something. */
  refreshSeconds?: number;
}): Promise<string> {
  const { refreshSeconds } = options;
  const refresh = refreshSeconds ? html`<meta http-equiv="refresh" content="${refreshSeconds}" />` : "";
  const referrer = options.hasForm ? html`<meta name="referrer" content="same-origin" />` : "";
  const document = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        ${referrer} ${refresh}
        <title>${options.title}</title>
        <link rel="icon" href="${raw(icon)}" />
        ${styleElement}
      </head>
      <body>
        <main>${options.body}</main>
        <p class="brand">${mark} Freshet</p>
      </body>
    </html> `;
  return String(await document);
}

/** Who asks for an account, as the operator has set it. Null: not set. */
export type Asker = {
  /** Where this broker is reached. */
  host: string;
  name: string | null;
  contact: string | null;
};

/** The name that a person may know, else the address that their browser shows. */
export function nameOf({ name, host }: Asker): string {
  return name ?? host;
}

/** Whom a person can ask; empty if the operator has not set it. */
export function whomToAsk({ name, contact }: Asker): Markup | "" {
  if (name === null && contact === null) return "";
  const at = contact === null ? "" : html`: ${contactOf(contact)}`;
  // No full stop: after "B.V." it would be a second one, and after an address it would look like part of it.
  return html`<p class="soft">Questions about this page? Ask ${name ?? "whoever runs this service"}${at}</p>`;
}

/** What the account is connected for, in the words of whoever made the link; always shown as plain text. */
export function purposeOf({ purpose }: { purpose: string | null }): Markup | "" {
  if (purpose === null) return "";
  return html`<h2>What for</h2>
    <p>${purpose}</p>`;
}

/** What a page is about, if its reader may know it. */
export function aboutOf(subject: ConsentSubject | null): Markup | "" {
  if (subject === null) return "";
  return html`<p>
    This is about the connection <strong>${subject.connectionName}</strong> at ${subject.providerName}.
  </p>`;
}

/** The operator's setting: a mail address or a page becomes a link, anything else stays text. */
function contactOf(contact: string): Markup {
  if (/^[\w.+-]+@[\w-]+(\.[\w-]+)+$/.test(contact)) return html`<a href="mailto:${contact}">${contact}</a>`;
  if (URL.parse(contact)?.protocol === "https:") {
    return html`<a href="${contact}" rel="noopener noreferrer" target="_blank">${contact}</a>`;
  }
  return html`${contact}`;
}
