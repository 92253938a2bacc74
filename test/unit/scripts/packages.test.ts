import { expect, test } from "vitest";
import manifest from "../../../package.json" with { type: "json" };
import { licenceFaults, scriptFaults } from "../../../scripts/licences.ts";
import { type Package, readPackages } from "../../../scripts/packages.ts";

const packages = readPackages();
const made = (given: Partial<Package>): Package => ({
  name: "made",
  version: "1.0.0",
  license: "MIT",
  production: true,
  hasInstallScript: false,
  ...given,
});
const withMade = (given: Partial<Package>) => [...packages, made(given)];

test("every package has a licence that is allowed for its use, and what the image holds is permissive", () => {
  expect(packages.filter(({ production }) => production).length).toBeGreaterThan(80);
  expect(licenceFaults(packages)).toEqual([]);
});

test.each<[string, Partial<Package>]>([
  ["a copyleft licence", { license: "GPL-3.0" }],
  ["no licence", { license: null }],
  ["one that is for tools alone", { license: "MPL-2.0" }],
  ["an expression that nobody has looked at", { license: "MIT OR GPL-3.0" }],
  ["a copyleft licence of a tool", { license: "AGPL-3.0", production: false }],
])("a package with %s is told", (_what, given) => {
  expect(licenceFaults(withMade(given))).toEqual([expect.stringMatching(/^made 1\.0\.0 has the licence/)]);
});

test("an exception that nothing needs any more is told", () => {
  const without = packages.filter(({ name }) => name !== "ssh2");
  expect(licenceFaults(without)).toEqual([expect.stringContaining("ssh2 is not there without a licence any more")]);
});

test("nothing of production runs a script when it is installed, and what else would is told no", () => {
  expect(scriptFaults(packages, manifest.allowScripts)).toEqual([]);
  expect(scriptFaults(withMade({ hasInstallScript: true }), { ...manifest.allowScripts, made: false })).toEqual([
    "made has an install script, and is for production",
  ]);
  const tool = { hasInstallScript: true, production: false };
  expect(scriptFaults(withMade(tool), manifest.allowScripts)).toEqual([expect.stringContaining("say no to it")]);
});
