import { Agent, type Dispatcher, request } from "undici";

/** A page as a scripted browser sees it. */
export type Page = {
  /** Of the answer that ended the redirects. */
  url: URL;
  status: number;
  html: string;
  /** The words of the page, tags and runs of white space removed. */
  text: string;
  headers: Dispatcher.ResponseData["headers"];
  forms: Form[];
};

type Form = { action: URL; method: string; fields: Map<string, string>; buttons: Button[] };
type Button = { label: string; name?: string; value: string };

type Cookie = { name: string; value: string; host: string; path: string };
type Sending = { method: string; url: URL; headers?: Record<string, string>; body?: string };
export type Options = {
  /** A redirect to such an address is not followed: the page returned is the redirect, with this address as its URL. */
  stopAt?: (url: URL) => boolean;
};

const mostRedirects = 20;

/** A browser without scripts: cookies, forms and redirects over plain HTTP. One instance is one browser profile. */
export class ScriptedBrowser {
  readonly #agent = new Agent();
  #cookies: Cookie[] = [];

  async open(url: string | URL, options: Options = {}): Promise<Page> {
    return await this.#follow({ method: "GET", url: new URL(url) }, options);
  }

  /** Sends the page's first form, or the one that holds the button of this label, with its hidden fields and `fields`. */
  async submit(
    page: Page,
    { button, fields = {}, ...options }: { button?: string | RegExp; fields?: Record<string, string> } & Options = {},
  ): Promise<Page> {
    const { form, pressed } = findForm(page, button);
    const all = new Map([...form.fields, ...Object.entries(fields)]);
    if (pressed?.name !== undefined) all.set(pressed.name, pressed.value);
    const body = new URLSearchParams([...all]).toString();
    if (form.method === "GET") {
      form.action.search = body;
      return await this.#follow({ method: "GET", url: form.action }, options);
    }
    const headers = {
      "content-type": "application/x-www-form-urlencoded",
      origin: page.url.origin,
      "sec-fetch-site": form.action.origin === page.url.origin ? "same-origin" : "cross-site",
    };
    return await this.#follow({ method: "POST", url: form.action, headers, body }, options);
  }

  /** The cookies that would go to an address, by name. */
  cookiesFor(url: string | URL): Map<string, string> {
    const { hostname, pathname } = new URL(url);
    const fitting = this.#cookies.filter((cookie) => cookie.host === hostname && covers(cookie.path, pathname));
    return new Map(fitting.map((cookie) => [cookie.name, cookie.value]));
  }

  async close(): Promise<void> {
    await this.#agent.close();
  }

  async #follow(first: Sending, { stopAt }: Options): Promise<Page> {
    let sending = first;
    for (let hop = 0; hop < mostRedirects; hop++) {
      const page = await this.#send(sending);
      const next = redirection(page, sending);
      if (!next) return page;
      if (stopAt?.(next.url)) return { ...page, url: next.url };
      sending = next;
    }
    throw new Error(`more than ${mostRedirects} redirects from ${first.url.origin}${first.url.pathname}`);
  }

  async #send({ method, url, headers, body }: Sending): Promise<Page> {
    const cookies = [...this.cookiesFor(url)].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await request(url, {
      dispatcher: this.#agent,
      method,
      headers: { accept: "text/html,application/xhtml+xml", ...headers, ...(cookies ? { cookie: cookies } : {}) },
      body: body ?? null,
    });
    this.#keepCookies(url, answer.headers["set-cookie"]);
    const html = await answer.body.text();
    const forms = readForms(html, url);
    return { url, status: answer.statusCode, html, text: toText(html), headers: answer.headers, forms };
  }

  #keepCookies(url: URL, lines: string | string[] | undefined): void {
    for (const line of [lines ?? []].flat()) {
      const [pair = "", ...attributes] = line.split(/; */);
      const name = pair.slice(0, pair.indexOf("="));
      const value = pair.slice(pair.indexOf("=") + 1);
      const settings = new Map(attributes.map((text) => splitAttribute(text)));
      const path = settings.get("path") ?? "/";
      this.#cookies = this.#cookies.filter(
        (old) => old.name !== name || old.host !== url.hostname || old.path !== path,
      );
      if (!isOver(settings)) this.#cookies.push({ name, value, host: url.hostname, path });
    }
  }
}

