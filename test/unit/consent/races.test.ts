import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLinkToken, sha256 } from "../../../src/consent/links.ts";
import { createAuthorizationRequests, createConsentLinks } from "../../../src/store/consents.ts";
import { type ConsentStage, setConsentStage } from "../../support/consent-stage.ts";

let stage: ConsentStage;
beforeAll(async () => {
  stage = await setConsentStage({ publicUrl: "http://localhost:8080" });
});
afterAll(async () => await stage.close());

async function insertLink() {
  const { connectionId } = await stage.connect();
  const { id, secretHash } = createLinkToken(randomBytes);
  const links = createConsentLinks(stage.database.prisma, stage.vault);
  const given = {
    connectionId,
    returnTo: null,
    manual: false,
    purpose: null,
    endUser: null,
    createdBy: "tests",
    expiresInSeconds: 3600,
  };
  await links.insert({ ...given, id, secretHash });
  return { connectionId, links, key: { id, secretHash } };
}

const count = (answers: boolean[]) => answers.filter(Boolean).length;
const browsers = Array.from({ length: 8 }, (_, index) => sha256(`browser ${index}`));

test("a link that nobody has looked at since is claimed by one of eight browsers", async () => {
  const { links, key } = await insertLink();
  const claims = await Promise.all(browsers.map(async (browser) => await links.claim(key, browser)));
  expect(count(claims)).toBe(1);
  const again = await Promise.all(browsers.map(async (browser) => await links.claim(key, browser)));
  expect(again).toEqual(claims);
});

test("a link is reserved by one of eight exchanges", async () => {
  const { links, key } = await insertLink();
  expect(count(await Promise.all(browsers.map(async () => await links.reserve(key.id))))).toBe(1);
  await links.release(key.id);
  expect(await links.reserve(key.id)).toBe(true);
});

test("a used or expired link is claimed by nobody", async () => {
  const [used, expired] = [await insertLink(), await insertLink()];
  await used.links.reserve(used.key.id);
  await stage.database.prisma
    .$executeRaw`UPDATE consent_links SET expires_at = clock_timestamp() - interval '1 second' WHERE id = ${expired.key.id}`;
  for (const { links, key } of [used, expired]) expect(await links.claim(key, sha256("browser"))).toBe(false);
});

async function insertRequest(connectionId: string, linkId: string) {
  const requests = createAuthorizationRequests(stage.database.prisma);
  const id = randomUUID();
  const given = { connectionId, linkId, request: sha256("request"), expiresInSeconds: 3600, mostOpen: 5 };
  await requests.insert({ ...given, id, stateHash: sha256(id), browserHash: sha256("browser") });
  return { requests, id };
}

test("a state is consumed by one of eight callbacks, which uses the link up", async () => {
  const { connectionId, links, key } = await insertLink();
  const { requests, id } = await insertRequest(connectionId, key.id);
  const answers = await Promise.all(browsers.map(async () => await requests.consume(id, { usesLink: true })));
  expect(answers.filter((answer) => answer !== null)).toMatchObject([{ wasLinkFree: true }]);
  expect(await links.reserve(key.id)).toBe(false);
});

test("of five states of one link that come back at once all are consumed, and one has the link", async () => {
  const { connectionId, key } = await insertLink();
  const all = [];
  for (let made = 0; made < 5; made++) all.push(await insertRequest(connectionId, key.id));
  const answers = await Promise.all(
    all.map(async ({ requests, id }) => await requests.consume(id, { usesLink: true })),
  );
  expect(answers.filter((answer) => answer?.wasLinkFree === false)).toHaveLength(4);
  expect(answers.filter((answer) => answer?.wasLinkFree === true)).toHaveLength(1);
});

test("whoever consumes a state sees its connection as it is then, whatever it was when the callback came", async () => {
  const { connectionId, key } = await insertLink();
  const { requests, id } = await insertRequest(connectionId, key.id);
  const came = await requests.find(sha256(id));
  await stage.database.prisma
    .$executeRaw`UPDATE connections SET status = 'disabled', client_ref = NULL WHERE id = ${connectionId}::uuid`;
  const consumed = await requests.consume(id, { usesLink: true });
  const seen = [came?.connection.row.status, consumed?.connection.row.status, consumed?.connection.client];
  expect(seen).toEqual(["pending", "disabled", null]);
});

test("a state whose answer is no code leaves the link as it is", async () => {
  const { connectionId, links, key } = await insertLink();
  const { requests, id } = await insertRequest(connectionId, key.id);
  expect(await requests.consume(id, { usesLink: false })).toMatchObject({ wasLinkFree: false });
  expect(await links.reserve(key.id)).toBe(true);
});
