import { describe, expect, it } from "vitest";
import type { ClientRow } from "../../../src/store/clients.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { createAuthorizations } from "../../../src/tokens/person-grant.ts";
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
  code: "code",
  codeVerifier: "verifier",
  redirectUri: null,
  captured: {},
  idToken: { nonce: null, issuer: null },
  cannotWait: false,
};

/** Requests are made from this client. Everything that the provider is asked is noted. */
function establishWith(now: ClientRow | null, status: TokenRow["status"] = row.status) {
  const connection = { row: { ...row, status }, client: now };
  const asked: string[] = [];
  const parts = {
    sender: {
      prepareWithFurtherTokens: async () => ({
        row,
        owner: row,
        client: now,
        definition: define(""),
        clientSecrets: [],
      }),
    },
    personGrants: {
      ask: async (_context: unknown, grant: string) => {
        asked.push(grant);
        return { kind: "failed", failure: { class: "refused_for_now", code: "provider_unavailable", detail: "" } };
      },
    },
  };
  const authorizations = createAuthorizations(parts as unknown as Parameters<typeof createAuthorizations>[0]);
  return { asked, exchanging: authorizations.exchangeCode({ ...exchange, connection, destination }) };
}

describe("a code", () => {
  it.each([
    ["another row of the same name", { ...client, id: "c-2" }],
    ["another client id", { ...client, clientId: "other" }],
    ["another host", { ...client, inputs: { domain: "b.example" } }],
    ["no host", { ...client, inputs: {} }],
    ["no client", null],
  ])("is sent nowhere when the client that it is about to be sent for is by now %s", async (_what, now) => {
    const { asked, exchanging } = establishWith(now);
    await expect(exchanging).rejects.toMatchObject({ code: "conflict" });
    expect(asked).toEqual([]);
  });

  it("is sent nowhere when its connection is disabled by now", async () => {
    const { asked, exchanging } = establishWith(client, "disabled");
    await expect(exchanging).rejects.toMatchObject({
      code: "connection_disabled",
    });
    expect(asked).toEqual([]);
  });

  it("is sent when all is as it was", async () => {
    const { asked, exchanging } = establishWith(client);
    await expect(exchanging).rejects.toThrow();
    expect(asked).toEqual(["authorization_code"]);
  });
});

describe("a grant that takes the place of one whose account is known", () => {
  const noLookup = "token: { url: https://login.example/token, grants: { authorization_code: { after_connect: [] } } }";
  const head = "id: own\nauthorization: { url: https://login.example/authorize }";

  it.each([
    ["compared where its grant looks the account up", define("after_connect: [{ value: x }]"), "held"],
    [
      "kept at once where its grant looks up nothing",
      define(`${noLookup}\nafter_connect: [{ value: x }]`, head),
      "code",
    ],
    ["kept at once where no grant does", define(""), "code"],
  ])("is %s", async (_what, definition, kind) => {
    const known = { ...row, account: "ada" };
    const kept: string[] = [];
    const grant = { accessToken: "at", refreshToken: null, captured: {} };
    const parts = {
      personGrants: {
        records: () => [{ record: { kind: "code", grant, attemptId: "a-1" }, grant }],
        storeGrants: async ([own]: { record: { kind: string } }[]) => {
          kept.push(own?.record.kind ?? "");
          throw new Error("enough is known");
        },
      },
    };
    const authorizations = createAuthorizations(parts as unknown as Parameters<typeof createAuthorizations>[0]);
    const context = { row: known, owner: known, definition, client: null, clientSecrets: [] };
    const given = { captured: {}, redirectUri: null, linkId: null };
    await expect(authorizations.storeGrant(context as never, grant as never, given)).rejects.toThrow("enough is known");
    expect(kept).toEqual([kind]);
  });
});
