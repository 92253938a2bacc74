import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { readPackages } from "./packages.ts";

/**
 * Prints what the image is made of, as CycloneDX. npm makes the document; its own `--omit=dev` also leaves out packages that production has in
 * common with tools (npm 11), so those for production are chosen here.
 */
type Component = { "bom-ref": string; name: string; version: string };
type Document = { components: Component[]; dependencies?: { ref: string; dependsOn: string[] }[] };

const root = resolve(import.meta.dirname, "..");
const args = ["sbom", "--sbom-format=cyclonedx", "--package-lock-only"];
const whole = JSON.parse(execFileSync("npm", args, { cwd: root, encoding: "utf8", maxBuffer: 2 ** 26 })) as Document;
const production = new Set(
  readPackages(root).flatMap(({ name, version, production: is }) => (is ? [`${name}@${version}`] : [])),
);
const components = whole.components.filter(({ name, version }) => production.has(`${name}@${version}`));
const refs = new Set(components.map((component) => component["bom-ref"]));
const dependencies = (whole.dependencies ?? []).flatMap(({ ref, dependsOn }) =>
  refs.has(ref) || !whole.components.some((each) => each["bom-ref"] === ref)
    ? [{ ref, dependsOn: dependsOn.filter((each) => refs.has(each)) }]
    : [],
);
process.stdout.write(`${JSON.stringify({ ...whole, components, dependencies }, null, 2)}\n`);
