import { describe, expect, test } from "vitest";
import { readDeviceAuthorization, readPollState } from "../../../src/providers/oauth/side-requests.ts";
import { define } from "./definitions.ts";

const needed = { device_code: "dc-1", user_code: "WDJB-MJHT", verification_uri: "https://login.example/device" };

describe("the answer of a device authorization endpoint (RFC 8628, section 3.2)", () => {
  test("is read with all that it names", () => {
    const body = {
      ...needed,
      verification_uri_complete: "https://login.example/device?user_code=WDJB-MJHT",
      expires_in: 1800,
      interval: 7,
    };
    expect(readDeviceAuthorization(body)).toEqual({
      deviceCode: "dc-1",
      userCode: "WDJB-MJHT",
      verificationUri: "https://login.example/device",
      verificationUriComplete: "https://login.example/device?user_code=WDJB-MJHT",
      expiresInSeconds: 1800,
      intervalSeconds: 7,
    });
  });

  test("that names no times has 10 minutes, and 5 seconds between questions", () => {
    expect(readDeviceAuthorization(needed)).toMatchObject({
      verificationUriComplete: null,
      expiresInSeconds: 600,
      intervalSeconds: 5,
    });
  });

  test("may spell the address as drafts did", () => {
    const { verification_uri: address, ...others } = needed;
    const body = { ...others, verification_url: address, verification_url_complete: `${address}?c=1` };
    expect(readDeviceAuthorization(body)).toMatchObject({
      verificationUri: address,
      verificationUriComplete: `${address}?c=1`,
    });
  });

  test.each<[object]>([
    [{ device_code: undefined }],
    [{ device_code: "" }],
    [{ device_code: 5 }],
    [{ device_code: "a\nb" }],
    [{ user_code: undefined }],
    [{ user_code: "x".repeat(2001) }],
    [{ verification_uri: undefined }],
    [{ verification_uri: "login.example/device" }],
    [{ verification_uri: "javascript:alert(1)" }],
    [{ verification_uri: "data:text/html,x" }],
  ])("is none with %j", (odd) => {
    expect(readDeviceAuthorization({ ...needed, ...odd })).toBeNull();
  });

  test.each<[unknown]>([[null], ["text"], [[]]])("is none where it is %j", (body) => {
    expect(readDeviceAuthorization(body)).toBeNull();
  });

  test("a complete address that is no web address is not shown, and the other still is", () => {
    const body = { ...needed, verification_uri_complete: "javascript:alert(1)" };
    expect(readDeviceAuthorization(body)).toMatchObject({
      verificationUri: needed.verification_uri,
      verificationUriComplete: null,
    });
  });

  test.each<[unknown, number]>([
    ["900", 900],
    [0.2, 1],
    [0, 600],
    [-5, 600],
    ["soon", 600],
    [{}, 600],
    [Infinity, 600],
    [1e12, 86_400],
  ])("a life of %j is one of %d seconds", (expires_in, seconds) => {
    expect(readDeviceAuthorization({ ...needed, expires_in })?.expiresInSeconds).toBe(seconds);
  });

  test("an interval of nothing is the RFC's, so that nobody asks without a pause", () => {
    for (const interval of [0, -1, "no", null]) {
      expect(readDeviceAuthorization({ ...needed, interval })?.intervalSeconds).toBe(5);
    }
  });
});

test("what a poll is told are the four codes of RFC 8628, section 3.5, the provider's words for no, and nothing else", () => {
  const urls = "url: https://login.example/authorize, callback: { denied: [User_Said_No] }";
  const own = define("", `id: own\nauthorization: { ${urls} }\ntoken: { url: https://login.example/token }`);
  for (const code of ["authorization_pending", "slow_down", "access_denied", "expired_token"]) {
    expect(readPollState(own, code)).toBe(code);
  }
  for (const code of ["Access_Denied", "user_said_no", "USER_SAID_NO"]) {
    expect(readPollState(own, code)).toBe("access_denied");
  }
  for (const code of ["invalid_grant", "AUTHORIZATION_PENDING", "", undefined]) {
    expect(readPollState(own, code)).toBeNull();
  }
});
