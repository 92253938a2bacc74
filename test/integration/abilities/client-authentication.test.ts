import { createPublicKey, createVerify, generateKeyPairSync, type KeyObject } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../../support/broker-process.ts";
import { freePort } from "../../support/free-port.ts";
import { type OidcPeer, startOidcPeer } from "../../support/oidc-peer.ts";
import { basicCredentials } from "../../support/providers/call.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import { describeWithServices, useDatabase } from "../../support/services/index.ts";
import { walkConsent } from "../../support/walk-consent.ts";
import { claimsOf, DoorServer } from "./support/door-server.ts";
import { authorityFile, pem, startGuardedServer } from "./support/guarded-server.ts";

const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const smallRsa = generateKeyPairSync("rsa", { modulusLength: 1024 });
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const pkcs8 = (key: KeyObject) => String(key.export({ type: "pkcs8", format: "pem" }));
const jwk = (key: KeyObject, more: Record<string, unknown>) => ({ ...key.export({ format: "jwk" }), ...more });
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

function signedBy(key: KeyObject, assertion: string): boolean {
  const [header, payload, signature = ""] = assertion.split(".");
  const verify = createVerify("sha256").update(`${header}.${payload}`);
  return verify.verify({ key: createPublicKey(key), dsaEncoding: "ieee-p1363" }, signature, "base64url");
}

const doors = new DoorServer({
  jwt: (_call, fields) => (signedBy(rsa.privateKey, fields.get("client_assertion") ?? "") ? null : "not signed"),
  header: (call) => (call.headers["x-api-key"] === "door-secret-55e1" ? null : "no key"),
  templated: (call) => (call.headers["x-client"] === "Key door-client/door-secret-55e1" ? null : "no key"),
  pair: (call) =>
    basicCredentials(call)?.id === "door-secret-55e1" && basicCredentials(call)?.secret === "" ? null : "no pair",
  encoded: (call) => (basicCredentials(call)?.secret === "s%2Fp+c%3Aial" ? null : "not encoded"),
});

const peers: OidcPeer[] = [];
let guarded: Awaited<ReturnType<typeof startGuardedServer>>;
let broker: BrokerProcess;

/** Metadata of a client that signs. */
const signing = (alg: string, key: Record<string, unknown>) => ({
  token_endpoint_auth_method: "private_key_jwt",
  token_endpoint_auth_signing_alg: alg,
  client_secret: undefined,
  jwks: { keys: [key] },
});

/** Peers of oidc-provider that know the client by its public key; one of them takes pushed requests alone. */
async function startPeers(port: number): Promise<OidcPeer[]> {
  const par = { pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true } };
  const options = [
    { id: "rs256", client: signing("RS256", jwk(rsa.publicKey, {})), features: {} },
    { id: "es256", client: signing("ES256", jwk(ec.publicKey, { kid: "one" })), features: par },
    { id: "pushed", client: {}, features: par },
  ];
  return await Promise.all(
    options.map(({ id, features, ...rest }) =>
      startOidcPeer({
        ...rest,
        redirectUris: [`http://127.0.0.1:${port}/callback/${id}`],
        configuration: { features },
      }),
    ),
  );
}

function define([rs256, es256, pushed]: OidcPeer[]) {
  const oidc = { extends: "oidc" };
  const jwt = { client_auth: "private_key_jwt" };
  return [
    { ...oidc, id: "rs256", issuer: rs256?.origin, token: jwt },
    {
      ...oidc,
      id: "es256",
      issuer: es256?.origin,
      token: { ...jwt, assertion: { alg: "ES256", audience: "issuer", life_s: 30 } },
      authorization: { pushed: {} },
    },
    { ...oidc, id: "pushed", issuer: pushed?.origin, authorization: { pushed: {} } },
    doors.definition("jwt", jwt),
    doors.definition("header", { client_auth: { header: "X-Api-Key" } }),
    doors.definition("templated", { client_auth: { header: "X-Client", value: "Key {client.id}/{client.secret}" } }),
    doors.definition("pair", { client_auth: { basic: "{client.secret}:" } }),
    doors.definition("encoded", { client_auth: "basic", basic_percent_encoding: true }),
    {
      id: "tls",
      extends: "oauth2",
      grants: ["client_credentials"],
      token: { url: `${guarded.origin}/token`, client_auth: "tls" },
    },
  ];
}

