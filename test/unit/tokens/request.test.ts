import { expect, test } from "vitest";
import type { Failure } from "../../../src/providers/oauth/token-answer.ts";
import { failedRequestError, refusal } from "../../../src/tokens/request.ts";

const detail = "10.1.2.3 may not be reached: the egress rules";

test("an address that the egress rules refuse is told as this broker's refusal, at the token endpoint and beside it", () => {
  const failure: Failure = { class: "not_sent", code: "blocked_address", detail };
  const asked = { ok: false, status: null, body: null, detail, isBlocked: true } as const;
  for (const error of [refusal({ name: "a" }, failure), failedRequestError("The provider gives no user code", asked)]) {
    expect(error.code).toBe("provider_unavailable");
    expect(error.message).toBe(`This broker refuses to ask the provider: ${detail}.`);
  }
});

test("a provider that is away is told as one that could not be asked", () => {
  const failure: Failure = { class: "not_sent", code: "connect_failed", detail: "refused" };
  expect(refusal({ name: "a" }, failure).message).toBe("The provider could not be asked: refused");
  const asked = { ok: false, status: null, body: null, detail: "refused" };
  expect(failedRequestError("The provider gives no user code", asked).message).toBe(
    "The provider gives no user code: refused",
  );
});
