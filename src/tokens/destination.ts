import type { ProviderDefinition } from "../providers/definition.ts";
import { hostInputs } from "../providers/requirements.ts";
import type { ClientRow } from "../store/clients.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { Destination } from "../vault/envelope.ts";
import type { AnswerRecord } from "./answer-record.ts";
import type { EntrustedPlace, TokenPlace, TokenVault } from "../vault/token-vault.ts";

type Bound = Pick<TokenRow, "name" | "parentId" | "provider" | "clientRef" | "inputsInForce">;
type Captures = Pick<TokenRow, "captured" | "accountCaptured">;
const none: Captures = { captured: {}, accountCaptured: {} };

/**
 * Where the secrets of a connection are sent, as far as it is decided by what stands in rows: the vault seals for it, and opens
 * for no other. `hosts`: the inputs that fill a host by the definition as it is now; for opening, the record names its own.
 */
export function destinationOf(row: Bound & Captures, hosts: readonly string[] = []): Destination {
  const { name, parentId: parent, provider, clientRef: client, inputsInForce: inputs } = row;
  return { name, parent, provider, client, inputs, hosts, captured: row.captured, account: row.accountCaptured };
}

/** Where the tokens of a row lie. */
export function placeOf(row: Bound & Captures & Pick<TokenRow, "id" | "generation">): TokenPlace {
  return { connectionId: row.id, generation: row.generation, destination: destinationOf(row) };
}

/** What a connection was entrusted with outlives what a grant brings: it is bound to none of that. */
export function entrustedPlace(
  row: Bound & Pick<TokenRow, "id">,
  { revision, hosts = [] }: { revision: number; hosts?: readonly string[] },
): EntrustedPlace {
  return { connectionId: row.id, revision, destination: entrustedDestination(row, hosts) };
}

export function entrustedDestination(row: Bound, hosts: readonly string[] = []): Destination {
  return destinationOf({ ...row, ...none }, hosts);
}

/** The same of what was granted, to be kept with it: of the inputs those that fill a host. */
export function grantedFor(row: Bound, hosts: readonly string[]): AnswerRecord["destination"] {
  const { captured: _, account: __, inputs, ...rest } = entrustedDestination(row, hosts);
  return { ...rest, inputs: Object.fromEntries(Object.entries(inputs).filter(([name]) => hosts.includes(name))) };
}

/** Whether what was granted may be sent where requests of this owner go now. */
export function mayBeSentTo(
  { destination }: Pick<AnswerRecord, "destination">,
  owner: Omit<Bound, "parentId">,
  definition: ProviderDefinition,
): boolean {
  const { name, provider, client } = destination;
  const hosts = hostInputs(definition);
  return (
    name === owner.name &&
    provider === owner.provider &&
    client === owner.clientRef &&
    hosts.every((host) => destination.inputs[host] === owner.inputsInForce[host])
  );
}

/** All inputs of a client decide hosts. */
export function clientDestination({
  id,
  name,
  provider,
  inputs,
}: Pick<ClientRow, "id" | "name" | "provider" | "inputs">): Destination {
  return { name, parent: null, provider, client: id, inputs, hosts: Object.keys(inputs), captured: {}, account: {} };
}

/**
 * What was captured of a row, as far as one of its tokens vouches for it. Nothing else binds it, and it may fill a host: without
 * a token it counts as not captured.
 */
export function provenCaptures(
  vault: Pick<TokenVault, "openAccessToken" | "openRefreshToken">,
  row: Parameters<typeof placeOf>[0] & Pick<TokenRow, "accessToken" | "refreshToken">,
): Captures {
  const { captured, accountCaptured, accessToken, refreshToken } = row;
  if (Object.keys(captured ?? {}).length + Object.keys(accountCaptured ?? {}).length === 0) return none;
  const place = placeOf(row);
  const opens =
    vouches(refreshToken, (record) => vault.openRefreshToken(record, place)) ||
    vouches(accessToken, (record) => vault.openAccessToken(record, place));
  return opens ? { captured, accountCaptured } : none;
}

function vouches(record: Uint8Array | null, open: (record: Uint8Array) => string): boolean {
  try {
    return record !== null && typeof open(record) === "string";
  } catch {
    return false;
  }
}
