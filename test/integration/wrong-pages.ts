import { ScriptedBrowser } from "../support/scripted-browser.ts";
import { type Answer, answerOf, canary, type Sending, type WrongInputStage } from "../support/wrong-input-stage.ts";
import type { Cases } from "./wrong-requests.ts";

type Fields = { csrf?: string; origin?: string; cookie?: boolean; type?: string; body?: string };

/** Opens the link as a browser does, and posts what its form would, with the changes that are given. */
async function postForm(stage: WrongInputStage, fields: Fields): Promise<Answer> {
  const { open: link } = stage.consents;
  const browser = new ScriptedBrowser();
  const page = await browser.open(link);
  const csrf = fields.csrf ?? page.forms[0]?.fields.get("csrf") ?? "";
  const cookie = [...browser.cookiesFor(link)].map(([name, value]) => `${name}=${value}`).join("; ");
  return await stage.send({
    method: "POST",
    path: new URL(link).pathname,
    key: null,
    headers: {
      "content-type": fields.type ?? "application/x-www-form-urlencoded",
      origin: fields.origin ?? stage.broker.publicUrl,
      ...(fields.cookie === false ? {} : { cookie }),
    },
    raw: fields.body ?? new URLSearchParams({ csrf }).toString(),
  });
}

/** Comes back from the provider in the browser that set out, with another query. */
async function comeBack(stage: WrongInputStage, edit: (url: URL) => void, browser = stage.consents.claimed.browser) {
  const url = new URL(stage.consents.claimed.callback);
  edit(url);
  return answerOf(await browser.open(url));
}

/** Sends so many refused requests from one address, and returns the answer to the next one. */
async function afterSoMany(stage: WrongInputStage, times: number, sending: Sending): Promise<Answer> {
  const again = async () => await stage.send({ ...sending, key: null });
  await Promise.all(Array.from({ length: times }, again));
  return await again();
}

const from = (address: string) => ({ "x-forwarded-for": address });

const open = async (url: string, browser = new ScriptedBrowser()) => answerOf(await browser.open(url));

/** Every wrong request that a browser gets a page for. */
export const wrongPages: Cases = {
  "a link that is not known": async (stage) =>
    await open(`${stage.broker.url}/connect/${"0".repeat(16)}-${"0".repeat(32)}`),
  "a link that is cut off": async (stage) => await open(stage.consents.open.slice(0, -1)),
  "a link without anything": async (stage) => await open(`${stage.broker.url}/connect/`),
  "a link with a NUL": async (stage) => await open(`${stage.consents.open}%00`),
  "a link that has been used": async (stage) => await open(stage.consents.used.link, stage.consents.used.browser),
  "a link that has expired": async (stage) => await open(stage.consents.expired),
  "a link that another browser has begun with": async (stage) => await open(stage.consents.claimed.link),
  "a form from another origin": async (stage) => await postForm(stage, { origin: "https://evil.example" }),
  "a form from no origin": async (stage) => await postForm(stage, { origin: "null" }),
  "a form without its token": async (stage) => await postForm(stage, { body: "" }),
  "a form with another token": async (stage) => await postForm(stage, { csrf: "x".repeat(43) }),
  "a form with its token twice": async (stage) => await postForm(stage, { body: "csrf=a&csrf=b" }),
  "a form without its cookie": async (stage) => await postForm(stage, { cookie: false }),
  "a form that is JSON": async (stage) => await postForm(stage, { type: "application/json", body: "{}" }),
  "a form of 1 MB": async (stage) => await postForm(stage, { body: `csrf=${"x".repeat(1_000_000)}` }),
  "a form with a NUL": async (stage) => await postForm(stage, { csrf: "\0" }),
  "an answer without a state": async (stage) => await comeBack(stage, (url) => url.searchParams.delete("state")),
  "an answer with an altered state": async (stage) =>
    await comeBack(stage, (url) => url.searchParams.set("state", "x".repeat(43))),
  "an answer with its state twice": async (stage) =>
    await comeBack(stage, (url) => url.searchParams.append("state", "x")),
  "an answer that came before, in another browser": async (stage) => await open(stage.consents.used.callback.href),
  "a no without a state": async (stage) => await open(`${stage.broker.url}/callback/sandbox?error=Access_Denied`),
  "an error without a state": async (stage) =>
    await open(`${stage.broker.url}/callback/sandbox?error=server_error&error_description=later`),
  "an error of a provider that is not known": async (stage) =>
    await open(`${stage.broker.url}/callback/nope?error=server_error`),
  "an answer that is posted": async (stage) =>
    await stage.send({
      method: "POST",
      path: "/callback/sandbox",
      key: null,
      headers: { "content-type": "application/x-www-form-urlencoded" },
      raw: "code=c&state=s",
    }),
  "a page of an ending that is cut off": async (stage) => await open(`${stage.broker.url}/connected/AQJr`),
  "a link that is posted more than 10 times in a minute": async (stage) =>
    await afterSoMany(stage, 10, { method: "POST", path: `/connect/${"1".repeat(16)}-${"1".repeat(32)}` }),
  "more than 120 link pages in a minute from one address": async (stage) =>
    await afterSoMany(stage, 120, { path: "/connect/x", headers: from("192.0.2.31") }),
  "more than 60 answers in a minute from one address": async (stage) =>
    await afterSoMany(stage, 60, { path: "/callback/sandbox?code=c", headers: from("192.0.2.32") }),
  "an answer in another browser": async (stage) => await comeBack(stage, () => {}, new ScriptedBrowser()),
  "an answer at another provider's address": async (stage) =>
    await comeBack(stage, (url) => (url.pathname = "/callback/bol")),
  "an answer at an address with a NUL": async (stage) =>
    await comeBack(stage, (url) => (url.pathname = "/callback/sandbox%00")),
  "an error with a NUL, with a good state": async (stage) =>
    await comeBack(stage, (url) => {
      url.searchParams.delete("code");
      url.searchParams.set("error", "\0");
      url.searchParams.set("error_description", canary("said"));
    }),
};

const host = "Host: broker\r\n";
const write = (bytes: string) => async (stage: WrongInputStage) => await stage.write(bytes);

/** What is not HTTP, or is HTTP only at the beginning. */
export const wrongBytes: Cases = {
  "a line that is no request": write("HELLO\r\n\r\n"),
  "a method that is none": write(`TAKE /livez HTTP/1.1\r\n${host}\r\n`),
  "HTTP/9.9": write(`GET /livez HTTP/9.9\r\n${host}\r\n`),
  "20 KB of headers": write(`GET /livez HTTP/1.1\r\n${host}X-Long: ${"x".repeat(20_000)}\r\n\r\n`),
  "20 KB of path": write(`GET /${"x".repeat(20_000)} HTTP/1.1\r\n${host}\r\n`),
  "a NUL in a header": write(`GET /livez HTTP/1.1\r\n${host}X-Odd: a\0b\r\n\r\n`),
  "a length that is no number": write(`POST /connections HTTP/1.1\r\n${host}Content-Length: many\r\n\r\n`),
  "a length below 0": write(`POST /connections HTTP/1.1\r\n${host}Content-Length: -1\r\n\r\n`),
  "a length and chunks": write(
    `POST /connections HTTP/1.1\r\n${host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n`,
  ),
  "a transfer encoding that is not known": write(
    `POST /connections HTTP/1.1\r\n${host}Transfer-Encoding: gzip\r\n\r\n`,
  ),
  "a chunk without a length": async (stage) =>
    await stage.write(
      `POST /connections HTTP/1.1\r\n${host}Authorization: Bearer ${stage.broker.adminKey}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
    ),
};
