import { segment, type ApiClient } from "./api-client.ts";
import { CliError, UsageError } from "./errors.ts";
import type { Misfit } from "./questions.ts";
import { isResource, textOf, type Resource } from "./resource.ts";

/** What has to be given to connect an account by one grant, as `GET /providers/:provider` says. */
type GrantNeeds = {
  client: boolean;
  clientSecret: boolean;
  clientInputs: string[];
  inputs: string[];
  credentials: string[];
};

type InputFacts = { description: string; isSecret: boolean; allowed: string[]; misfit: Misfit };

/** A provider as the command line sees it. */
export type Provider = {
  id: string;
  name: string;
  grants: string[];
  defaultGrant: string;
  redirectUri: string;
  /** How to register a client there, in the definition's own words; empty: it does not say. */
  register: string;
  /** @throws UsageError for a grant that it does not offer */
  needs: (grant: string) => GrantNeeds;
  /** Inputs that a client needs for every grant type. */
  inputsOfEveryClient: string[];
  /** False: no grant makes use of a client's secret. */
  takesSecret: boolean;
  input: (name: string) => InputFacts;
};

/** The provider; null: this key may not see definitions, which takes `admin`. @throws CliError not_found for an unknown one */
export async function readProvider(api: ApiClient, id: string): Promise<Provider | null> {
  try {
    return describe(await api.get(`/providers/${segment(id)}`));
  } catch (error) {
    if (error instanceof CliError && error.code === "forbidden") return null;
    throw error;
  }
}

function describe(answer: Resource): Provider {
  const definition = mapOf(answer["definition"]);
  const inputs = mapOf(definition["inputs"]);
  const grants = textsOf(answer["grants"]);
  const all = grants.map((grant) => readNeeds(mapOf(answer["needs"])[grant])).filter((needs) => needs?.client === true);
  const [first, ...others] = all;
  return {
    id: textOf(answer["id"]),
    name: textOf(answer["name"]),
    grants,
    defaultGrant: textOf(answer["default_grant"]),
    redirectUri: textOf(answer["redirect_uri"]),
    register: textOf(mapOf(definition["guide"])["register"]).trim(),
    needs(grant) {
      const needs = readNeeds(mapOf(answer["needs"])[grant]);
      if (needs !== null) return needs;
      throw new UsageError(`${textOf(answer["id"])} does not offer --grant ${grant}; it offers ${grants.join(", ")}`);
    },
    inputsOfEveryClient: (first?.clientInputs ?? []).filter((input) =>
      others.every((needs) => needs?.clientInputs.includes(input)),
    ),
    takesSecret: all.some((needs) => needs?.clientSecret),
    input(name) {
      const input = mapOf(inputs[name]);
      return {
        description: textOf(input["description"]),
        isSecret: input["secret"] === true,
        allowed: textsOf(input["enum"]),
        misfit: misfitOf(name, input),
      };
    },
  };
}

/** Checks a value as the broker does. Its definitions have been checked, so their patterns compile. */
function misfitOf(name: string, { enum: values, pattern, description }: Resource): Misfit {
  const allowed = textsOf(values);
  const hint = textOf(description) === "" ? "" : ` (${textOf(description)})`;
  return (answer) => {
    if (allowed.length > 0 && !allowed.includes(answer)) return `${name} must be one of ${allowed.join(", ")}`;
    const fits = textOf(pattern) === "" || new RegExp(textOf(pattern), "u").test(answer);
    return fits ? null : `${name} must match ${textOf(pattern)}${hint}`;
  };
}

function readNeeds(needs: unknown): GrantNeeds | null {
  if (!isResource(needs)) return null;
  return {
    client: needs["client"] === true,
    clientSecret: needs["client_secret"] === true,
    clientInputs: textsOf(needs["client_inputs"]),
    inputs: textsOf(needs["inputs"]),
    credentials: textsOf(needs["credentials"]),
  };
}

function mapOf(value: unknown): Resource {
  return isResource(value) ? value : {};
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(textOf) : [];
}
