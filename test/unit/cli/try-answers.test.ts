import { expect, test } from "vitest";
import { startStubProvider } from "./stub-provider.ts";
import { expectNone, runTry } from "./try.ts";

const secret = "client secret/canary";
const env = { FRESHET_CLIENT_SECRET: secret };
const tokens = { access_token: "at-canary-1", refresh_token: "rt-canary-1", expires_in: 600 };
const dead = { status: 400, body: { error: "invalid_grant" } };
const offline = ["--client-id", "c-1", "--no-refresh"];
const fetching = { grants: ["client_credentials"] };

test.each([
  [
    "a rule of the definition",
    {
      answer: { status: 404, body: { oops: true } },
      meaning: "refused: means blocked (class refused_for_now, code blocked)",
      decided: "decided by errors[1] of the definition: status 404, means blocked",
    },
  ],
  [
    "RFC 6749",
    {
      answer: { status: 400, body: { error: "invalid_client" } },
      meaning: "refused: means client_rejected (class client_rejected, code invalid_client)",
      decided: 'decided by error "invalid_client" (RFC 6749, section 5.2)',
    },
  ],
  [
    "the status",
    {
      answer: { status: 503, body: { error: "busy" } },
      meaning: "refused: means transient (class refused_for_now, code provider_unavailable)",
      decided: "decided by status 503, since no rule of the definition matches",
    },
  ],
  [
    "ok_when",
    {
      answer: { status: 200, body: { ok: false, error: "nope" } },
      meaning: "refused: means transient (class refused_for_now, code provider_unavailable)",
      decided: 'decided by response.ok_when: /ok is not "true"',
    },
  ],
  [
    "the lack of a token",
    {
      answer: { status: 200, body: { ok: true, token: "misplaced-canary" } },
      meaning: "refused: means unreadable_answer (class unknown, code unreadable_answer)",
      decided: "decided by status 200 without a token at /access_token",
    },
  ],
])("a refusal says what it means and that %s decided it", async (_case, { answer, meaning, decided }) => {
  await using stub = await startStubProvider({ "POST /token": answer });
  const file = await stub.define({
    ...fetching,
    response: { ok_when: { pointer: "/ok", equals: "true" } },
    errors: [
      { endpoint: "token", status: 418, means: "transient" },
      { endpoint: "token", status: 404, means: "blocked" },
    ],
  });
  const result = await runTry([file, ...offline], { env });
  expect(result.exitCode).toBe(1);
  expect(result.out).toContain(`= ${meaning}`);
  expect(result.out).toContain(`= ${decided}`);
  expect(result.err).toMatch(/^freshet: No token was granted: .* \(try_failed\)\n$/);
  expectNone([...stub.secrets, "misplaced-canary"], result);
});

test("a provider that repeats what it was sent, in whatever spelling, shows no secret here", async () => {
  const form = new URLSearchParams({ s: secret }).toString().slice(2);
  await using stub = await startStubProvider({
    "POST /token": {
      status: 400,
      body: {
        error: "invalid_request",
        error_description: `bad: ${secret} and ${encodeURIComponent(secret)} and ${form}`,
        sent: { client_secret: secret, whole: `client_secret=${form}` },
      },
    },
  });
  const token = { url: `${stub.url}/token`, client_auth: "body" };
  const file = await stub.define({ ...fetching, token });
  for (const json of [[], ["--json"]]) {
    const result = await runTry([file, ...offline, ...json], { env });
    expect(result.exitCode).toBe(1);
    expectNone([secret, form], result);
  }
});

test("an answer that is no OAuth answer is not shown: it may hold tokens", async () => {
  const body = "<html>Sorry, session short-1 is over</html>";
  await using stub = await startStubProvider({ "POST /token": { status: 500, body, type: "text/html" } });
  const result = await runTry([await stub.define(fetching), ...offline], { env });
  expect(result.out).toContain("< 500 text/html");
  expect(result.out).toContain(`(${body.length} bytes that are neither JSON nor a form`);
  expectNone(["Sorry", "session short-1"], result);
});

