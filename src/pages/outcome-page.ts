import { html, raw } from "hono/html";
import type { ConsentAnswer } from "../consent/outcome.ts";
import type { ConsentError, ConsentProblem } from "../consent/problem.ts";
import { consentTimes } from "../time.ts";
import { aboutOf, type Asker, type FormsLead, type Markup, page, whomToAsk } from "./layout.ts";

type Tone = "good" | "calm" | "bad";
type Words = { status: number; tone: Tone; title: string; what: string; next: string };

/** The pages a person can end on: what happened, and what to do next. */
const problems: Readonly<Record<ConsentProblem, Words>> = {
  malformed: {
    status: 400,
    tone: "bad",
    title: "That request could not be read",
    what: "Something in the address or the form is missing, came twice or was changed on its way. Nothing has been connected.",
    next: "Open the link you were given once more and start from there.",
  },
  invalid_state: {
    status: 400,
    tone: "bad",
    title: "This attempt is no longer valid",
    what: "An answer from the provider counts for ten minutes. This one came late, or does not belong to an attempt made here. Nothing was connected by it.",
    next: "Open the link you were given and start again. If you had already seen “Connected”, all is well: you are done.",
  },
  lost_denial: {
    status: 400,
    tone: "calm",
    title: "Not connected",
    what: "The address that opened this page says that access was not given. It does not say in which attempt, so nothing has changed here.",
    next: "You can close this page. To connect the account, open the link you were given and start again.",
  },
  lost_error: {
    status: 400,
    tone: "bad",
    title: "You came back with an error",
    what: "The address that opened this page says so, but not which attempt it is about. Nothing has changed here.",
    next: "Open the link you were given and try again. If it happens again, send the text below to whoever gave you the link.",
  },
  invalid_ticket: {
    status: 400,
    tone: "bad",
    title: "This page cannot be shown",
    what: "Its address is not complete, or was not made by this service. Nothing has been changed.",
    next: "Open the link you were given. If you had already seen “Connected”, all is well: you are done.",
  },
  wrong_browser: {
    status: 403,
    tone: "bad",
    title: "This belongs to another browser",
    what: "The link is being used in the browser where “Continue” was pressed first, and works only there. That keeps anyone else from finishing in your name.",
    next: "Go on in that browser, with cookies allowed. If that is not possible, or it was not you, ask for a new link.",
  },
  burnt_state: {
    status: 403,
    tone: "bad",
    title: "This attempt has been stopped",
    what: "The provider’s answer to it arrived in another browser. Somebody else may have tried to finish in your name, or you in theirs. Nothing has been connected.",
    next: "Open the link you were given and start again, all the way in this browser. If you have sent an address to anybody, do not do that again.",
  },
  wrong_origin: {
    status: 403,
    tone: "bad",
    title: "This form came from another address",
    what: "For your safety a form counts only when it is sent from this service’s own address. Nothing has been connected.",
    next: "Open the link exactly as you were given it, and press the button on that page.",
  },
  stale_form: {
    status: 403,
    tone: "bad",
    title: "This page is out of date",
    what: "What it asks for has been changed since it was shown, or the form does not fit this browser any more: its cookie was deleted or blocked, or the page was copied. Nothing has been connected.",
    next: "Open the page again, read what it asks for now, and press the button there. Allow cookies for this site if you come back to this page.",
  },
  unknown_link: {
    status: 404,
    tone: "bad",
    title: "This link is not known here",
    what: "It may have been cut off when it was copied, or the connection it was made for has been deleted.",
    next: "Check that you have the whole link. If you do, ask whoever sent it for a new one.",
  },
  connection_disabled: {
    status: 409,
    tone: "calm",
    title: "This connection is switched off",
    what: "The people who run this service have disabled it for now, so nothing can be connected.",
    next: "Tell whoever sent you the link. Once it is switched on again, the same link works until it expires.",
  },
  duplicate_grant: {
    status: 409,
    tone: "calm",
    title: "This account is connected already",
    what: "Another connection of this service has this access already, and two connections cannot share it.",
    next: "Tell whoever sent you the link, or start again and sign in to another account.",
  },
  expired_link: {
    status: 410,
    tone: "calm",
    title: "This link has expired",
    what: "Links work for a limited time, so that a forgotten one cannot be misused.",
    next: "Ask whoever sent it for a new one.",
  },
  used_link: {
    status: 410,
    tone: "calm",
    title: "This link has been used",
    what: "Each link works once, and this one has been used already.",
    next: "If you saw “Connected”, there is nothing left to do. If not, tell whoever sent it, and ask for a new link.",
  },
  plain_link: {
    status: 410,
    tone: "calm",
    title: "This link is no longer accepted",
    what: "Accounts are now connected only from within the application that you sign in to. That keeps anyone else from connecting theirs in your name, or yours in theirs. Nothing has been connected.",
    next: "Ask whoever sent it for a new link, or look for “Connect” in the application.",
  },
  too_many_requests: {
    status: 429,
    tone: "calm",
    title: "Too many requests",
    what: "Too many requests came in a short time, with this link or from your network. Nothing has changed.",
    next: "Wait a minute and load this page again. If you have begun to connect several times without finishing, wait ten minutes.",
  },
  expired_page: {
    status: 410,
    tone: "calm",
    title: "This page is no longer shown",
    what: "The page that shows how connecting ended is kept for a short time only.",
    next: "If you had seen “Connected”, all is well: you are done. If not, open the link you were given and start again.",
  },
  already_answered: {
    status: 410,
    tone: "calm",
    title: "That question is closed",
    what: "Somebody has already chosen the account, or nobody answered within an hour.",
    next: "To connect an account again, open the link you were given once more, or ask whoever sent it.",
  },
  provider_refused: {
    status: 502,
    tone: "bad",
    title: "The provider did not give access",
    what: "It answered with an error, or with something that this service cannot accept. Nothing has been connected.",
    next: "Open the link you were given and try again. If it happens again, send the text below to whoever gave you the link.",
  },
  provider_unavailable: {
    status: 502,
    tone: "bad",
    title: "The provider cannot be reached right now",
    what: "You agreed, but this service could not ask the provider, or got no answer in time. Nothing has been connected.",
    next: "Wait a few minutes, then open the link you were given and try again.",
  },
  provider_busy: {
    status: 503,
    tone: "calm",
    title: "The provider takes no more requests right now",
    what: "It bears only so many requests in a time, and those are used up. Nothing has been connected, and nothing of yours is kept here.",
    next: "Wait, then open the link you were given again: it still works until it expires.",
  },
  refused_here: {
    status: 502,
    tone: "bad",
    title: "This service may not reach the provider",
    what: "You did nothing wrong: this service is not allowed to send anything to the provider’s address, so nothing could be connected.",
    next: "Send the text below to whoever gave you the link. The link works until it expires.",
  },
  client_rejected: {
    status: 502,
    tone: "bad",
    title: "The provider does not accept this service",
    what: "You did nothing wrong: the provider refuses this service’s own id or secret, so nothing could be connected.",
    next: "Send the text below to whoever gave you the link. The link works until it expires.",
  },
  storage_unavailable: {
    status: 503,
    tone: "bad",
    title: "This service has a problem right now",
    what: "It cannot read what it has stored, so nothing can be connected at the moment.",
    next: "Wait a minute, then open the link you were given and try again.",
  },
  interrupted: {
    status: 500,
    tone: "bad",
    title: "This attempt was interrupted",
    what: "You have agreed, but this service was stopped while it talked to the provider, so it does not know whether the account is connected. The provider’s answer cannot be asked for a second time.",
    next: "If you had already seen “Connected”, all is well: you are done. If not, open the link you were given and start again; if it says that it has been used, ask whoever sent it for a new one.",
  },
  internal_error: {
    status: 500,
    tone: "bad",
    title: "Something went wrong here",
    what: "The fault is in this service, not with you.",
    next: "Open the link you were given and try again. If it happens again, tell whoever sent it.",
  },
};

