import { execFile } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { generateSource } from "oazapfts";
import { generate } from "openapi-typescript-codegen";
import { expect, test } from "vitest";
import { until } from "../support/patience.ts";
import { startBroker } from "../support/broker-process.ts";
import { temporaryFolder } from "../support/services/guardian.ts";

const modules = resolve(import.meta.dirname, "../../node_modules");
const run = promisify(execFile);

/** What a user writes against each client. The lines that the type checker must refuse show that its types say something. */
const programs = {
  "with-oazapfts.ts": `
    import { defaults, getToken, listConnections, type ConnectionStatus } from "./oazapfts";
    async function main([url = "", key = ""]: string[]) {
      defaults.baseUrl = url;
      defaults.headers = { authorization: \`Bearer \${key}\` };
      const token = await getToken("acme");
      if (token.status !== 200) throw new Error(token.data.code);
      const text: string = token.data.access_token;
      // @ts-expect-error: the connection is required
      void (() => getToken());
      // @ts-expect-error: there is no such field
      void token.data.acces_token;
      const unknown = await getToken("nowhere");
      const page = await listConnections();
      const status: ConnectionStatus | undefined = page.status === 200 ? page.data.items[0]?.status : undefined;
      console.log(JSON.stringify([text, unknown.status === 404 && unknown.data.code, status]));
    }
    void main(process.argv.slice(2));`,
  "with-openapi-typescript-codegen.ts": `
    import { ApiError, ConnectionsService, OpenAPI, TokensService, type Connection, type Token } from "./codegen";
    async function main([url = "", key = ""]: string[]) {
      OpenAPI.BASE = url;
      OpenAPI.TOKEN = key;
      const token: Token = await TokensService.getToken("acme");
      const text: string = token.access_token;
      // @ts-expect-error: the connection is required
      void (() => TokensService.getToken());
      // @ts-expect-error: there is no such field
      void token.acces_token;
      const code = await TokensService.getToken("nowhere").catch((error: ApiError) => error.body.code);
      const [connection]: Connection[] = (await ConnectionsService.listConnections()).items;
      console.log(JSON.stringify([text, code, connection?.status]));
    }
    void main(process.argv.slice(2));`,
};

const settings = {
  compilerOptions: {
    strict: true,
    target: "ES2022",
    lib: ["ES2022", "DOM", "DOM.Iterable"],
    module: "nodenext",
    types: ["node"],
    outDir: "out",
    rootDir: ".",
  },
  include: ["*.ts", "codegen"],
};

test("two generators make clients of /openapi.json that compile, and read a token with the connection's name alone", async () => {
  await using broker = await startBroker({ env: { SANDBOX: "true" } });
  // A start makes the sandbox's client beside serving.
  await until("the sandbox is there", async () => (await broker.api.api("/clients/sandbox")).status === 200);
  await broker.api.createConnection({ name: "acme", provider: "sandbox", client: "sandbox", grant: "import" });
  await broker.api.importTokens("acme", { access_token: "the-token", expires_in: 86_400 });
  const key = await broker.api.createKey({ name: "app", abilities: ["tokens", "connections"], connections: ["acme*"] });

  const folder = await temporaryFolder("clients");
  const document = join(folder.path, "openapi.json");
  await writeFile(document, await (await fetch(`${broker.url}/openapi.json`)).text());
  await writeFile(join(folder.path, "oazapfts.ts"), await generateSource(document));
  const output = join(folder.path, "codegen");
  await mkdir(output);
  await generate({ input: document, output, httpClient: "fetch" });

  await symlink(modules, join(folder.path, "node_modules"));
  await writeFile(join(folder.path, "package.json"), "{}");
  await writeFile(join(folder.path, "tsconfig.json"), JSON.stringify(settings));
  for (const [name, source] of Object.entries(programs)) await writeFile(join(folder.path, name), source);
  const compiled = await run(process.execPath, [join(modules, "typescript/bin/tsc"), "-p", folder.path]).catch(
    (error: { stdout: string }) => error,
  );
  expect(compiled.stdout).toBe("");

  for (const name of Object.keys(programs)) {
    const program = join(folder.path, "out", name.replace(/\.ts$/, ".js"));
    const { stdout } = await run(process.execPath, [program, broker.url, key]);
    expect([name, JSON.parse(stdout)]).toEqual([name, ["the-token", "connection_not_found", "connected"]]);
  }
  await folder.remove();
});
