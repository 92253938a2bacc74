import { isDeepStrictEqual } from "node:util";

/** Where a code may be sent, and as whose: what it was asked for with. `clientId` null: the definition fixes it. */
export type CodeDestination = {
  provider: string;
  /** The row of the client, which a client of the same name that was made later is not. */
  clientRef: string | null;
  clientId: string | null;
  /** Those of connection and client together. */
  inputs: Record<string, string>;
};

/** Whether a code that was asked for at one goes where it would have gone. */
export function isSameCodeDestination(one: CodeDestination, other: CodeDestination): boolean {
  return isDeepStrictEqual(one, other);
}

/** Built in one way everywhere, so that two can be compared. */
export function codeDestinationOf(
  { provider, inputs }: { provider: string; inputs: Record<string, string> },
  client: { id: string; clientId: string; inputs: Record<string, string> } | null,
): CodeDestination {
  return {
    provider,
    clientRef: client?.id ?? null,
    clientId: client?.clientId ?? null,
    inputs: { ...inputs, ...client?.inputs },
  };
}
