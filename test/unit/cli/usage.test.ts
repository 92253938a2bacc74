import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { readSettings } from "../../../src/cli/settings.ts";
import { run } from "./run.ts";
import { startStubBroker } from "./stub-broker.ts";

test.each([
  ["no command", [], /^Usage: freshet/],
  ["half a command", ["clients"], /^Usage: freshet clients/],
  ["an unknown command", ["clint"], /^freshet: unknown command 'clint'.* \(usage\)\n$/],
  [
    "help on an unknown command",
    ["help", "clint"],
    /^freshet: There is no command "clint"\. Did you mean "clients"\? "freshet help" names all \(usage\)\n$/,
  ],
  ["help on an unknown command of a group", ["help", "keys", "ad"], /There is no command "ad"\. Did you mean "add"\?/],
  ["an empty provider", ["connect", "a", "--provider", ""], /^freshet: --provider is empty: write --provider <id>, or/],
  ["an empty scope", ["connections", "update", "a", "--scope", ""], /^freshet: --scope is empty: write --scope <scope/],
  ["an unknown option", ["token", "a", "--nope"], /^freshet: unknown option '--nope' \(usage\)\n$/],
  ["a missing name", ["token"], /^freshet: missing required argument 'connection' \(usage\)\n$/],
  ["a missing option", ["keys", "add", "k"], /^freshet: Missing: --ability <tokens\|connections\|admin> \(usage\)\n$/],
  ["a number that is none", ["token", "a", "--wait", "1s"], /^freshet: .*whole number.* \(usage\)\n$/],
  ["a pair that is none", ["connections", "add", "a", "--provider", "p", "--label", "x"], /key=value\. \(usage\)\n$/],
  ["a name that a URL would drop", ["connections", "delete", ".."], /^freshet: "\.\." is not a name \(usage\)\n$/],
  ["an empty name", ["connections", "delete", ""], /^freshet: "" is not a name \(usage\)\n$/],
  ["a password without a name", ["connections", "add", "a", "--provider", "p", "--password-file", "-"], /--username/],
  [
    "a secret's file that is not there",
    ["import", "a", "--refresh-token-file", "/nope"],
    /\/nope cannot be read \(ENOENT\)/,
  ],
  ["an empty secret", ["import", "a", "--refresh-token-file", "-"], /stdin holds no secret/],
  ["two secrets on stdin", ["import", "a", "--refresh-token-file", "-", "--access-token-file", "-"], /Only one token/],
  ["an import of nothing", ["import", "a"], /No tokens/],
  ["no word on an account", ["connections", "confirm", "a"], /Give --accept or --decline/],
  ["both words on an account", ["connections", "confirm", "a", "--accept", "--decline"], /Give --accept or --decline/],
])("wrong usage is exit code 2 and nothing is sent: %s", async (_case, args, message) => {
  await using broker = await startStubBroker({});
  const result = await run(args, { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 2, out: "" });
  expect(result.err).toMatch(message);
  expect(broker.requests).toEqual([]);
});

test.each([
  [["connect", "a", "--input", "api_secret:canary"], "option '--input <key=value>': It must look like key=value."],
  [["connect", "a", "--label", "=canary"], "option '--label <key=value>': It must look like key=value."],
  [["connect", "a", "--timeout", "canary"], "option '--timeout <seconds>': It must be a whole number, 0 or more."],
  [
    ["connect", "a", "--secret-input", "api_secret=canary"],
    "option '--secret-input <name>': It must be the name alone.",
  ],
  [["clients", "update", "c", "--client-secret=canary'"], "unknown option '--client-secret'"],
  [["connections", "code", "a", "canary"], "too many arguments for 'code'. Expected 1 argument but got 2."],
])("what somebody may have typed by mistake is not quoted, since it may be a secret: %j", async (args, message) => {
  const result = await run(args);
  expect(result).toMatchObject({ exitCode: 2, out: "" });
  expect(result.err).toContain(`freshet: ${message}`);
  expect(result.err).not.toContain("canary");
});

test.each(["--help", "--version", "help", "help keys add", "keys help"])("%s is no failure", async (line) => {
  const result = await run(line.split(" "));
  expect(result).toMatchObject({ exitCode: 0, err: "" });
  expect(result.out).toMatch(/^(Usage: freshet|\d+\.\d+\.\d+)/);
});

