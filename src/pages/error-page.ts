import { html } from "hono/html";
import { type Asker, page, whomToAsk } from "./layout.ts";
import { outcome } from "./outcome-page.ts";

/** An error for a browser at an address without a page of its own. */
export type AddressProblem = {
  status: number;
  code: string;
  /** What a program is told. */
  detail: string;
  /** The path, or "" if it was never read. */
  path: string;
  /** Methods that the address takes, where the browser's was another one. */
  methods: readonly string[];
};

type Words = { title: string; what: string; next: string };

const openLink = "If you were given a link to connect an account, open it exactly as you got it.";

function wordsFor({ status, code, path, methods }: AddressProblem): Words {
  if (code === "method_not_allowed") {
    return {
      title: `This address takes ${methods.join(", ")}`,
      what: "It exists, and was asked in a way that it does not know. Nothing has changed.",
      next: openLink,
    };
  }
  if (status === 404 && /^\/(connect|callback|connected)(\/|$)/.test(path)) {
    return {
      title: "This link is not complete",
      what: "Part of its address is missing, or something was added to it. Nothing has been connected.",
      next: "Open the link that you were given exactly as you got it. If it was cut off, ask whoever sent it for a new one.",
    };
  }
  if (status === 404) {
    return {
      title: "There is nothing at this address",
      what: "It may have been mistyped, or cut off when it was copied.",
      next: openLink,
    };
  }
  if (status === 400) {
    return {
      title: "This address could not be read",
      what: "It is too long, or holds something that no address may hold.",
      next: openLink,
    };
  }
  if (status >= 500) {
    return {
      title: "This service has a problem right now",
      what: "The fault is not with you.",
      next: "Wait a minute, then load this page again.",
    };
  }
  return {
    title: "This address is for programs",
    what: "It is a part of the API, which programs call with a key of their own.",
    next: openLink,
  };
}

/** The page for an address that has none of its own. */
export async function errorPage(problem: AddressProblem, asker: Asker): Promise<string> {
  const words = wordsFor(problem);
  const { status, code, detail } = problem;
  // An address that does not exist needs no more text.
  const said = code === "not_found" ? "" : html`<p class="said">${detail}</p>`;
  const docs = html`<p class="soft">You write a program? <a href="/docs">The API is described here.</a></p>`;
  const body = html`${outcome({ ...words, tone: status >= 500 ? "bad" : "calm" })}${said}${docs}${whomToAsk(asker)}`;
  return await page({ title: words.title, body });
}
