import { describe, expect, it } from "vitest";
import type { ClientRow } from "../../../src/store/clients.ts";
import { createEstablish } from "../../../src/tokens/establish.ts";
import { define } from "../providers/definitions.ts";
import { tokenRow } from "./token-row.ts";

const row = tokenRow({ inputs: { shop: "north" } });
const client = { id: "c-1", clientId: "app", inputs: { domain: "a.example" } } as unknown as ClientRow;
const destination = {
  provider: row.provider,
  clientRef: "c-1",
  clientId: "app",
  inputs: { shop: "north", domain: "a.example" },
};
const exchange = {
  connectionId: row.id,
  code: "code",
  codeVerifier: "verifier",
  redirectUri: null,
  captured: {},
  idToken: { nonce: null, issuer: null },
  cannotWait: false,
};

/** What is about to be sent is made from this client; whatever is asked of the provider is noted. */
function establishWith(now: ClientRow | null) {
  const asked: string[] = [];
  const parts = {
    rows: { readById: async () => row },
    granting: {
      prepare: async () => ({ row, owner: row, client: now, definition: define(""), clientSecrets: [] }),
      ask: async (_sendable: unknown, grant: string) => {
        asked.push(grant);
        return { kind: "failed", failure: { class: "refused_for_now", code: "provider_unavailable", detail: "" } };
      },
    },
  };
  return { asked, establish: createEstablish(parts as unknown as Parameters<typeof createEstablish>[0]) };
}

describe("a code", () => {
  it.each([
    ["another row of the same name", { ...client, id: "c-2" }],
    ["another client id", { ...client, clientId: "other" }],
    ["another host", { ...client, inputs: { domain: "b.example" } }],
    ["no host", { ...client, inputs: {} }],
    ["no client", null],
  ])("is sent nowhere when the client that it is about to be sent for is by now %s", async (_what, now) => {
    const { asked, establish } = establishWith(now);
    await expect(establish.exchangeCode({ ...exchange, destination })).rejects.toMatchObject({ code: "conflict" });
    expect(asked).toEqual([]);
  });

  it("is sent when all is as it was", async () => {
    const { asked, establish } = establishWith(client);
    await expect(establish.exchangeCode({ ...exchange, destination })).rejects.toThrow();
    expect(asked).toEqual(["authorization_code"]);
  });
});
