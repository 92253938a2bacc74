import { randomBytes } from "node:crypto";
import Fastify from "fastify";
import { expect, test } from "vitest";
import type { ConsentQuestion } from "../../../src/consent/links.ts";
import { ConsentError } from "../../../src/consent/problem.ts";
import { installErrorHandler } from "../../../src/http/error-handler.ts";
import { answerHeaders } from "../../../src/http/headers.ts";
import { createConsentLimits } from "../../../src/http/limits.ts";
import { consentRoutes, type ConsentRoutesOptions } from "../../../src/http/routes/consent.ts";
import { faultsOfHeaders } from "../../support/answer-headers.ts";

const question: ConsentQuestion = {
  connectionName: "acme",
  providerName: "Bakery",
  purpose: null,
  clientId: "app-1",
  scopes: [],
  expiresAt: new Date(),
  csrf: "c",
  manual: null,
  device: null,
  endsAt: null,
};

const refuse = async () => await Promise.reject(new ConsentError("invalid_state"));

async function start(publicUrl: string) {
  const consent: ConsentRoutesOptions["consent"] = {
    links: { describe: async () => question },
    roundTrip: {
      takesPost: () => false,
      sealPosted: () => "",
      openPosted: () => ({}),
      begin: async () => ({ kind: "redirect", authorizationUrl: "https://provider.example/authorize?state=s" }),
      complete: refuse,
    },
    copiedCodes: { completeManually: refuse },
    outcomes: { outcomeOfCode: async () => null, showEnding: refuse, decideAccount: refuse },
  };
  const app = Fastify();
  const perMinute = { linkPagesPerMinute: 120, linkPostsPerMinute: 10, callbacksPerMinute: 60 };
  const limits = createConsentLimits(perMinute, { monotonicMs: () => 0 });
  installErrorHandler(app, { asker: null, headers: answerHeaders(publicUrl) });
  await app.register(consentRoutes, {
    consent,
    publicUrl,
    limits,
    randomBytes,
    organisation: { name: null, contact: null },
  });
  return app;
}

/** The cookie of a first visit: its attributes, with the word "value" in place of its value. */
async function attributes(publicUrl: string) {
  const answer = await (await start(publicUrl)).inject("/connect/x");
  const [pair = "", ...rest] = String(answer.headers["set-cookie"]).split("; ");
  return [pair.replace(/=[\w-]{43}$/, "=value"), ...rest.toSorted()];
}

test("the cookie is out of reach of scripts, of other sites, and over https of other hosts", async () => {
  const common = ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=Lax"];
  expect(await attributes("http://localhost:8080")).toEqual(["freshet_browser=value", ...common]);
  expect(await attributes("https://broker.example")).toEqual(["__Host-freshet_browser=value", ...common, "Secure"]);
});

test("a browser keeps its cookie, unless it is none of ours", async () => {
  const app = await start("http://localhost:8080");
  const mine = `freshet_browser=${"a".repeat(43)}`;
  const again = await app.inject({ url: "/connect/x", headers: { cookie: `other=1; ${mine}; more=2` } });
  expect(again.headers["set-cookie"]).toContain(mine);
  const odd = await app.inject({ url: "/connect/x", headers: { cookie: "freshet_browser=short" } });
  expect(odd.headers["set-cookie"]).toMatch(/^freshet_browser=[\w-]{43};/);
});

test("every page, good or bad, is kept from caches, frames, referrers and search engines", async () => {
  const app = await start("http://localhost:8080");
  const answers = [
    await app.inject("/connect/x"),
    await app.inject("/callback/bakery?state=1"),
    await app.inject("/callback/bakery?state=1&state=2"),
    await app.inject({ method: "POST", url: "/connect/x" }),
  ];
  expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 400, 400, 403]);
  for (const { headers } of answers) {
    expect(headers["content-type"]).toBe("text/html; charset=utf-8");
    expect(faultsOfHeaders(headers, { publicUrl: "http://localhost:8080" })).toEqual([]);
    expect(headers["x-robots-tag"]).toContain("noindex");
  }
  const forms = answers.map(
    ({ headers }) => / form-action (.*)$/.exec(String(headers["content-security-policy"]))?.[1],
  );
  expect(forms).toEqual(["'self' https: http:", "'none'", "'none'", "'none'"]);
});

test("the way to the provider tells it nothing of where the person came from", async () => {
  const answer = await (
    await start("http://localhost:8080")
  ).inject({
    method: "POST",
    url: "/connect/x",
    headers: {
      origin: "http://localhost:8080",
      cookie: `freshet_browser=${"a".repeat(43)}`,
      "content-type": "application/x-www-form-urlencoded",
    },
    payload: "csrf=c",
  });
  expect(answer.statusCode).toBe(303);
  expect(answer.headers["location"]).toBe("https://provider.example/authorize?state=s");
  expect(answer.headers["referrer-policy"]).toBe("no-referrer");
  expect(answer.headers["cache-control"]).toBe("no-store");
});

test("HEAD does not reach the callback, where it would consume the state", async () => {
  const answer = await (
    await start("http://localhost:8080")
  ).inject({ method: "HEAD", url: "/callback/bakery?state=1" });
  expect(answer.statusCode).toBe(405);
});
