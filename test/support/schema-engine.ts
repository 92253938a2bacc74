import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { PGlite } from "@electric-sql/pglite";
import type * as Bindings from "@prisma/schema-engine-wasm/schema_engine_bg";
import { bindMigrationAwareSqlAdapterFactory } from "@prisma/driver-adapter-utils";
import { PrismaPGlite } from "pglite-prisma-adapter";

type Engine = typeof Bindings;

/** The global of every JavaScript engine; TypeScript declares it only together with a browser's. */
declare const WebAssembly: {
  instantiate(bytes: Uint8Array, imports: Record<string, object>): Promise<{ instance: { exports: object } }>;
};

const filters = { externalTables: ["public._prisma_migrations"], externalEnums: [] };

/**
 * The SQL that leads from what `existingSql` makes to what prisma/schema.prisma says; a comment alone when they agree.
 * Empties the database first. Uses Prisma's own schema engine as WebAssembly, because the native one would have to be downloaded.
 */
export async function diffToSchema(database: PGlite, existingSql: readonly string[]): Promise<string> {
  const schema = await readFile(new URL("../../prisma/schema.prisma", import.meta.url), "utf8");
  await database.exec("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS audit CASCADE; CREATE SCHEMA public");
  for (const sql of existingSql) await database.exec(sql);
  const { SchemaEngine } = await (engine ??= instantiate());
  const adapter = bindMigrationAwareSqlAdapterFactory(new PrismaPGlite(database));
  const session = await SchemaEngine.new({ datamodels: [["schema.prisma", schema]] }, () => {}, adapter);
  const configDir = fileURLToPath(new URL("../../prisma", import.meta.url));
  const files = [{ path: "schema.prisma", content: schema }];
  const result = await session.diff({
    from: { tag: "schemaDatasource", files, configDir },
    to: { tag: "schemaDatamodel", files },
    script: true,
    exitCode: null,
    filters,
  });
  return result.stdout ?? "";
}

/** One for all calls: its bindings keep views of the memory of the first one that was made. */
let engine: Promise<Engine> | undefined;

/** The package expects a bundler that resolves `.wasm` imports; Node instantiates it by hand. */
async function instantiate(): Promise<Engine> {
  const bindings = await import("@prisma/schema-engine-wasm/schema_engine_bg");
  const file = new URL("schema_engine_bg.wasm", import.meta.resolve("@prisma/schema-engine-wasm/schema_engine_bg"));
  const { instance } = await WebAssembly.instantiate(await readFile(file), { "./schema_engine_bg.js": bindings });
  const { __wbg_set_wasm: setInstance } = bindings;
  const { __wbindgen_start: start } = instance.exports as { __wbindgen_start: () => void };
  setInstance(instance.exports);
  start();
  return bindings;
}