test("what a refusal calls a token is masked in its other texts, too", async () => {
  const body = { error: "odd", access_token: "short-1", scope: "read short-1", message: "no short-1" };
  await using stub = await startStubProvider({ "POST /token": { status: 400, body } });
  const result = await runTry([await stub.define(fetching), ...offline], { env });
  expect(result.out).toContain("read ••••");
  expectNone(["short-1"], result);
});

test("tokens at unusual places and under unusual names are masked, and what was captured is shown", async () => {
  await using stub = await startStubProvider({
    "POST /token": {
      body: {
        data: { access: "short-canary" },
        key: "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5",
        jwt: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ.",
        api_domain: "eu.example.com",
        authed_user: { access_token: "user-canary-1", scope: "identify" },
        scope: "read",
      },
    },
  });
  const file = await stub.define({
    ...fetching,
    response: {
      access_token: "/data/access",
      capture: { api_domain: "/api_domain", region: "/region" },
      extra_tokens: [{ name: "user", access_token: "/authed_user/access_token", scope: "/authed_user/scope" }],
    },
  });
  const result = await runTry([file, ...offline, "--scope", "read", "--scope", "write"], { env });
  expect(result.exitCode).toBe(0);
  expect(result.out).toContain("= access token: 12 characters, expires in 3600 s");
  expect(result.out).toContain("= its end is the fallback: nothing readable stands at /expires_in");
  expect(result.out).toContain("= asked for and not granted: write");
  expect(result.out).toContain("= captured: api_domain=eu.example.com");
  expect(result.out).toContain("= not there, or not as its pattern says: region");
  expect(result.out).toContain("= further token user: access token: 13 characters");
  const others = ["short-canary", "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5", "eyJhbGciOiJub25lIn0"];
  expectNone([...stub.secrets, ...others], result);
});

const lookups = (url: string) => [
  { request: { url: `${url}/me` }, pointer: "/email", label: "/name", capture: { org: "/org/id" } },
  { value: "{account.org}" },
];

test("whose account it is, is looked up with the token", async () => {
  await using stub = await startStubProvider({
    "POST /token": { body: tokens },
    "GET /me": {
      body: {
        email: "ann@acme.example",
        name: "Ann",
        org: { id: "org-7" },
        external: "a81bc81b-dead-4e5d-abff-90865d1e13b1",
        session: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl",
      },
    },
  });
  const file = await stub.define({ ...fetching, after_connect: lookups(stub.url) });
  const result = await runTry([file, ...offline], { env });
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(stub.calls[1]?.headers["authorization"]).toBe(`Bearer ${tokens.access_token}`);
  expect(result.out).toContain("= account: ann@acme.example (Ann)\n= captured: org=org-7");
  expect(result.out).toContain("= account: org-7");
  expect(result.out, "ids are there to be pointed at").toContain("a81bc81b-dead-4e5d-abff-90865d1e13b1");
  expectNone([...stub.secrets, "eyJhbGciOiJub25lIn0"], result);
});

test("what a lookup captures reaches the lookups after it, the refresh and what callers are told to send", async () => {
  await using stub = await startStubProvider({
    "POST /token": [{ body: tokens }, { body: tokens }, dead],
    "GET /me": { body: { org: { id: "org-7" } } },
    "GET /org": { body: { name: "Acme" } },
  });
  const refresh = { fields: { refresh_token: "{refresh_token}", org: "{account.org}" } };
  const file = await stub.define({
    ...fetching,
    token: { url: `${stub.url}/token`, grants: { client_credentials: { refresh } } },
    after_connect: [
      { request: { url: `${stub.url}/me`, headers: { "x-org": null } }, capture: { org: "/org/id" } },
      { request: { url: `${stub.url}/org` }, pointer: "/name" },
    ],
    api: { base_url: `${stub.url}/orgs/{account.org}`, headers: { "x-org": "{account.org}", "x-app": "{client.id}" } },
  });
  const result = await runTry([file, "--client-id", "c-1"], { env });
  expect(result).toMatchObject({
    exitCode: 0,
    err: expect.stringMatching(/^no used refresh token is presented: .*\n$/),
  });
  expect(stub.called()).toEqual(["POST /token", "GET /me", "GET /org", "POST /token", "POST /token"]);
  expect(stub.calls.map(({ headers }) => headers["x-org"]).slice(0, 4)).toEqual([
    undefined,
    undefined,
    "org-7",
    undefined,
  ]);
  expect(stub.calls[3]?.fields).toMatchObject({ grant_type: "refresh_token", org: "org-7" });
  expect(result.out).toContain(`= base address: ${stub.url}/orgs/org-7\n`);
  expect(result.out).toContain("= header x-org: org-7\n= header x-app: c-1\n");
  expectNone(stub.secrets, result);
});

