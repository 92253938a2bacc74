import { type Command, InvalidArgumentError } from "commander";
import { collectItems, segment, withSuggestion } from "../api-client.ts";
import { UsageError } from "../errors.ts";
import { collect, collectOf, collectPair, example } from "../options.ts";
import { type Column, warnOfUnconfirmed } from "../output.ts";
import { createQuestions, readInput } from "../questions.ts";
import { handle, type Cli, type Session } from "../session.ts";

const abilities = ["tokens", "connections", "admin"] as const;

type AddOptions = {
  issuer?: string;
  audience?: string;
  match?: Record<string, string[]>;
  algorithm?: string[];
  jwksFile?: string;
  jwksUri?: string;
  caFile?: string;
  network?: string[];
  ability?: string[];
  connection?: string[];
  label?: Record<string, string>;
  expiresAt?: string;
};

const columns: readonly Column[] = [
  ["NAME", "name"],
  ["ISSUER", "issuer"],
  ["AUDIENCE", "audience"],
  ["ABILITIES", "abilities"],
  ["CONNECTIONS", "connections"],
  ["LABELS", "labels"],
  ["EXPIRES", "expires_at"],
  ["DECLARED IN", "declared_in"],
];

/** `freshet workloads add|list|delete` */
export function addWorkloadCommands(program: Command, cli: Cli): void {
  const workloads = program
    .command("workloads")
    .description("callers that show a token of their platform (a JWT) instead of a key");
  example(workloads, "workloads list");
  const add = workloads
    .command("add <name>")
    .description("declare a workload: which tokens are its own, and what it may")
    .option("--issuer <iss>", "iss of its tokens, to the letter")
    .option("--audience <aud>", "what aud of its tokens holds, such as freshet")
    .option("--match <claim=pattern>", "a claim of its tokens, and what it must be; repeatable", collectMatch)
    .option("--algorithm <alg>", "how its tokens may be signed (default: RS256 and ES256); repeatable", collect)
    .option("--jwks-file <file>", "file that holds the issuer's public keys as a JWK Set, - for stdin")
    .option("--jwks-uri <url>", "where the issuer's public keys are (default: where its metadata say)")
    .option("--ca-file <file>", "file of certificates (PEM) that alone vouch for the issuer's server, - for stdin")
    .option("--network <cidr>", "where a private issuer may be reached, such as 10.0.0.0/8; repeatable", collect)
    .option("--ability <ability>", `${abilities.join(", ")}; repeatable`, collectOf(abilities))
    .option("--connection <pattern>", "connections that it is for, such as acme-*; repeatable", collect)
    .option("--label <key=value>", "only connections that carry this label; repeatable", collectPair)
    .option("--expires-at <time>", "when it ends, as 2027-01-31T00:00:00Z")
    .action(handle(cli, addWorkload));
  example(
    add,
    "workloads add deploy --issuer https://ci.example.com --audience freshet --match sub=project:shop --ability tokens --connection 'acme-*'",
  );
  const list = workloads
    .command("list")
    .description("those of WORKLOADS_FILE, then the others, newest first")
    .action(handle(cli, async ({ api, output }) => output.list(await collectItems(api(), "/workloads"), columns)));
  example(list, "workloads list --json");
  const remove = workloads
    .command("delete <name>")
    .description("delete a workload: its tokens are refused from then on")
    .action(handle(cli, deleteWorkload));
  example(remove, "workloads delete deploy");
}

/** A claim that is named again may have either pattern. */
function collectMatch(value: string, previous: Record<string, string[]> = {}): Record<string, string[]> {
  const at = value.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("It must look like claim=pattern.");
  const claim = value.slice(0, at);
  return { ...previous, [claim]: [...(previous[claim] ?? []), value.slice(at + 1)] };
}

async function addWorkload(session: Session, { args: [name = ""], options }: { args: string[]; options: AddOptions }) {
  const { api, output, terminal } = session;
  const questions = createQuestions(session);
  const ask = async (given: string | undefined, option: string, question: string) =>
    await questions.text(given, { option, question });
  const issuer = await ask(options.issuer, "--issuer <iss>", "Issuer (iss of its tokens): ");
  const audience = await ask(options.audience, "--audience <aud>", "Audience (aud of its tokens): ");
  const match = options.match ?? { sub: [await ask(undefined, "--match <claim=pattern>", "Subject (sub): ")] };
  const ability = options.ability ?? [
    await ask(undefined, `--ability <${abilities.join("|")}>`, `Ability (${abilities.join(", ")}): `),
  ];
  questions.requireAll();
  const { jwksFile, caFile } = options;
  const created = await api().post("/workloads", {
    name,
    issuer,
    audience,
    match,
    algorithms: options.algorithm,
    jwks: jwksFile === undefined ? undefined : readJwks(jwksFile, await readInput(jwksFile, terminal)),
    jwks_uri: options.jwksUri,
    ca: caFile === undefined ? undefined : await readInput(caFile, terminal),
    networks: options.network,
    abilities: ability,
    connections: options.connection,
    labels: options.label,
    expires_at: options.expiresAt,
  });
  output.done(`Workload ${name} is declared.`, created);
}

function readJwks(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`${file === "-" ? "stdin" : file} holds no JSON: a JWK Set is expected, {"keys": […]}`);
  }
}

async function deleteWorkload({ api, output }: Session, { args: [name = ""] }: { args: string[] }) {
  const unconfirmed = await api()
    .delete(`/workloads/${segment(name)}`)
    .catch(async (error: unknown) => {
      throw await withSuggestion(api(), error, { name, path: "/workloads" });
    });
  warnOfUnconfirmed(output, unconfirmed, "callers with its tokens");
  output.done(`Workload ${name} is deleted.`, { deleted: name });
}
