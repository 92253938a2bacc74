import { createServer } from "node:net";
import { once } from "node:events";
import { rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { run } from "./run.ts";
import { startStubProvider } from "./stub-provider.ts";
import { runTry } from "./try.ts";

const env = { FRESHET_CLIENT_SECRET: "client-secret-canary" };
type UsageCase = [name: string, definition: Record<string, unknown>, args: string[], message: RegExp];

const code = { authorization: { url: "https://id.example/auth", manual_code: false } };
const id = ["--client-id", "c-1"];

test.each([
  ["no client", code, [], /needs the client: --client-id/],
  ["a grant that is not offered", code, [...id, "--grant", "password"], /does not offer password/],
  ["a grant that there is not", code, [...id, "--grant", "implicit"], /must be one of authorization_code/],
  ["a port and a redirect URI", code, [...id, "--port", "1", "--redirect-uri", "https://a.example"], /--port is for/],
  ["a port that there is not", code, [...id, "--port", "70000"], /65535/],
  ["a redirect URI that is none", code, [...id, "--redirect-uri", "nonsense"], /must be a URI/],
  ["two redirect URIs", code, [...id, "--redirect-uri", "https://a.example", "--manual"], /leave out --redirect-uri/],
  ["a code that no page shows", code, [...id, "--manual"], /shows no code to copy/],
  [
    "secret and code on stdin",
    code,
    [...id, "--redirect-uri", "https://a.example", "--client-secret-file", "-"],
    /The code is pasted on stdin/,
  ],
  [
    "two secrets on stdin",
    { grants: ["password"] },
    [...id, "--client-secret-file", "-", "--password-file", "-", "--username", "a"],
    /Only one secret/,
  ],
  [
    "a port without a browser",
    { grants: ["client_credentials"] },
    [...id, "--port", "0"],
    /are for authorization_code/,
  ],
  ["an import without a refresh", { grants: ["import"] }, [...id, "--no-refresh"], /leave out --no-refresh/],
  ["an import of nothing", { grants: ["import"] }, id, /needs the refresh token: set FRESHET_REFRESH_TOKEN/],
  ["a password that nobody gave", { grants: ["password"] }, [...id, "--username", "a"], /needs the password/],
  [
    "an input that is lacking",
    { ...code, inputs: { shop: {} }, api: { headers: { s: "{inputs.shop}" } } },
    id,
    /inputs\.shop is required/,
  ],
  ["an input that there is not", code, [...id, "--input", "shop=1"], /has no input "shop"/],
  [
    "a secret as an argument",
    { ...code, inputs: { pin: { secret: true } } },
    [...id, "--input", "pin=canary-pin"],
    /^freshet: The input pin is a secret: set FRESHET_INPUT_PIN/,
  ],
  ["no token endpoint", { token: {} }, id, /only there to be extended/],
] as UsageCase[])(
  "wrong usage is exit code 2, and nothing is sent: %s",
  async (_case, ...[definition, args, message]) => {
    await using stub = await startStubProvider({});
    const result = await runTry([await stub.define(definition), ...args], { env });
    expect(result).toMatchObject({ exitCode: 2, out: "", err: expect.stringMatching(message) });
    expect(result.err).not.toContain("canary");
    expect(stub.calls).toEqual([]);
  },
);

test.each([
  ["no secret", {}, /--client-secret-file or FRESHET_CLIENT_SECRET/],
  ["networks that are none", { ...env, PROVIDER_NETWORKS: "10.0.0.0/99" }, /PROVIDER_NETWORKS must be a comma list/],
])("wrong surroundings are exit code 2, and nothing is sent: %s", async (_case, surroundings, message) => {
  await using stub = await startStubProvider({});
  const result = await runTry([await stub.define({ grants: ["client_credentials"] }), ...id], { env: surroundings });
  expect(result).toMatchObject({ exitCode: 2, out: "", err: expect.stringMatching(message) });
  expect(stub.calls).toEqual([]);
});

test("a key that is none is refused before anything is sent", async () => {
  await using stub = await startStubProvider({});
  const token = { url: `${stub.url}/token`, client_auth: "private_key_jwt" };
  const file = await stub.define({ grants: ["client_credentials"], token });
  const result = await runTry([file, ...id], { env });
  expect(result).toMatchObject({ exitCode: 2, err: expect.stringContaining("as PEM or JWK") });
  expect(stub.calls).toEqual([]);
});

test("a port that is taken is named", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  await using stub = await startStubProvider({});
  const result = await runTry([await stub.define(code), ...id, "--port", String(port)], { env });
  server.close();
  expect(result).toMatchObject({ exitCode: 2, err: expect.stringContaining(`Port ${port} cannot be listened on`) });
});

