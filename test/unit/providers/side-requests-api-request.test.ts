import { describe, expect, test } from "vitest";
import { describeApiRequest } from "../../../src/providers/oauth/side-requests.ts";
import { builtin, define } from "./definitions.ts";

describe("what to send with an API call", () => {
  test.each([
    ["bakeronline", {}, "https://api.bakeronline.be", { "x-version": "1.9.0" }, [{ body: "expired_access_token" }]],
    ["apicbase", {}, "https://api.apicbase.com", {}, []],
    [
      "shopware",
      { shop_url: "https://s.example" },
      "https://s.example/api",
      {},
      [{ status: 401, body: '"code"\\s*:\\s*"9"' }],
    ],
    [
      "bol",
      {},
      "https://api.bol.com/retailer",
      { accept: "application/vnd.retailer.v10+json" },
      [{ status: 401, body: "Expired JWT" }],
    ],
    [
      "bol-form",
      {},
      "https://api.bol.com/retailer",
      { accept: "application/vnd.retailer.v10+json" },
      [{ status: 401, body: "Expired JWT" }],
    ],
  ])("%s", (...[id, inputs, base_url, headers, rules]) => {
    const request = describeApiRequest({ definition: builtin(id), values: { accessToken: "t1", inputs } });
    expect(request).toEqual({
      base_url,
      headers: { accept: "application/json", ...headers, authorization: "Bearer t1" },
      expired_when: [{ status: 401 }, ...rules],
    });
  });

  test.each([
    ["a line break", "t1\r\nx-evil: 1"],
    ["a line feed alone", "t1\n"],
    ["a NUL", "t\u00001"],
    ["a character beyond Latin-1", "t\u01421"],
    ["a delete", "t\u007f1"],
  ])("a token with %s is in no header: the answer says so, without it", (_name, accessToken) => {
    for (const settings of ["", "api: { headers: { x-token: '{access_token}' } }"]) {
      const describing = () => describeApiRequest({ definition: define(settings), values: { accessToken } });
      expect(describing).toThrow(
        expect.objectContaining({
          code: "provider_unavailable",
          message: "access_token holds a character that no header can carry, such as a line break",
          context: { retryAfterSeconds: 60 },
        }),
      );
    }
  });

  test("a header of its own takes the token where the definition says so", () => {
    const definition = define("api: { authorization: { header: X-Access-Token, value: '{access_token}' } }");
    expect(describeApiRequest({ definition, values: { accessToken: "t1" } })).toEqual({
      base_url: null,
      headers: { "x-access-token": "t1" },
      expired_when: [{ status: 401 }],
    });
  });
});
