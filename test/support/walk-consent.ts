import { type Page, ScriptedBrowser, matches } from "./scripted-browser.ts";

export type Decision = "approve" | "deny";

/** Labels of the buttons that lead on, on the pages of the strict servers, the sandbox and oidc-provider. */
const labels: Record<Decision, RegExp> = { approve: /^(authorize|continue|sign-in)$/i, deny: /^(deny|cancel)$/i };
const mostPages = 5;

/**
 * Walks a consent link to its end over plain HTTP: opens it, continues with the form's hidden token, decides at the
 * provider, and returns the page that the broker shows last. A link that shows no form ends there.
 */
export async function walkConsent(
  link: string,
  { decision = "approve", browser = new ScriptedBrowser() }: { decision?: Decision; browser?: ScriptedBrowser } = {},
): Promise<Page> {
  const start = await browser.open(link);
  if (start.status !== 200 || start.forms.length === 0) return start;
  return await decide(browser, { page: await browser.submit(start), decision });
}

/** Says yes on the provider's own pages and returns the callback URL with its code, without calling it. */
export async function approve(authorizeUrl: string, browser = new ScriptedBrowser()): Promise<URL> {
  return await walkProvider(authorizeUrl, { decision: "approve", browser });
}

/** Says no, likewise. */
export async function deny(authorizeUrl: string, browser = new ScriptedBrowser()): Promise<URL> {
  return await walkProvider(authorizeUrl, { decision: "deny", browser });
}

async function walkProvider(
  authorizeUrl: string,
  { decision, browser }: { decision: Decision; browser: ScriptedBrowser },
): Promise<URL> {
  const isElsewhere = (url: URL) => url.origin !== new URL(authorizeUrl).origin;
  const page = await browser.open(authorizeUrl, { stopAt: isElsewhere });
  const last = await decide(browser, { page, decision, stopAt: isElsewhere });
  if (isElsewhere(last.url) || last.url.searchParams.has("code")) return last.url;
  throw new Error(`the provider did not lead back: ${last.status} ${last.text}`);
}

async function decide(
  browser: ScriptedBrowser,
  { page, decision, stopAt }: { page: Page; decision: Decision; stopAt?: (url: URL) => boolean },
): Promise<Page> {
  let current = page;
  for (let step = 0; step < mostPages; step++) {
    const label = labels[decision];
    const buttons = current.forms.flatMap((form) => form.buttons);
    if (!buttons.some((button) => matches(button.label, label))) return current;
    const fields: Record<string, string> = current.html.includes('name="login"')
      ? { login: "ada", password: "any" }
      : {};
    current = await browser.submit(current, { button: label, fields, ...(stopAt ? { stopAt } : {}) });
  }
  return current;
}
