import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { decodeProtectedHeader, jwtVerify } from "jose";
import { describe, expect, test } from "vitest";
import type { ClientAuth, Exchange } from "../../../src/providers/format/definition.ts";
import { signingAlgorithms } from "../../../src/providers/format/settings.ts";
import type { TemplateValues } from "../../../src/providers/format/template.ts";
import { secretFault, withAssertion } from "../../../src/providers/oauth/token-request.ts";
import { selfSigned } from "../../support/certificate.ts";
import { define } from "./definitions.ts";

type SigningAlgorithm = (typeof signingAlgorithms)[number];

const nowMs = 1_800_000_000_500;
const now = Math.floor(nowMs / 1000);
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const curve = generateKeyPairSync("ec", { namedCurve: "P-256" });
const edwards = generateKeyPairSync("ed25519");
const pem = (key: KeyObject) => key.export({ format: "pem", type: "pkcs8" }).toString();
const jwk = (key: KeyObject, more = {}) => JSON.stringify({ ...key.export({ format: "jwk" }), ...more });

function exchangeWith(settings: string): Exchange {
  const token = `url: "https://{inputs.tenant}.login.example/token", client_auth: private_key_jwt, ${settings}`;
  const { exchanges } = define(
    'grants: [client_credentials]\ninputs: { tenant: { pattern: "^[a-z]+$" } }',
    `id: own\ntoken: { ${token} }`,
  );
  if (!exchanges.client_credentials) throw new Error("no exchange");
  return exchanges.client_credentials;
}

const values = (secret: string | null): TemplateValues => ({
  client: { id: "app-1", secret },
  inputs: { tenant: "a" },
});

const at = (issuer: string | null) => ({ definition: { issuer, authorization: null }, nowMs });

type Options = { settings?: string; key?: string; issuer?: string | null };

async function assertionOf({ settings = "", key = pem(rsa.privateKey), issuer = null }: Options): Promise<string> {
  const { client } = await withAssertion(exchangeWith(settings), values(key), at(issuer));
  return client?.assertion ?? "";
}

const verify = async (assertion: string, key: KeyObject) =>
  await jwtVerify(assertion, key, { currentDate: new Date(nowMs) });

