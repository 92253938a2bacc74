import { type Package, readPackages } from "./packages.ts";

/** Licences under which a package may be passed on with Freshet: permissive ones. */
const forProduction = ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BlueOak-1.0.0", "ISC", "MIT"];

/** And those of tools, which nobody gets with Freshet. */
const forDevelopment = [
  ...forProduction,
  "(MIT AND Zlib)",
  "EPL-2.0", // layout of `prisma studio`, which is taken out after installing
  "MIT and ISC",
  "MPL-2.0", // a CSS compiler of the test runner
  "Python-2.0",
  "Unlicense",
];

/** Packages whose package.json names no licence, with the one that their LICENSE file holds. */
const unnamed: Readonly<Record<string, string>> = {
  buildcheck: "MIT",
  "cpu-features": "MIT",
  "seq-queue": "MIT",
  ssh2: "MIT",
};

/** What may not be installed, and exceptions that nothing needs any more, each as a sentence. */
export function licenceFaults(packages: readonly Package[]): string[] {
  const faults = packages.flatMap(({ name, version, license, production }) => {
    const allowed = production ? forProduction : forDevelopment;
    const held = license ?? unnamed[name];
    if (held !== undefined && allowed.includes(held)) return [];
    const use = production ? "production" : "development";
    return [
      `${name} ${version} has the licence ${held ?? "(none)"}, which is not among those for ${use}: ${allowed.join(", ")}`,
    ];
  });
  const stale = Object.keys(unnamed).filter(
    (name) => !packages.some((each) => each.name === name && each.license === null),
  );
  return [
    ...faults,
    ...stale.map((name) => `${name} is not there without a licence any more: take it out of scripts/licences.ts`),
  ];
}

/** Scripts of a package run as whoever installs it. */
export function scriptFaults(packages: readonly Package[], allowScripts: Readonly<Record<string, boolean>>): string[] {
  const scripted = packages.filter(({ hasInstallScript }) => hasInstallScript);
  return [
    ...scripted
      .filter(({ production }) => production)
      .map(({ name }) => `${name} has an install script, and is for production`),
    ...scripted
      .filter(({ name }) => allowScripts[name] !== false)
      .map(({ name }) => `${name} has an install script: say no to it in allowScripts of package.json`),
  ];
}

if (import.meta.main) {
  const { default: manifest } = await import("../package.json", { with: { type: "json" } });
  const packages = readPackages();
  const faults = [...licenceFaults(packages), ...scriptFaults(packages, manifest.allowScripts)];
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  if (faults.length > 0) process.exitCode = 1;
}