type Problem = Pick<ConsentError, "problem" | "detail" | "subject" | "retryAfterSeconds">;

/** `status` replaces the problem's own. `again`: the address of the page as it is now, if there is one. */
type More = { status?: number; again?: string | null };

/** The page for a consent that failed, and its status. `detail` is for the operator. */
export async function problemPage(given: Problem, asker: Asker, more: More = {}) {
  const { problem, detail, subject, retryAfterSeconds } = given;
  const known = problems[problem];
  const isTold = problem === "provider_busy" && retryAfterSeconds !== null;
  const words = isTold ? { ...known, next: `${known.next} ${whenAgain(retryAfterSeconds)}` } : known;
  const said = detail === null || detail === "" ? "" : html`<p class="said">${detail}</p>`;
  const { status = words.status, again = null } = more;
  const button = again && html`<div class="actions"><a class="button" href="${again}">Open the page again</a></div>`;
  const body = html`${outcome(words, aboutOf(subject))}${said}${button ?? ""}${whomToAsk(asker)}`;
  return { status, forms: "nowhere" as const, html: await page({ title: words.title, body }) };
}

function whenAgain(seconds: number): string {
  const minutes = Math.ceil(seconds / 60);
  return seconds <= 60 ? "Come again in a minute." : `Come again in ${minutes} minutes.`;
}

type Ended = Exclude<ConsentAnswer, { outcome: "working" }>;

