import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { temporaryFolder } from "../services/guardian.ts";
import type { DefinitionFile } from "./strict-server.ts";

type Defines = { definitions(): DefinitionFile[] };

/** Writes the definitions of started servers, one YAML file each, into a folder for `PROVIDERS_DIR`. */
export async function providersFolder(...servers: Defines[]): Promise<string> {
  const folder = await temporaryFolder("providers");
  for (const server of servers) await overrideFiles(server, folder.path);
  return folder.path;
}

/** Writes, or replaces, one server's files: after its switches changed, say. */
export async function overrideFiles(server: Defines, folder: string): Promise<void> {
  for (const definition of server.definitions()) {
    await writeFile(join(folder, `${definition.id}.yaml`), stringify(definition));
  }
}
