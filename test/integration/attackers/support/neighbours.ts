import type { BrokerApi } from "../../../support/broker-api.ts";
import { type Canary, findCanaries, type Place } from "../../../support/canaries.ts";
import type { StrictServer } from "../../../support/providers/strict-server.ts";

/** Reads of connections that nobody attacks, one round after each step of an attack: all must get their tokens. */
export async function readNeighbours(api: BrokerApi, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const { status, body } = await api.token(name);
    if (status !== 200) throw new Error(`the attack holds up ${name}: ${status} ${JSON.stringify(body)}`);
  }
}

/** What a provider issued and what its client proves itself with, in the answers that an attacker got. Empty is right. */
export function stolenFrom(server: StrictServer, answers: readonly Place[]): string[] {
  const tokens: Canary[] = server.ledger.tokens.map(({ kind, value }) => ({ what: `${kind} token`, value }));
  return findCanaries([...tokens, { what: "client secret", value: server.client.secret }], [...answers]);
}