test("a lookup that fails does not keep the rest from being tried, and is the exit code", async () => {
  await using stub = await startStubProvider({
    "POST /token": { body: tokens },
    "GET /me": { status: 403, body: { message: "scope profile is missing" } },
    "POST /introspect": { body: { active: true, exp: 4_102_444_800 } },
    "POST /revoke": { body: {} },
  });
  const file = await stub.define({
    grants: ["client_credentials"],
    after_connect: lookups(stub.url),
    introspection: { url: `${stub.url}/introspect` },
    revocation: { url: `${stub.url}/revoke` },
  });
  const result = await runTry([file, ...offline, "--revoke"], { env });
  expect(result.exitCode).toBe(1);
  expect(result.err).toMatch(/^freshet: lookup 1 tells no account: the provider answered 403 \(try_failed\)\n$/);
  expect(result.out).toContain("! lookup 1 tells no account");
  expect(result.out).toContain("scope profile is missing");
  expect(result.out).toContain("= active, expires at 2100-01-01T00:00:00.000Z");
  expect(stub.called()).toEqual(["POST /token", "GET /me", "POST /introspect", "POST /revoke", "POST /revoke"]);
  expect(stub.calls.slice(3).map(({ fields }) => fields)).toEqual([
    { token: tokens.refresh_token, token_type_hint: "refresh_token" },
    { token: tokens.access_token, token_type_hint: "access_token" },
  ]);
  expectNone(stub.secrets, result);
});

const tokenOf = (name: string) => ({
  body: { access_token: `at-${name}-canary`, refresh_token: `rt-${name}-canary` },
});

test("a further token is exchanged for, and refreshed in its own way", async () => {
  await using stub = await startStubProvider({
    "POST /token": tokenOf("own"),
    "POST /exchange": tokenOf("user"),
  });
  const token = { url: `${stub.url}/token`, grants: { client_credentials: { refresh: {} } } };
  const exchange = { url: `${stub.url}/exchange` };
  const file = await stub.define({ ...fetching, token, response: { extra_tokens: [{ name: "user", exchange }] } });
  const result = await runTry([file, "--client-id", "c-1"], { env });
  expect(result).toMatchObject({ exitCode: 0 });
  expect(
    stub.calls.map(({ fields }) => [fields["grant_type"], fields["subject_token"] ?? fields["refresh_token"]]),
  ).toEqual([
    ["client_credentials", undefined],
    ["urn:ietf:params:oauth:grant-type:token-exchange", "at-own-canary"],
    ["refresh_token", "rt-own-canary"],
    ["refresh_token", "rt-user-canary"],
    ["refresh_token", expect.stringMatching(/^[\w-]{43}$/)],
  ]);
  expectNone(stub.secrets, result);
});

test("a refresh that is refused is told, and the walk goes on to its end", async () => {
  await using stub = await startStubProvider({
    "POST /token": [{ body: tokens }, { status: 400, body: { error: "invalid_grant" } }],
  });
  const file = await stub.define({ grants: ["password"] });
  const args = [file, "--client-id", "c-1", "--username", "ann", "--json"];
  const result = await runTry(args, { env: { ...env, FRESHET_PASSWORD: "password-canary" } });
  expect(result).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/\nfreshet: the refresh was refused \(try_failed\)\n$/),
  });
  expect(result.steps().map(({ step }) => step)).toEqual(
    "definition request answer read request answer read problem api request answer read".split(" "),
  );
  expect(result.steps()[6]).toMatchObject({ result: "refused", means: "needs_reauthorization" });
  expectNone(stub.secrets, result);
});

