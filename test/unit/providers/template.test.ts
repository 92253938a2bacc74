import { describe, expect, test } from "vitest";
import { capturedValues, fillUrl } from "../../../src/providers/format/template.ts";
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
      misfits: {},
      callback: { server: "https://a.com", plain: "x" },
      response: { shop: "acme", zone: "eu", plain: "x" },
      account: { site: "two" },
    });
  });

  test("and no longer fits the definition, or was never asked for, fills nothing, nor does a default: the grant may be of another host", () => {
    const stored = { server: "https://evil.test", shop: "A/", zone: "A/", other: "x" };
    const found = values(stored, { site: "three", other: "x" });
    expect(found).toMatchObject({ callback: {}, response: {}, account: {} });
    expect(Object.keys({ ...found.callback, ...found.response, ...found.account })).toEqual([]);
  });

  test.each([
    {
      url: "{callback.server}/token",
      name: "callback.server",
      stored: "https://a.cn",
      allowed: "https://a.eu, https://a.com",
    },
    { url: "https://x.example/{response.zone}", name: "response.zone", stored: "A/", allowed: "what matches ^[a-z]+$" },
    { url: "https://x.example/{account.site}", name: "account.site", stored: "three", allowed: "one, two" },
  ])(
    "and no longer fits stops a request to $url, which tells the definition, the value's name and what is allowed",
    (given) => {
      const kept = { [given.name.split(".")[1] ?? ""]: given.stored };
      expect(() => fillUrl(given.url, values(kept, kept))).toThrow(
        expect.objectContaining({
          code: "provider_unavailable",
          message: `nothing was sent: the definition "own" does not take the value of ${given.name} that is stored for this connection, only ${given.allowed}; add the value to the definition, or connect the account again`,
        }),
      );
    },
  );

  test("and is lacking has its default, where the input has a value that the list still holds", () => {
    expect(values({}).callback).toEqual({ server: "https://a.eu" });
    expect(values({}, {}, "com")).toMatchObject({ callback: { server: "https://a.com" }, response: { zone: "com" } });
    expect(values({}, {}, "cn").callback).toEqual({});
    expect(capturedValues(definition, { captured: {}, account: {}, inputs: {} }).callback).toEqual({});
  });
});