/** The client that the doors know, unless `client_id` names another one. It has the name of its provider. */
async function addClient(provider: string, client_secret: string, client_id = doors.client.id) {
  await broker.api.createClient({ name: provider, provider, client_id, client_secret });
}

/** A connection of client credentials, with its first token. */
async function connect(provider: string, client = provider) {
  await broker.api.createConnection({ name: client, provider, client, grant: "client_credentials" });
  const { status, body } = await broker.api.token(client);
  return [status, body.code ?? body.access_token];
}

describeWithServices(["postgres"], "client authentication", () => {
  beforeAll(async () => {
    const port = await freePort();
    [guarded] = await Promise.all([startGuardedServer(), doors.start()]);
    peers.push(...(await startPeers(port)));
    broker = await startBroker({
      port,
      databaseUrl: await useDatabase(),
      providersDir: await providersFolder({ definitions: () => define(peers) }),
      env: { NODE_EXTRA_CA_CERTS: authorityFile },
    });
  });
  afterAll(async () => {
    await broker[Symbol.asyncDispose]();
    await Promise.all([guarded.stop(), doors.stop(), ...peers.map((peer) => peer[Symbol.asyncDispose]())]);
  });

  it("oidc-provider takes a private key, as PEM with RS256 and as JWK with ES256, at consent and at each refresh", async () => {
    for (const [index, secret] of [
      pkcs8(rsa.privateKey),
      JSON.stringify(jwk(ec.privateKey, { kid: "one" })),
    ].entries()) {
      const peer = peers[index] as OidcPeer;
      const id = ["rs256", "es256"][index] ?? "";
      await addClient(id, secret, peer.client.id);
      await broker.api.createConnection({ name: id, provider: id, client: id });
      const page = await walkConsent((await broker.api.consentLink(id)).url);
      expect([page.status, page.text, peer.refused]).toEqual([200, expect.stringMatching(/^Connected/), []]);
      for (let count = 0; count < 3; count++) await broker.api.refresh(id);
      expect([peer.refreshes, peer.refused]).toEqual([3, []]);
    }
  });

  it("oidc-provider that insists on pushed authorization requests gets them, with a secret and with a key", async () => {
    const peer = peers[2] as OidcPeer;
    await addClient("pushed", peer.client.secret, peer.client.id);
    await broker.api.createConnection({ name: "pushed", provider: "pushed", client: "pushed" });
    const page = await walkConsent((await broker.api.consentLink("pushed")).url);
    expect([page.status, page.text]).toEqual([200, expect.stringMatching(/^Connected/)]);
    for (const each of peers.slice(1)) expect(each.paths.filter((path) => path === "/request")).toHaveLength(1);
    expect((await broker.api.token("pushed")).status).toBe(200);
  });

  it("each request has an assertion of its own: issuer and subject are the client, it is for the address it goes to, and for a minute", async () => {
    await addClient("jwt", pkcs8(rsa.privateKey));
    expect(await connect("jwt")).toEqual([200, expect.any(String)]);
    for (let count = 0; count < 2; count++) await broker.api.refresh("jwt");
    const requests = doors.ledger.requestsTo("jwt");
    const sent = requests.map(({ fields }) => fields);
    expect(sent.map((fields) => Object.keys(fields).toSorted())).toEqual(
      sent.map(() => ["client_assertion", "client_assertion_type", "client_id", "grant_type"]),
    );
    expect(new Set(sent.map((fields) => fields["client_assertion_type"]))).toEqual(new Set([assertionType]));
    const claims = sent.map((fields) => claimsOf(fields["client_assertion"] ?? ""));
    expect(new Set(claims.map(({ jti }) => jti)).size).toBe(3);
    for (const [index, { iss, sub, aud, iat = 0, exp = 0 }] of claims.entries()) {
      expect([iss, sub, aud, exp - iat]).toEqual(["door-client", "door-client", `${doors.origin}/jwt/token`, 60]);
      // The request came while the assertion was valid.
      expect(iat).toBeLessThanOrEqual((requests[index]?.inAt ?? 0) / 1000);
      expect(exp).toBeGreaterThan((requests[index]?.inAt ?? Infinity) / 1000);
    }
  });

  it("a certificate stands for the client on the connection, and its id in the fields; a stranger's is a refused client", async () => {
    await addClient("tls", pem("client"));
    expect(await connect("tls")).toEqual([200, "token-1"]);
    const fields = { grant_type: "client_credentials", client_id: "door-client" };
    expect(guarded.seen).toEqual([{ subject: "client", fields }]);
    const stranger = { name: "stranger", provider: "tls", client_id: "door-client" };
    await broker.api.createClient({ ...stranger, client_secret: pem("stranger") });
    const body = { name: "stranger", provider: "tls", client: "stranger", grant: "client_credentials" };
    const refused = await broker.api.api("/connections", { method: "POST", body });
    expect([refused.status, refused.body["code"]]).toEqual([422, "provider_rejected"]);
    expect(guarded.seen.at(-1)).toEqual({ subject: "", fields });
  });

  it("a header of its own, a header by template, Basic of one value, and Basic with encoded values are sent as the definition says", async () => {
    for (const id of ["header", "templated", "pair"]) {
      await addClient(id, doors.client.secret);
      expect(await connect(id), id).toEqual([200, expect.any(String)]);
      expect(doors.ledger.requestsTo(id).map(({ fields }) => fields)).toEqual([{ grant_type: "client_credentials" }]);
    }
    await addClient("encoded", "s/p c:ial");
    expect(await connect("encoded")).toEqual([200, expect.any(String)]);
  });

  it("a secret that is no key for this way of signing is refused where it is set, naming client_secret and never its value", async () => {
    const encrypted = rsa.privateKey.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" });
    const publicPem = String(rsa.publicKey.export({ type: "spki", format: "pem" }));
    const [certificate = "", key = ""] = pem("client").split(/(?=-----BEGIN PRIVATE KEY-----)/);
    const wrong: [string, string][] = [
      ["jwt", "a plain secret"],
      ["jwt", publicPem],
      ["jwt", String(encrypted)],
      ["jwt", pkcs8(ec.privateKey)],
      ["jwt", pkcs8(smallRsa.privateKey)],
      ["jwt", JSON.stringify(jwk(rsa.publicKey, {}))],
      ["jwt", '{"kty":"RSA"'],
      ["es256", pkcs8(rsa.privateKey)],
      ["tls", "a plain secret"],
      ["tls", certificate],
      ["tls", key],
      ["tls", certificate + pkcs8(ec.privateKey)],
    ];
    for (const [provider, client_secret] of wrong) {
      const body = { name: "wrong", provider, client_id: "x", client_secret };
      const created = await broker.api.api("/clients", { method: "POST", body });
      expect([created.status, created.body["code"]], `${provider} ${client_secret}`).toEqual([400, "invalid_request"]);
      expect(created.body["detail"]).toMatch(/^client_secret: /);
      expect(created.body["detail"]).not.toContain(client_secret.slice(30, 60) || client_secret);
      const changed = await broker.api.api(`/clients/${provider}`, { method: "PATCH", body: { client_secret } });
      expect([changed.status, String(changed.body["detail"])]).toEqual([
        400,
        expect.stringMatching(/^client_secret: /),
      ]);
    }
  });
});
