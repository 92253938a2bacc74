import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { type Plugin, rolldown } from "rolldown";

const root = resolve(import.meta.dirname, "..");
const entries = { broker: "src/main.ts", freshet: "src/cli/freshet.ts" };

/** They read files beside their own code, and are loaded when they are needed. */
const external = [/^@electric-sql\/pglite/, /^@fastify\/swagger-ui$/];

/** Writes each entry with all that it imports into one file of `folder`. */
export async function bundle({ folder, plugins = [] }: { folder: string; plugins?: Plugin[] }): Promise<void> {
  for (const [name, input] of Object.entries(entries)) {
    const made = await rolldown({
      input: { [name]: input },
      cwd: root,
      platform: "node",
      external,
      plugins: [queryCompiler, asciiOnly, ...plugins],
      logLevel: "warn",
    });
    await made.write({
      dir: folder,
      // An `import` of Node's own `http` would also load the WebSocket and the fetch that stand in it.
      format: "cjs",
      dynamicImportInCjs: false,
      entryFileNames: "[name].cjs",
      chunkFileNames: `${name}-[name].cjs`,
    });
    await made.close();
  }
}

/** Prisma's generated code takes its query compiler from 4 MB of base64; here it is a file of bytes. */
const queryCompiler: Plugin = {
  name: "query compiler as a file",
  load: {
    filter: { id: /query_compiler_.*\.wasm-base64\.mjs$/ },
    handler(id) {
      const [, base64] = /wasm = "([^"]+)"/.exec(readFileSync(id, "utf8")) ?? [];
      if (base64 === undefined) throw new Error(`no query compiler in ${id}`);
      this.emitFile({ type: "asset", fileName: "query-compiler.wasm", source: Buffer.from(base64, "base64") });
      // `Buffer.from(wasm, "base64")` of bytes gives the bytes.
      return `import { readFileSync } from "node:fs"; import { join } from "node:path";
        export const wasm = readFileSync(join(__dirname, "query-compiler.wasm"));`;
    },
  },
};

/** bin/load.cjs reads the bundle as Latin-1, since V8 keeps a source with any other character in two bytes a character. */
const asciiOnly: Plugin = {
  name: "ASCII only",
  generateBundle(_options, files) {
    for (const file of Object.values(files)) {
      if (file.type === "chunk") file.code = file.code.replaceAll(/[\u0080-\uffff]/g, escaped);
    }
  },
};

function escaped(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
