import { afterAll, beforeAll, expect, test } from "vitest";
import { setConsentStage, type ConsentStage } from "../../support/consent-stage.ts";
import { createTestBrowser } from "./browser-client.ts";

const publicUrl = "http://localhost:8080";
let stage: ConsentStage;
beforeAll(async () => void (stage = await setConsentStage({ publicUrl })));
afterAll(async () => await stage.close());

test("the page says what a scope lets one do in the definition's words, and of others their names", async () => {
  const { connectionId } = await stage.connect({ provider: "sandbox", scopes: ["read", "nameless"] });
  const { url } = await stage.createLink({ connectionId });
  const { body } = await createTestBrowser(stage.app, publicUrl).get(url);
  expect(body).toContain("read the things in this sandbox");
  expect(body).not.toContain("change the things in this sandbox");
  expect(body).toContain("nameless");
});
