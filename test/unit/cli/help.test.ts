import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { run } from "./run.ts";

/** Every command with its parents' names, as the help lists them. */
async function commandsBelow(parents: string[]): Promise<string[][]> {
  const { out } = await run([...parents, "--help"]);
  const listed = out.split(/^Commands:\n/m)[1]?.split(/\n\n/)[0] ?? "";
  const names = [...listed.matchAll(/^ {2}([a-z]+)/gm)].map(([, name = ""]) => name).filter((name) => name !== "help");
  const all: string[][] = [];
  for (const name of names) all.push([...parents, name], ...(await commandsBelow([...parents, name])));
  return all;
}

test("every command's help ends with examples that call it, and docs/cli.md names every command", async () => {
  const commands = await commandsBelow([]);
  expect(commands.length).toBeGreaterThan(30);
  const docs = await readFile(new URL("../../../docs/cli.md", import.meta.url), "utf8");
  const groups = new Set(commands.filter(({ length }) => length > 1).map(([group]) => group));
  for (const command of commands) {
    const { out, err, exitCode } = await run([...command, "--help"]);
    expect({ err, exitCode }).toEqual({ err: "", exitCode: 0 });
    expect(out, command.join(" ")).toMatch(
      new RegExp(`^Examples?:\n(  freshet .+\n)*  freshet ${command.join(" ")}\\b`, "m"),
    );
    if (command.length === 1 && groups.has(command[0])) continue;
    expect(docs, command.join(" ")).toContain(`\`${command.join(" ")}`);
  }
});

test.each([
  [["connectoins"], /unknown command 'connectoins' \(Did you mean connections\?\)/],
  [["connections", "ad"], /unknown command 'ad' \(Did you mean add\?\)/],
  [["connections", "add", "a", "--provder", "bol"], /unknown option '--provder' \(Did you mean --provider\?\)/],
  [["clients", "add", "a", "--provder", "bol"], /unknown option '--provder' \(Did you mean --provider\?\)/],
  [["keys", "add", "a", "--abilty", "tokens"], /unknown option '--abilty' \(Did you mean --ability\?\)/],
  [["keys", "add", "a", "--ability", "token"], /must be one of tokens, connections, admin\. Did you mean "tokens"\?/],
  [["connect", "a", "--grant", "client_credential"], /Did you mean "client_credentials"\?/],
  [["connections", "list", "--status", "pendin"], /Did you mean "pending"\?/],
])("a mistyped word is answered with the one that was meant: %j", async (args, said) => {
  const result = await run(args, { env: { FRESHET_URL: "http://127.0.0.1:1" } });
  expect(result.exitCode).toBe(2);
  expect(result.err).toMatch(said);
});
