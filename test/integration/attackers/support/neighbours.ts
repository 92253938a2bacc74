import type { BrokerApi } from "../../../support/broker-api.ts";
import { type Canary, findCanaries, type Place } from "../../../support/canaries.ts";
import type { StrictServer } from "../../../support/providers/strict-server.ts";

/** Reads connections that nobody attacks, once after each step of an attack. All must get their tokens. */
export async function readNeighbours(api: BrokerApi, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const { status, body } = await api.token(name);
    if (status !== 200) throw new Error(`the attack holds up ${name}: ${status} ${JSON.stringify(body)}`);
  }
}

/** Tokens that a provider issued, and secrets of its client, that an attacker has got in answers. It must be empty. */
export function stolenFrom(server: StrictServer, answers: readonly Place[]): string[] {
  const tokens: Canary[] = server.ledger.tokens.map(({ kind, value }) => ({ what: `${kind} token`, value }));
  return findCanaries([...tokens, { what: "client secret", value: server.client.secret }], [...answers]);
}
