import { describe, expect, test } from "vitest";
import { capturedValues } from "../../../src/providers/captures.ts";
import { define } from "./definitions.ts";

const definition = define(
  `token: { url: "{callback.server}/token" }
authorization: { url: https://a.eu/authorize, callback: { capture: { server: { param: s, enum: [https://a.eu, https://a.com], default: "https://a.{inputs.dc}" }, plain: p } } }
response: { capture: { shop: { pointer: /shop, pattern: "^[a-z]+$" }, zone: { pointer: /z, pattern: "^[a-z]+$", default: "{inputs.dc}" }, plain: /p } }
after_connect:
  - { request: { url: https://x.example }, capture: { site: { pointer: /s, enum: [one, two] } } }`,
  "id: own\ninputs: { dc: { enum: [eu, com] } }",
);
const values = (captured: Record<string, string>, account: Record<string, string> = {}, dc = "eu") =>
  capturedValues(definition, { captured, account, inputs: { dc } });

describe("what was captured", () => {
  test("fills templates as it was stored", () => {
    expect(values({ server: "https://a.com", shop: "acme", plain: "x" }, { site: "two" })).toEqual({
      callback: { server: "https://a.com", plain: "x" },
      response: { shop: "acme", zone: "eu", plain: "x" },
      account: { site: "two" },
    });
  });

  test("and no longer fits the definition, or was never asked for, fills nothing: an older definition may have let it in", () => {
    const stored = { server: "https://evil.test", shop: "A/", other: "x" };
    expect(values(stored, { site: "three", other: "x" })).toEqual({
      callback: { server: "https://a.eu" },
      response: { zone: "eu" },
      account: {},
    });
  });

  test("and is lacking has its default, where the input has a value that the list still holds", () => {
    expect(values({}).callback).toEqual({ server: "https://a.eu" });
    expect(values({}, {}, "com")).toMatchObject({ callback: { server: "https://a.com" }, response: { zone: "com" } });
    expect(values({}, {}, "cn").callback).toEqual({});
    expect(capturedValues(definition, { captured: {}, account: {}, inputs: {} }).callback).toEqual({});
  });
});