test.each(["localhost:8080", "ftp://broker", "http://user:pw@broker", "http://broker/?a=b", "nonsense"])(
  "FRESHET_URL=%s is refused, without being quoted",
  async (address) => {
    const result = await run(["token", "a"], { env: { FRESHET_URL: address } });
    expect(result.exitCode).toBe(2);
    expect(result.err).toMatch(/^freshet: FRESHET_URL must be an address like/);
    expect(result.err).not.toContain("pw");
  },
);

test("a key that cannot be sent is refused without being quoted", async () => {
  const result = await run(["token", "a"], { env: { FRESHET_KEY: "canary\nkey" } });
  expect(result.exitCode).toBe(2);
  expect(result.err).not.toContain("canary");
});

test("with the broker away the address and the remedy are named", async () => {
  const { url } = await startStubBroker({}).then(async (broker) => {
    await broker[Symbol.asyncDispose]();
    return broker;
  });
  const result = await run(["clients", "list"], { env: { FRESHET_URL: url } });
  expect(result.exitCode).toBe(1);
  expect(result.err).toContain(`No broker answers at ${url} (ECONNREFUSED)`);
  expect(result.err).toMatch(/npm start.*FRESHET_URL.* \(broker_unreachable\)\n$/);
});

test.each([
  ["a page of a proxy", { status: 502, raw: "<html>Bad gateway</html>" }, 502],
  ["a page of another service", { status: 200, raw: "<html>Welcome</html>" }, 200],
])("an answer that is not a broker's says so: %s", async (_case, answer, status) => {
  await using broker = await startStubBroker({ "GET /clients": answer });
  const result = await run(["clients", "list"], { env: { FRESHET_URL: broker.url } });
  expect(result).toMatchObject({ exitCode: 1, out: "" });
  expect(result.err).toContain(`${broker.url} answered ${status}, but not as a broker does`);
});

test("the key is not taken along by a redirect", async () => {
  await using other = await startStubBroker({});
  await using broker = await startStubBroker({
    "GET /clients": { status: 302, headers: { location: `${other.url}/clients` } },
  });
  const result = await run(["clients", "list"], { env: { FRESHET_URL: broker.url } });
  expect(result.exitCode).toBe(1);
  expect(other.requests).toEqual([]);
});

test("a broker on this machine is called with the key file in its data folder, another one never", async () => {
  const dataDir = join((await temporaryFolder("cli")).path, "data");
  await mkdir(dataDir);
  await writeFile(join(dataDir, "admin-key"), "the-admin-key\n");
  const local = { DATA_DIR: dataDir };
  expect(readSettings(local).readKey()).toBe("the-admin-key");
  expect(readSettings({ ...local, FRESHET_URL: "http://127.0.0.1:9/" }).readKey()).toBe("the-admin-key");
  expect(readSettings({ ...local, FRESHET_KEY: "mine" }).readKey()).toBe("mine");
  const far = { ...local, ADMIN_KEY: "of-the-broker", FRESHET_URL: "https://broker.example.com" };
  expect(() => readSettings(far).readKey()).toThrow(/FRESHET_KEY/);
});

test("inside the image the broker's own secret file is the key", async () => {
  const file = join((await temporaryFolder("cli")).path, "admin_key");
  await writeFile(file, "from-a-secret");
  expect(readSettings({ ADMIN_KEY: "next-one,before-it", DATA_DIR: "/nowhere" }).readKey()).toBe("next-one");
  expect(readSettings({ ADMIN_KEY: "next-one\n", FRESHET_URL: "http://localhost:9\n" }).readKey()).toBe("next-one");
  expect(readSettings({ ADMIN_KEY_FILE: file, DATA_DIR: "/nowhere" }).readKey()).toBe("from-a-secret");
  expect(readSettings({ FRESHET_KEY_FILE: file, FRESHET_URL: "https://b.example" }).readKey()).toBe("from-a-secret");
});

test("the address needs no trailing slash and may have a path", () => {
  expect(readSettings({}).brokerUrl).toBe("http://localhost:8080");
  expect(readSettings({ FRESHET_URL: "https://b.example/freshet/" }).brokerUrl).toBe("https://b.example/freshet");
});

const urlWith = (HOST: string) => readSettings({ HOST }).brokerUrl;

test("without an address the broker is looked for where HOST has it listen on this machine", () => {
  expect(urlWith("::1")).toBe("http://[::1]:8080");
  expect(["0.0.0.0", "::", "broker.example.com", ""].map(urlWith)).toEqual(Array(4).fill("http://localhost:8080"));
});
