import {
  defaultGrant,
  fixedClientId,
  type ConnectionGrant,
  type InputDefinition,
  type ProviderDefinition,
} from "../../src/providers/definition.ts";
import { inputOwners, needsClientSecret, requiredCredentials } from "../../src/providers/requirements.ts";

/** Commands to paste, for each grant that is offered. */
export function examples(definition: ProviderDefinition): string {
  const first = defaultGrant(definition);
  const others = definition.grants.filter((grant) => grant !== first && grant !== "import");
  const alternatives = others.map((grant) => `# or, with ${grant}:\n${commandsFor(definition, grant)}`);
  return ["```sh", [commandsFor(definition, first), ...alternatives].join("\n\n"), "```"].join("\n");
}

function commandsFor(definition: ProviderDefinition, grant: ConnectionGrant): string {
  const { id } = definition;
  const hasClient = fixedClientId(definition, grant) === null && grant !== "import";
  const owners = inputOwners({ definition, grant, hasClient });
  const client = [
    `freshet clients add my-${id} --provider ${id} --client-id CLIENT_ID`,
    needsClientSecret(definition, grant) ? "--client-secret-file secret.txt" : "--public",
    ...inputFlags(definition, owners.client),
  ];
  const connection = [
    `freshet connections add my-connection --provider ${id}`,
    ...(hasClient ? [`--client my-${id}`] : []),
    ...(grant === defaultGrant(definition) ? [] : [`--grant ${grant}`]),
    ...(requiredCredentials(definition, grant).length > 0 ? ["--username USER --password-file password.txt"] : []),
    ...inputFlags(definition, owners.connection),
  ];
  return [...(hasClient ? [client.join(" ")] : []), connection.join(" "), lastStep(definition, grant)].join(" &&\n  ");
}

function lastStep({ authorization }: ProviderDefinition, grant: ConnectionGrant): string {
  if (grant === "import") return "freshet import my-connection --file answer.json";
  if (grant === "client_credentials" || grant === "password") return "freshet token my-connection";
  const manual = grant === "authorization_code" && authorization?.manualCode ? " --manual" : "";
  return `freshet connect my-connection${manual}`;
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
