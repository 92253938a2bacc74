import { html } from "hono/html";
import type { ConsentSubject } from "../consent/problem.ts";
import type { Markup } from "./layout.ts";

/** Who asks for an account, as ops have named themselves. Null: they have not. */
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

/** Whom a person can ask; nothing where ops have not said it. */
export function whomToAsk({ name, contact }: Asker): Markup | "" {
  if (name === null && contact === null) return "";
  const at = contact === null ? "" : html`: ${contactOf(contact)}`;
  // No full stop: it would stand behind "B.V." as a second one, and behind an address as if it were part of it.
  return html`<p class="soft">Questions about this page? Ask ${name ?? "whoever runs this service"}${at}</p>`;
}

/** What the account is connected for: text of whoever made the link, and nothing but text. */
export function purposeOf({ purpose }: { purpose: string | null }): Markup | "" {
  if (purpose === null) return "";
  return html`<h2>What for</h2>
    <p>${purpose}</p>`;
}

/** What a page is about, where its reader may know. */
export function aboutOf(subject: ConsentSubject | null): Markup | "" {
  if (subject === null) return "";
  return html`<p>
    This is about the connection <strong>${subject.connectionName}</strong> at ${subject.providerName}.
  </p>`;
}

/** The operator's own setting: an address to write to, or a page. Anything else stays text. */
function contactOf(contact: string): Markup {
  if (/^[\w.+-]+@[\w-]+(\.[\w-]+)+$/.test(contact)) return html`<a href="mailto:${contact}">${contact}</a>`;
  if (URL.parse(contact)?.protocol === "https:") {
    return html`<a href="${contact}" rel="noopener noreferrer" target="_blank">${contact}</a>`;
  }
  return html`${contact}`;
}
