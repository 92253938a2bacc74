import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { ConsentQuestion } from "../../../src/consent/links.ts";
import { ConsentError, type ConsentProblem } from "../../../src/consent/problem.ts";
import { consentPage } from "../../../src/pages/consent-page.ts";
import { type FormsLead, pageHeaders } from "../../../src/pages/layout.ts";
import { answerPage, problemPage } from "../../../src/pages/outcome-page.ts";

const evil = `"><script>alert(1)</script>&'`;
const question: ConsentQuestion = {
  connectionName: evil,
  providerName: evil,
  purpose: evil,
  clientId: evil,
  scopes: [
    { scope: evil, words: evil },
    { scope: evil, words: null },
  ],
  expiresAt: new Date(Date.UTC(2026, 10, 21, 14, 5)),
  csrf: evil,
  manual: null,
  device: null,
  endsAt: null,
};

const asker = { host: evil, name: evil, contact: evil };
const broker = { host: "broker.example", name: null, contact: null };
const subject = { connectionName: evil, providerName: evil };
const problem = (name: ConsentProblem) => new ConsentError(name, evil, { subject });

test("text from elsewhere stays text, on every page", async () => {
  const manual = { authorizationUrl: `https://provider.example/?x=${evil}` };
  const answer = {
    outcome: "connected",
    endsSoon: true,
    connectionName: evil,
    providerName: evil,
    account: evil,
    returnTo: `https://a.example/?q=${evil}`,
  } as const;
  const pages = [
    await consentPage(question, asker),
    await consentPage({ ...question, manual }, asker),
    (await answerPage(answer, asker)).html,
    (await problemPage(problem("provider_refused"), asker)).html,
  ];
  for (const page of pages) expect(page).not.toContain("<script");
});

test("the consent page says who will be able to do what, at which provider, until when", async () => {
  const scopes = [
    { scope: "orders", words: "read orders" },
    { scope: "x:y", words: null },
  ];
  const named = { ...question, connectionName: "acme", providerName: "Bakery", clientId: "app-1", csrf: "c", scopes };
  const text = (await consentPage(named, broker)).replaceAll(/<[^>]*>|\s+/g, " ").replaceAll(/ +/g, " ");
  expect(text).toContain("Connect acme at Bakery?");
  expect(text).toContain("broker.example will be able to read orders orders use x:y");
  expect(text).toContain("21 November 2026 at 14:05 UTC");
});

test("a connection without scopes says that the provider decides", async () => {
  expect(await consentPage({ ...question, scopes: [] }, broker)).toContain("allows this application");
});

test("styles are allowed by their hash and nothing else is: no scripts, no frames, no base, and forms lead where they must", async () => {
  const { html } = await problemPage(problem("used_link"), broker);
  const style = /<style>(.*?)<\/style>/s.exec(html)?.[1] ?? "";
  const hash = createHash("sha256").update(style).digest("base64");
  const forms = { nowhere: "'none'", here: "'self'", away: "'self' https: http:" };
  for (const [lead, allowed] of Object.entries(forms)) {
    expect(pageHeaders(lead as FormsLead)["content-security-policy"]).toBe(
      `default-src 'none'; script-src 'none'; style-src 'sha256-${hash}'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action ${allowed}`,
    );
  }
  expect(html).not.toMatch(/ style=| on[a-z]+=/);
});

const statuses: [ConsentProblem, number][] = [
  ["malformed", 400],
  ["invalid_state", 400],
  ["lost_denial", 400],
  ["lost_error", 400],
  ["invalid_ticket", 400],
  ["wrong_browser", 403],
  ["wrong_origin", 403],
  ["stale_form", 403],
  ["unknown_link", 404],
  ["connection_disabled", 409],
  ["duplicate_grant", 409],
  ["too_many_requests", 429],
  ["expired_link", 410],
  ["used_link", 410],
  ["expired_page", 410],
  ["already_answered", 410],
  ["provider_refused", 502],
  ["provider_unavailable", 502],
  ["provider_busy", 503],
  ["refused_here", 502],
  ["client_rejected", 502],
  ["storage_unavailable", 503],
  ["interrupted", 500],
  ["internal_error", 500],
];

test.each(statuses)("%s has a page with %i that says what to do next", async (name, expected) => {
  const { status, html } = await problemPage(new ConsentError(name, "Some <detail>"), broker);
  expect(status).toBe(expected);
  expect(html).toMatch(/<h1>[^<]+<\/h1>/);
  expect(html).toContain("What now?");
  expect(html).toContain("Some &lt;detail&gt;");
});

test.each([
  { retryAfterSeconds: 20, says: "Come again in a minute." },
  { retryAfterSeconds: 590, says: "Come again in 10 minutes." },
])(
  "of a provider that takes no more requests it says when to come again: $says",
  async ({ retryAfterSeconds, says }) => {
    const { html } = await problemPage(new ConsentError("provider_busy", null, { retryAfterSeconds }), broker);
    expect(html).toContain(says);
  },
);

test("who has connected an account that ends by itself is told so, and what to do", async () => {
  const named = { connectionName: "acme", providerName: "Bol", account: null, returnTo: null };
  const answer = { outcome: "connected", ...named } as const;
  const { html } = await answerPage({ ...answer, endsSoon: true }, broker);
  expect(html).toContain("Connected, but not for long");
  expect(html).toContain("must be connected again");
  expect((await answerPage({ ...answer, endsSoon: false }, broker)).html).not.toContain("but not for long");
});
