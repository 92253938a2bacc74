import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { loadCatalog } from "../src/providers/load/catalog.ts";
import { generateDocs } from "./docs/generate.ts";
import { readRefusals } from "./docs/refusals.ts";

/** Writes docs/providers and providers/schema.json anew from the built-in definitions. */
const root = resolve(import.meta.dirname, "..");
const pages = join(root, "docs/providers");
const catalog = loadCatalog({ builtinFolder: join(root, "providers"), extraFolder: null, sandbox: null });
const files = generateDocs(await catalog.list(), readRefusals(join(root, "test/providers/transcripts")));

mkdirSync(pages, { recursive: true });
for (const name of readdirSync(pages)) if (!(`docs/providers/${name}` in files)) rmSync(join(pages, name));
for (const [path, text] of Object.entries(files)) writeFileSync(join(root, path), text);
