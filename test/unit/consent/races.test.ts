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

test("a state is consumed by one of eight callbacks", async () => {
  const { connectionId, links, key } = await insertLink();
  const requests = createAuthorizationRequests(stage.database.prisma);
  const [stateHash, browserHash] = [sha256("state"), sha256("browser")];
  const id = randomUUID();
  await requests.insert({
    id,
    stateHash,
    browserHash,
    connectionId,
    linkId: key.id,
    request: sha256("request"),
    expiresInSeconds: 3600,
    mostOpen: 5,
  });
  const answers = await Promise.all(browsers.map(async () => await requests.consume(id, { usesLink: true })));
  expect(answers.filter((answer) => answer !== null)).toEqual([{ wasLinkFree: true }]);
  expect(await links.reserve(key.id)).toBe(false);
});
