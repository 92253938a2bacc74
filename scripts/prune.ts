import { globSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/**
 * Takes out of node_modules what nobody here can use: half of what is installed. `npm ci` brings it back. Each package keeps its
 * package.json, so that npm takes it for installed.
 */
const modules = resolve(import.meta.dirname, "../node_modules");

const unused = [
  "**/*.map",
  "**/{README,CHANGELOG,HISTORY}.md",
  "node-*/include", // for compiling add-ons, of which this project has none
  // Query compilers for other databases, and the faster one of the two, which costs each start more than it gains.
  "{@prisma/client/runtime,prisma/build}/query_compiler_*.{cockroachdb,mysql,sqlite,sqlserver}.*",
  "{@prisma/client/runtime,prisma/build}/query_compiler_fast_*",
  // What `prisma studio` and `prisma dev` alone use.
  "{elkjs,react-dom,remeda,valibot,@visx/*,@prisma/query-plan-executor,@prisma/streams-local}/*",
  "@prisma/dev/node_modules",
  "@types/lodash/*",
  // Forms of packages that Node does not load.
  "effect/{src,dist/dts,dist/esm}",
  "zod/src",
  // The client generator of the tests prints with it; nothing compiles or edits.
  "oazapfts/node_modules/typescript/lib/{_tsc.js,_tsserver.js,lib.*.d.ts}",
  "bare-*/prebuilds",
];
/** Prisma's command line loads them whatever it is asked for, and uses nothing of them for what it is asked here. */
const emptied = "@prisma/{dev,studio-core}/dist/**/*.*";

for (const path of globSync(unused, { cwd: modules, exclude: ["**/package.json"] })) {
  rmSync(join(modules, path), { recursive: true, force: true });
}
for (const path of globSync(emptied, { cwd: modules })) writeFileSync(join(modules, path), "");