function isOver(settings: Map<string, string>): boolean {
  const maxAge = settings.get("max-age");
  if (maxAge !== undefined) return Number(maxAge) <= 0;
  const expires = settings.get("expires");
  return expires !== undefined && Date.parse(expires) <= Date.now();
}

function splitAttribute(text: string): [string, string] {
  const [name = "", value = ""] = text.split(/=(.*)/s);
  return [name.toLowerCase(), value];
}

function covers(cookiePath: string, path: string): boolean {
  return path === cookiePath || path.startsWith(cookiePath.endsWith("/") ? cookiePath : `${cookiePath}/`);
}

/** 303 and, as browsers do, 301 and 302 turn a POST into a GET; 307 and 308 send it again. */
function redirection(page: Page, sent: Sending): Sending | undefined {
  const location = page.headers["location"];
  if (page.status < 300 || page.status > 399 || typeof location !== "string") return undefined;
  const url = new URL(location, page.url);
  return page.status === 307 || page.status === 308 ? { ...sent, url } : { method: "GET", url };
}

function findForm(page: Page, label: string | RegExp | undefined): { form: Form; pressed?: Button } {
  for (const form of page.forms) {
    if (label === undefined) return form.buttons[0] ? { form, pressed: form.buttons[0] } : { form };
    const pressed = form.buttons.find((button) => matches(button.label, label));
    if (pressed) return { form, pressed };
  }
  throw new Error(
    `no form with ${label ? `the button ${String(label)}` : "a button"} on the page: ${page.status} ${page.text}`,
  );
}

/** Whether a label is the one asked for. */
export function matches(label: string, wanted: string | RegExp): boolean {
  return typeof wanted === "string" ? label === wanted : wanted.test(label);
}

function readForms(html: string, base: URL): Form[] {
  return [...html.matchAll(/<form\b([^>]*)>(.*?)<\/form>/gis)].map(([, attributes = "", content = ""]) => {
    const form = readAttributes(attributes);
    return {
      action: new URL(form.get("action") || base.href, base),
      method: (form.get("method") ?? "get").toUpperCase(),
      fields: readFields(content),
      buttons: readButtons(content),
    };
  });
}

function readFields(content: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const [, attributes = ""] of content.matchAll(/<input\b([^>]*)>/gi)) {
    const input = readAttributes(attributes);
    const name = input.get("name");
    if (name && input.get("type") !== "submit") fields.set(name, input.get("value") ?? "");
  }
  return fields;
}

function readButtons(content: string): Button[] {
  const inputs = [...content.matchAll(/<input\b([^>]*)>/gi)].map(([, text = ""]) => readAttributes(text));
  const found = content.matchAll(/<button\b([^>]*)>(.*?)<\/button>/gis);
  return [
    ...[...found].map(([, attributes = "", label = ""]) => readButton(readAttributes(attributes), toText(label))),
    ...inputs
      .filter((input) => input.get("type") === "submit")
      .map((input) => readButton(input, input.get("value") ?? "")),
  ];
}

function readButton(attributes: Map<string, string>, label: string): Button {
  const name = attributes.get("name");
  const value = attributes.get("value") ?? "";
  return name === undefined ? { label, value } : { label, name, value };
}

function readAttributes(text: string): Map<string, string> {
  const found = text.matchAll(/([\w-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/g);
  return new Map([...found].map(([, name = "", a, b, c]) => [name.toLowerCase(), decode(a ?? b ?? c ?? "")]));
}

function toText(html: string): string {
  const visible = html.replace(/<(style|script|head)\b.*?<\/\1>/gis, " ").replace(/<[^>]*>/g, " ");
  return decode(visible).replace(/\s+/g, " ").trim();
}

const entities: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: " " };

function decode(text: string): string {
  return text.replace(/&(#?\w+);/g, (whole, name: string) => {
    if (!name.startsWith("#")) return entities[name] ?? whole;
    const number = /^#x/i.test(name) ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1));
    return String.fromCodePoint(number);
  });
}