function connectedWords(answer: Extract<Ended, { outcome: "connected" }>): Omit<Words, "status"> {
  const { connectionName, providerName, account } = answer;
  const whose = account === null ? "The account" : `The account ${account}`;
  const what = `${whose} at ${providerName} is connected now, under the name “${connectionName}”.`;
  if (!answer.endsSoon) {
    const next = `You can close this page. The access can be withdrawn at ${providerName} at any time.`;
    return { tone: "good", title: "Connected", what, next };
  }
  return {
    tone: "calm",
    title: "Connected, but not for long",
    what: `${what} But ${providerName} gave access for a limited time only. When that time is over, the account must be connected again.`,
    next: `Tell whoever sent you the link. What often helps: remove this service’s access in your account’s settings at ${providerName}, then connect again with a new link.`,
  };
}

function wordsFor(answer: Ended): Omit<Words, "status"> {
  const { connectionName, providerName } = answer;
  switch (answer.outcome) {
    case "connected":
      return connectedWords(answer);
    case "denied":
      return {
        tone: "calm",
        title: "Not connected",
        what: `You told ${providerName} not to give access, so “${connectionName}” was not connected. Nothing has changed.`,
        next: "You can close this page. If you change your mind, the link you were given still works until it expires.",
      };
    case "kept":
      return {
        tone: "calm",
        title: "Nothing has changed",
        what: `“${connectionName}” stays connected with the account that it had.`,
        next: `To connect that account again, open the link you were given once more and sign in to it at ${providerName}.`,
      };
    default: {
      const isNamed = answer.is !== null;
      return {
        tone: "calm",
        title: isNamed ? "That is another account" : "Is that the same account?",
        what: isNamed
          ? `You signed in to another account at ${providerName} than the one that “${connectionName}” is connected with.`
          : `${providerName} does not say which account you signed in to, so it may not be the one that “${connectionName}” is connected with.`,
        next: "Choose below which account to use. Nothing has changed so far. You have an hour to answer.",
      };
    }
  }
}

/** The page for an answer: connected, denied, still under way, or a question about the account. */
export async function answerPage(answer: ConsentAnswer, asker: Asker) {
  if (answer.outcome === "working") return await workingPage(asker);
  const words = wordsFor(answer);
  const hasForm = answer.outcome === "other_account";
  const next = answer.outcome === "other_account" ? accountForm(answer) : returnButton(answer);
  const body = html`${outcome(words)}${next}${whomToAsk(asker)}`;
  const forms: FormsLead = hasForm ? "here" : "nowhere";
  return { status: 200, forms, html: await page({ title: words.title, body, hasForm }) };
}

async function workingPage(asker: Asker) {
  const words = {
    tone: "calm",
    title: "Still working on it",
    what: "You have agreed, and this service is talking to the provider. That can take a minute when the provider is slow.",
    next: "Leave this page open: it checks again by itself every few seconds. If nothing has changed after some minutes, ask whoever sent you the link for a new one.",
  } as const;
  const body = html`${outcome(words)}${whomToAsk(asker)}`;
  return {
    status: 202,
    forms: "nowhere" as const,
    html: await page({ title: words.title, body, refreshSeconds: consentTimes.pageRefreshSeconds }),
  };
}

/** The form is sent to the address of its own page. */
function accountForm({ csrf, was, is }: Extract<ConsentAnswer, { outcome: "other_account" }>): Markup {
  const newOne = is === null ? "the account I just signed in to" : is;
  return html`<form method="post" class="actions">
    <input type="hidden" name="csrf" value="${csrf}" />
    <button class="button" type="submit" name="accept" value="no">Keep ${was ?? "the account it had"}</button>
    <button class="button quiet" type="submit" name="accept" value="yes">Use ${newOne} from now on</button>
  </form>`;
}

/** What happened, and what to do next. */
export function outcome({ tone, title, what, next }: Omit<Words, "status">, about: Markup | "" = ""): Markup {
  return html`<div class="badge ${tone}">${raw(signs[tone])}</div>
    <h1>${title}</h1>
    ${about}
    <p>${what}</p>
    <div class="next">
      <h2>What now?</h2>
      <p>${next}</p>
    </div>`;
}

type Returning = Extract<ConsentAnswer, { returnTo: string | null }>;

function returnButton({ returnTo, connectionName, outcome: status }: Returning): Markup | "" {
  if (returnTo === null) return "";
  const url = new URL(returnTo);
  url.searchParams.set("connection", connectionName);
  url.searchParams.set("status", status);
  return html`<div class="actions"><a class="button" href="${url.href}">Continue to ${url.host}</a></div>`;
}

const sign = (path: string) =>
  `<svg width="24" height="24" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="${path}"/></svg>`;
const signs: Readonly<Record<Tone, string>> = {
  good: sign("M5 12.5l4.5 4.5L19 7.5"),
  calm: sign("M6 12h12"),
  bad: sign("M12 4.5v10M12 19.5v.01"),
};