describe("the assertion of private_key_jwt (RFC 7523, section 3)", () => {
  test("is the client's word about itself, for the token endpoint and for a minute", async () => {
    const { payload, protectedHeader } = await verify(await assertionOf({}), rsa.publicKey);
    expect(payload).toEqual({
      iss: "app-1",
      sub: "app-1",
      aud: "https://a.login.example/token",
      iat: now,
      exp: now + 60,
      jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(protectedHeader).toEqual({ alg: "RS256", typ: "JWT" });
  });

  test("is never the same twice", async () => {
    const ids = await Promise.all(
      [1, 2].map(async () => (await verify(await assertionOf({}), rsa.publicKey)).payload.jti),
    );
    expect(ids[0]).not.toBe(ids[1]);
  });

  test("names the key of a JWK in its header, and nothing else of it", async () => {
    const key = jwk(rsa.privateKey, { kid: "k1", x5t: "t1", "x5t#S256": "t2", use: "sig", alg: "PS512" });
    const assertion = await assertionOf({ key: ` \n${key}` });
    expect(decodeProtectedHeader(assertion)).toEqual({
      alg: "RS256",
      typ: "JWT",
      kid: "k1",
      x5t: "t1",
      "x5t#S256": "t2",
    });
    await verify(assertion, rsa.publicKey);
  });

  test.each<[string, { publicKey: KeyObject; privateKey: KeyObject }]>([
    ["ES256", curve],
    ["PS384", rsa],
    ["EdDSA", edwards],
  ])("is signed with %s where the definition says so, by a key as PEM or JWK", async (alg, pair) => {
    for (const key of [pem(pair.privateKey), jwk(pair.privateKey)]) {
      const { protectedHeader } = await verify(
        await assertionOf({ settings: `assertion: { alg: ${alg} }`, key }),
        pair.publicKey,
      );
      expect(protectedHeader.alg).toBe(alg);
    }
  });

  test.each([
    ["audience: token_url", "https://a.login.example/token", "JWT"],
    ["audience: issuer", "https://issuer.example/a", "client-authentication+jwt"],
    ["", "https://issuer.example/a", "client-authentication+jwt"],
    ['audience: "https://login.example/audience"', "https://login.example/audience", "JWT"],
    [
      "audience: token_url, typ: client-authentication+jwt",
      "https://a.login.example/token",
      "client-authentication+jwt",
    ],
    ["typ: JWT", "https://issuer.example/a", "JWT"],
  ])(
    "where the definition knows an issuer, is for it alone and says so, unless a setting says otherwise: { %s }",
    async (settings, aud, typ) => {
      const issuer = "https://issuer.example/{inputs.tenant}";
      const assertion = await assertionOf({ settings: `assertion: { ${settings} }`, issuer });
      const { payload, protectedHeader } = await verify(assertion, rsa.publicKey);
      expect([payload.aud, protectedHeader.typ]).toEqual([aud, typ]);
    },
  );

  test("counts for as long as the definition says", async () => {
    const { payload } = await verify(await assertionOf({ settings: "assertion: { life_s: 300 }" }), rsa.publicKey);
    expect(payload.exp).toBe(now + 300);
  });

  test("is beside the client's id and secret, and everything else stays as it was", async () => {
    const given = { ...values(pem(rsa.privateKey)), refreshToken: "rt-1" };
    const { client, ...others } = await withAssertion(exchangeWith(""), given, at(null));
    expect({ client: { id: client?.id, secret: client?.secret }, ...others }).toEqual(given);
  });

  test.each<[string, string, string]>([
    ["an elliptic key with RS256", "RS256", pem(curve.privateKey)],
    ["an RSA key with ES256", "ES256", pem(rsa.privateKey)],
    ["a key of another curve", "ES384", pem(curve.privateKey)],
  ])("is refused for %s, and the key is not told", async (_name, alg, key) => {
    const making = assertionOf({ settings: `assertion: { alg: ${alg} }`, key });
    await expect(making).rejects.toMatchObject({
      code: "client_rejected",
      message: `the client's private key does not fit ${alg}`,
    });
  });

  test.each<[string, string]>([
    ["a text", "s3cr3t"],
    ["a public key", rsa.publicKey.export({ format: "pem", type: "spki" }).toString()],
    ["a public JWK", jwk(rsa.publicKey)],
    ["broken JSON", '{"kty":"RSA","d":"s3cr3t"'],
    ["a PEM cut short", pem(rsa.privateKey).slice(0, 400)],
  ])("is refused for %s in the place of a key, and what stands there is not told", async (_name, key) => {
    await expect(assertionOf({ key })).rejects.toMatchObject({
      code: "client_rejected",
      message: "the client's private key cannot be read: a PEM or a JWK was expected",
    });
  });

  test("is refused for a client without a key", async () => {
    const making = withAssertion(exchangeWith(""), values(null), at(null));
    await expect(making).rejects.toMatchObject({ code: "client_rejected" });
  });

  test("is not made for a client that authenticates in another way", async () => {
    const given = values("s3cr3t");
    expect(await withAssertion({ ...exchangeWith(""), clientAuth: { kind: "body" } }, given, at(null))).toBe(given);
  });
});

const signed = (algorithm: SigningAlgorithm): ClientAuth => ({
  kind: "private_key_jwt",
  algorithm,
  audience: null,
  type: null,
  lifeSeconds: 60,
});

describe("a client's secret", () => {
  const tls: ClientAuth = { kind: "tls" };

  test("may be anything where it is a secret", () => {
    const kinds: ClientAuth[] = [
      { kind: "none" },
      { kind: "body" },
      { kind: "basic", pair: "{client.id}:{client.secret}", percentEncoding: false },
      { kind: "header", header: "x-key", value: "{client.secret}" },
    ];
    expect(kinds.map((kind) => secretFault(kind, "s3cr3t"))).toEqual([null, null, null, null]);
  });

  test("is a private key, PEM or JWK, for private_key_jwt", () => {
    expect(secretFault(signed("RS256"), pem(rsa.privateKey))).toBeNull();
    expect(secretFault(signed("RS256"), jwk(rsa.privateKey))).toBeNull();
    for (const wrong of ["s3cr3t", "{}", jwk(rsa.publicKey), selfSigned(curve)]) {
      expect(secretFault(signed("RS256"), wrong)).toBe("must be the client's private key, as PEM or JWK");
    }
  });

  test.each<[string, KeyObject, SigningAlgorithm[]]>([
    ["an RSA key", rsa.privateKey, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]],
    ["a key on P-256", curve.privateKey, ["ES256"]],
    ["a key on P-384", generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey, ["ES384"]],
    ["a key on P-521", generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey, ["ES512"]],
    ["an Ed25519 key", edwards.privateKey, ["EdDSA"]],
    ["an RSA key that is too short", generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey, []],
  ])("that is %s is taken where it can sign, and only there", async (_name, key, algorithms) => {
    const taken = signingAlgorithms.filter((algorithm) => secretFault(signed(algorithm), pem(key)) === null);
    expect(taken).toEqual(algorithms);
    for (const alg of signingAlgorithms) {
      const making = assertionOf({ settings: `assertion: { alg: ${alg} }`, key: pem(key) }).then(
        () => true,
        () => false,
      );
      expect({ alg, signs: await making }).toEqual({ alg, signs: algorithms.includes(alg) });
    }
  });

  test("that cannot sign is told so", () => {
    expect(secretFault(signed("ES256"), pem(rsa.privateKey))).toBe("must be a key that ES256 can sign with");
  });

  test("is a certificate and its key, in either order, for tls", () => {
    const certificate = selfSigned(curve);
    expect(secretFault(tls, certificate + pem(curve.privateKey))).toBeNull();
    expect(secretFault(tls, pem(curve.privateKey) + certificate)).toBeNull();
    const traditional = curve.privateKey.export({ format: "pem", type: "sec1" }).toString();
    expect(secretFault(tls, certificate + traditional)).toBeNull();
    const key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    const wrong = [
      certificate,
      pem(curve.privateKey),
      certificate + key,
      certificate.slice(0, 90) + pem(curve.privateKey),
    ];
    for (const secret of [...wrong, "s3cr3t", ""]) {
      expect(secretFault(tls, secret)).toMatch(/^must be the client's certificate and its private key, as PEM/);
    }
  });

  test("is refused where the key is another certificate's", () => {
    const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
    expect(secretFault(tls, selfSigned(curve) + pem(other.privateKey))).toMatch(/not that of the certificate/);
  });
});