test("a file with faults is told as `providers check` tells it, and nothing is sent", async () => {
  await using stub = await startStubProvider({});
  const file = await stub.define({ grants: ["client_credentials"], nonsense: 1 });
  const result = await runTry([file, ...id], { env });
  expect(result).toMatchObject({ exitCode: 1, out: "", err: expect.stringMatching(/\(invalid_provider_file\)\n$/) });
  expect(result.err).toContain(`${file}:`);
  expect(stub.calls).toEqual([]);
});

test.each([
  ["check", ["providers", "check"]],
  ["try", ["providers", "try", ...id]],
])("a file that is not there is said once by `providers %s`, and not to be wrong in places", async (_name, args) => {
  const result = await run([...args, "/nowhere/own.yaml"], { env });
  const message = "/nowhere/own.yaml: cannot be read (ENOENT)";
  expect(result).toEqual({ exitCode: 1, out: "", err: `freshet: ${message} (invalid_provider_file)\n` });
});

test("`providers check` tells each fault and how many, with --json as one document", async () => {
  await using stub = await startStubProvider({});
  const file = await stub.define({ grants: ["client_credentials"], nonsense: 1, rubbish: 2 });
  const { exitCode, out, err } = await run(["providers", "check", file]);
  expect({ exitCode, out }).toEqual({ exitCode: 1, out: "" });
  expect(err.match(/unknown setting/g)).toHaveLength(2);
  expect(err).toMatch(/ is wrong in 2 places \(invalid_provider_file\)\n$/);
  const json = await run(["--json", "providers", "check", file]);
  expect(JSON.parse(json.out)).toEqual({ file, problems: [expect.any(String), expect.any(String)] });
  expect(json.err).not.toContain("unknown setting");
});

test("`providers check` gives a hint for a file that is right and does not state what ends a grant", async () => {
  await using stub = await startStubProvider({});
  const silent = await stub.define({ grants: ["import"] });
  const surroundings = { env: { PROVIDER_NETWORKS: "127.0.0.0/8" } };
  const check = async (file: string, ...args: string[]) =>
    await run(["providers", "check", file, ...args], surroundings);
  const hint = /^hint: refresh\.dead_grant: is not stated, so .*docs\/write-a-provider\.md\)\n$/;
  expect(await check(silent)).toEqual({
    exitCode: 0,
    out: `${silent} is right.\n`,
    err: expect.stringMatching(hint),
  });
  const json = await check(silent, "--json");
  expect(JSON.parse(json.out)).toEqual({ file: silent, problems: [], hints: [expect.stringContaining("dead_grant")] });
  const refresh = { dead_grant: [{ status: 400, body: { error: "invalid_grant" } }] };
  const stating = await stub.define({ grants: ["import"], refresh });
  expect(await check(stating)).toEqual({
    exitCode: 0,
    out: `${stating} is right.\n`,
    err: "",
  });
});

test("a file may extend one of PROVIDERS_DIR that extends others, and a built-in file is read as it stands", async () => {
  await using stub = await startStubProvider({ "POST /token": { body: { access_token: "at-canary" } } });
  const base = await stub.define({ id: "base", extends: "oauth2", grants: ["client_credentials"] });
  const folder = dirname(base);
  await rename(await stub.define({ id: "middle", extends: "base", token: {} }), join(folder, "middle.yaml"));
  const file = await stub.define({ id: "above", extends: "middle", name: "Above", token: {} });
  const surroundings = { ...env, PROVIDERS_DIR: folder };
  const result = await runTry([file, ...id, "--no-refresh"], { env: surroundings });
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(result.out).toContain("is right: Above (above), grant client_credentials");
  const builtin = await runTry(["providers/oauth2.yaml", ...id], { env });
  expect(builtin.err).toContain("only there to be extended");
});
