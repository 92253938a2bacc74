import {
  type ConnectionGrant,
  defaultGrant,
  fixedClientId,
  type InputDefinition,
  type ProviderDefinition,
} from "../../src/providers/format/definition.ts";
import { inputOwners, needsClientSecret, requiredCredentials } from "../../src/providers/format/requirements.ts";

/** Commands to paste, for each grant that is offered. */
export function examples(definition: ProviderDefinition): string {
  const first = defaultGrant(definition);
  const others = definition.grants.filter((grant) => grant !== first && grant !== "import");
  const alternatives = others.map((grant) => `# or, with ${grant}:\n${commandsFor(definition, grant)}`);
  return ["```sh", [commandsFor(definition, first), ...alternatives].join("\n\n"), "```"].join("\n");
}

/** One line makes the client and the connection, and has it connected; tokens from elsewhere are handed over in a second one. */
function commandsFor(definition: ProviderDefinition, grant: ConnectionGrant): string {
  const { id, authorization } = definition;
  const isImport = grant === "import";
  const hasClient = fixedClientId(definition, grant) === null && !isImport;
  const owners = inputOwners({ definition, grant, hasClient });
  const isManual = grant === "authorization_code" && authorization?.manualCode === true;
  const line = [
    `freshet ${isImport ? "connections add" : "connect"} my-connection --provider ${id}`,
    ...(grant === defaultGrant(definition) ? [] : [`--grant ${grant}`]),
    ...(hasClient ? ["--client-id CLIENT_ID"] : []),
    ...(hasClient && needsClientSecret(definition, grant) ? ["--client-secret-file secret.txt"] : []),
    ...(requiredCredentials(definition, grant).length > 0 ? ["--username USER --password-file password.txt"] : []),
    ...inputFlags(definition, owners.client),
    ...inputFlags(definition, owners.connection),
    ...(isManual ? ["--manual"] : []),
  ];
  const next = isImport ? "freshet import my-connection --file answer.json" : "freshet token my-connection";
  return `${line.join(" ")} &&\n  ${next}`;
}

function standsByItself({ default: usual, generate, optional }: InputDefinition): boolean {
  return usual !== undefined || generate !== undefined || optional === true;
}

/** Those that nothing stands in for. */
function inputFlags(definition: ProviderDefinition, names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const input = definition.inputs[name];
    if (input === undefined || standsByItself(input)) return [];
    return [`--input ${name}=${input.enum?.[0] ?? name.toUpperCase()}`];
  });
}
