import { expect, test } from "vitest";
import { onlyWith } from "./support/catalog.ts";

/** Values that were wrong once, each with what its provider says. The definition names the source. */
const corrected: [id: string, setting: string, value: unknown][] = [
  ["bitbucket", "refresh.rotation", "always"],
  ["bitbucket", "refresh.idle_life_s", 7776000],
  ["box-com", "refresh.reuse", "until_successor_used"],
  ["discord", "refresh.rotation", "always"],
  ["etsy", "refresh.rotation", "always"],
  ["pipedrive", "refresh.reuse", "dead"],
  ["quickbooks", "refresh.reuse", "dead"],
  ["quickbooks", "refresh.grace_s", undefined],
  ["reddit", "refresh.reuse", "safe"],
  ["ringcentral", "refresh.rotation", "auto"],
  ["ringcentral", "refresh.reuse", "until_successor_used"],
  ["slack", "refresh.old_access_token_dies", false],
  ["strava", "refresh.old_access_token_dies", false],
  ["twitch", "refresh.reuse", "safe"],
  ["twitch", "refresh.old_access_token_dies", false],
];

test.each(corrected)("%s: %s is %j", (id, setting, value) => {
  expect(valueAt(onlyWith(id).file, setting)).toEqual(value);
});

function valueAt(file: unknown, setting: string): unknown {
  return setting.split(".").reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], file);
}

/** Hosts that a definition lacked once: an input that decides a host must know them. */
const hosts: [id: string, input: string, host: string][] = [
  ["amazon-sp-api", "seller_central", "sellercentral.amazon.ie"],
  ["amazon-sp-api", "seller_central", "sellercentral.amazon.co.za"],
  ["amazon-sp-api", "seller_central", "sellercentral.amazon.co.jp"],
  ["amazon-sp-api", "seller_central", "vendorcentral.amazon.co.uk"],
  ["amazon-sp-api", "seller_central", "vendorcentral.amazon.co.jp"],
];

test.each(hosts)("%s: %s may be %s", (id, input, host) => {
  expect(onlyWith(id).inputs[input]?.enum).toContain(host);
});