test("a dead refresh token whose refusal nobody understands is told with what to write", async () => {
  await using stub = await startStubProvider({
    "POST /token": [
      { body: tokens },
      { body: { ...tokens, refresh_token: "rt-2-canary" } },
      { status: 400, body: "" },
      { status: 400, body: { error: "invalid_grant" } },
    ],
    "POST /revoke": { body: {} },
  });
  const file = await stub.define({ grants: ["password"], revocation: { url: `${stub.url}/revoke` } });
  const args = [file, "--client-id", "c-1", "--username", "ann", "--revoke"];
  const result = await runTry(args, { env: { ...env, FRESHET_PASSWORD: "password-canary" } });
  expect(result.exitCode).toBe(0);
  expect(result.err).toBe(
    "a junk refresh token does not end a connection: nothing in the answer says that the grant is over. If this provider answers dead grants so, add a rule with means: needs_reauthorization under errors\n",
  );
  const sent = stub.calls.map(({ fields }) => fields["refresh_token"] ?? fields["token"]);
  expect(sent.slice(1, 2)).toEqual([tokens.refresh_token]);
  expect([tokens.refresh_token, "rt-2-canary"]).not.toContain(sent[2]);
  // The refresh before has spent it. The provider gives back the newest one.
  expect(sent.slice(3)).toEqual([tokens.refresh_token, "rt-2-canary", tokens.access_token]);
  expect(result.out).toMatch(/a junk refresh token read\n= refused: means transient/);
  expect(result.out).toMatch(/the used refresh token read\n= refused: means needs_reauthorization/);
  expectNone(stub.secrets, result);
});

test("a value that a later request lacks is named, and the grant is given back nevertheless", async () => {
  await using stub = await startStubProvider({ "POST /token": { body: tokens }, "POST /revoke": { body: {} } });
  const file = await stub.define({
    ...fetching,
    response: { capture: { domain: { pointer: "/domain", pattern: "^[a-z]+$" } } },
    api: { base_url: "https://{response.domain}.example.com" },
    revocation: { url: `${stub.url}/revoke` },
  });
  const result = await runTry([file, ...offline, "--revoke"], { env });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining("needs response.domain") });
  expect(stub.called()).toEqual(["POST /token", "POST /revoke", "POST /revoke"]);
});

test("a secret of a few characters is masked where it stands, and takes no words apart", async () => {
  await using stub = await startStubProvider({ "POST /token": { body: tokens } });
  const token = {
    url: `${stub.url}/token`,
    client_auth: "none",
    grants: { password: { fields: { login: "{credentials.username}", pin: "{credentials.password}" } } },
  };
  const file = await stub.define({ grants: ["password"], token });
  const args = [file, ...offline, "--username", "ann"];
  const result = await runTry(args, { env: { FRESHET_PASSWORD: "oke" } });
  expect(result.out).toContain("> grant_type=password&login=••••&pin=••••\n");
  expect(result.out).toContain("= access token: 11 characters");
});

test("a token that must reach an age first is not refreshed", async () => {
  await using stub = await startStubProvider({ "POST /token": { body: tokens } });
  const file = await stub.define({ ...fetching, refresh: { min_age_s: 570 } });
  const result = await runTry([file, "--client-id", "c-1"], { env });
  expect(result).toMatchObject({ exitCode: 0, err: expect.stringContaining("before 570 s are over") });
  expect(stub.calls).toHaveLength(1);
});

test("a provider that is not there is said to be not there", async () => {
  const stub = await startStubProvider({});
  const file = await stub.define(fetching);
  await stub[Symbol.asyncDispose]();
  const result = await runTry([file, ...offline], { env });
  expect(result).toMatchObject({ exitCode: 1, err: expect.stringContaining("ECONNREFUSED") });
  expect(result.out).toContain("< none: the provider could not be reached (ECONNREFUSED)");
});
