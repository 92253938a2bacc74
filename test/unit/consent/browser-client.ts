import type { FastifyInstance, LightMyRequestResponse } from "fastify";

/** A browser without scripts at `app`: keeps its cookie, sends forms as browsers do, and follows redirects to the page with the outcome. */
export type TestBrowser = {
  get(path: string): Promise<LightMyRequestResponse>;
  post(path: string, fields: Record<string, string>, headers?: Record<string, string>): Promise<LightMyRequestResponse>;
  /** Comes back from the provider. Returns the address of the page with the outcome. */
  ticketOf(callback: string): Promise<string>;
  /** Opens a link and presses its button. */
  press(path: string, fields?: Record<string, string>): Promise<LightMyRequestResponse>;
  cookie: string | null;
};

export function createTestBrowser(app: FastifyInstance, publicUrl: string): TestBrowser {
  const keep = (answer: LightMyRequestResponse) => {
    const line = answer.headers["set-cookie"];
    if (typeof line === "string") browser.cookie = line.slice(0, line.indexOf(";"));
    return answer;
  };
  const cookies = () => (browser.cookie === null ? {} : { cookie: browser.cookie });
  const follow = async (answer: LightMyRequestResponse): Promise<LightMyRequestResponse> => {
    const { location } = answer.headers;
    return location?.startsWith("/connected/") ? await browser.get(location) : answer;
  };
  const browser: TestBrowser = {
    cookie: null,
    get: async (path) => await follow(keep(await app.inject({ method: "GET", url: pathOf(path), headers: cookies() }))),
    post: async (path, fields, headers = {}) =>
      await follow(
        await app.inject({
          method: "POST",
          url: pathOf(path),
          headers: { "content-type": "application/x-www-form-urlencoded", origin: publicUrl, ...cookies(), ...headers },
          payload: new URLSearchParams(fields).toString(),
        }),
      ),
    async ticketOf(callback) {
      const { headers } = await app.inject({ method: "GET", url: pathOf(callback), headers: cookies() });
      return String(headers["location"]);
    },
    async press(path, fields = {}) {
      const page = await browser.get(path);
      return await browser.post(path, { csrf: csrfOf(page.body), ...fields });
    },
  };
  return browser;
}

/** The hidden field of a page's form. */
export function csrfOf(html: string): string {
  return /name="csrf" value="([^"]*)"/.exec(html)?.[1] ?? "";
}

/** Path and query of an address of the stage. */
export function pathOf(url: string): string {
  const { pathname, search } = new URL(url, "http://stage");
  return `${pathname}${search}`;
}
