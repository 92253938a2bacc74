"use strict";
// Starts an entry of this project: from the bundle that `npm run build` has made of these very sources, or else, a second slower,
// from the sources themselves. docs/decisions/0015-bundle.md says why. Plain JavaScript, so that nothing has to be loaded to read it.
require("./node-version.cjs"); // before anything that an old Node.js does not have
const { hash } = require("node:crypto");
const { existsSync, readdirSync, readFileSync, statSync, writeFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { setFlagsFromString } = require("node:v8");
const vm = require("node:vm");

const root = path.join(__dirname, "..");
const build = path.join(root, "build");
/** What the sources were when the bundle was made of them. Written when the bundle is whole, and gone if that did not start. */
const record = path.join(build, "sources");

/** @type {Map<string, { script: vm.Script, exports: unknown }>} */
const parts = new Map();
const requireInstalled = createRequire(path.join(build, "bundle.cjs"));

/**
 * @param {string} entry a name in build/, without its ending
 * @param {string} source the same in src/
 */
function load(entry, source) {
  const bundled = bundleOf(entry);
  if (bundled === null) void import(pathToFileURL(path.join(root, source)).href);
  else bundled();
}

/** Null: it is made of other sources, or something of it is not as it was made. A part of it is loaded as late as it is needed. */
function bundleOf(entry) {
  try {
    if (readFileSync(record, "utf8") !== stamp()) return null;
    compile(`./${entry}.cjs`);
    return () => void requirePart(`./${entry}.cjs`);
  } catch {
    return null;
  }
}

/** What the record holds while the bundle is made of these sources, and whole. */
function stamp() {
  return `${fingerprint()}\n${sizes()}`;
}

/** Of all parts of the bundle: a file that was cut off, or is not there, is told without reading it. */
function sizes() {
  const names = (existsSync(build) ? readdirSync(build) : []).filter((name) => name.endsWith(".cjs"));
  return names
    .map((name) => `${name} ${statSync(path.join(build, name)).size}`)
    .sort()
    .join("\n");
}

/** Of all that the bundle is made of: a changed file, a new or a missing one, and other versions of what is installed. */
function fingerprint() {
  const files = readdirSync(path.join(root, "src"), { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const names = files.map((entry) => path.join(entry.parentPath, entry.name)).sort();
  names.push(path.join(root, "package-lock.json"));
  const contents = names
    .filter((name) => existsSync(name))
    .map((name) => `${name.slice(root.length)}\n${readFileSync(name, "utf8")}`);
  return hash("sha256", contents.join("\n"));
}

/** As `require`, with the code that V8 compiled when the bundle was made. It compiles anew what does not fit it. */
function requirePart(name) {
  if (!name.startsWith("./")) return requireInstalled(name);
  const known = parts.get(name);
  if (known !== undefined) return known.exports;
  const { script, filename } = compile(name);
  const module = { exports: {} };
  parts.set(name, { script, exports: module.exports });
  script.runInThisContext()(module.exports, requirePart, module, filename, build);
  parts.set(name, { script, exports: module.exports });
  return module.exports;
}

function compile(name) {
  const filename = path.join(build, name);
  const source = `(function (exports, require, module, __filename, __dirname) {${readFileSync(filename, "latin1")}\n})`;
  const script = new vm.Script(source, {
    filename,
    ...(existsSync(`${filename}.cache`) ? { cachedData: readFileSync(`${filename}.cache`) } : {}),
  });
  return { script, filename };
}

/** Keeps what V8 has compiled so far, for the next start. */
function keepCompiled() {
  // Compiled code counts for the same flags alone, and src/store/embedded.ts has set this one.
  for (const flag of ["--no-liftoff-only", "--wasm-tier-up", "--wasm-dynamic-tiering"]) setFlagsFromString(flag);
  for (const [name, { script }] of parts) writeFileSync(path.join(build, `${name}.cache`), script.createCachedData());
}

module.exports = { fingerprint, keepCompiled, load, parts, record, requirePart, stamp };
