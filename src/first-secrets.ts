import { randomBytes } from "node:crypto";
import type { Config, EncryptionKeySetting } from "./config.ts";
import { StartupError } from "./errors.ts";
import type { DataDir } from "./store/data-dir.ts";

/** The secrets that the broker itself needs, given or made on the first start of an embedded one. */
export type FirstSecrets = {
  encryptionKeys: readonly EncryptionKeySetting[];
  adminKeys: readonly string[];
  /** Where a made admin key is kept; null: it was given. */
  adminKeyFile: { path: string; value: string; isNew: boolean } | null;
};

/** @throws StartupError when a kept secret is damaged */
export async function findSecrets(config: Config, dataDir: DataDir): Promise<FirstSecrets> {
  if (config.databaseUrl !== null) {
    return { encryptionKeys: config.encryptionKeys ?? [], adminKeys: config.adminKeys, adminKeyFile: null };
  }
  const encryptionKeys = config.encryptionKeys ?? [await keptEncryptionKey(dataDir)];
  if (config.adminKeys.length > 0) return { encryptionKeys, adminKeys: config.adminKeys, adminKeyFile: null };
  const kept = await dataDir.secret("admin-key", () => randomBytes(32).toString("base64url"));
  if (!/^[\x21-\x7e]{32,}$/.test(kept.value)) {
    throw new StartupError(`${kept.path} must hold at least 32 printable ASCII characters, no spaces`);
  }
  return { encryptionKeys, adminKeys: [kept.value], adminKeyFile: kept };
}

async function keptEncryptionKey(dataDir: DataDir): Promise<EncryptionKeySetting> {
  const { value, path } = await dataDir.secret("encryption-key", () => `k1:${randomBytes(32).toString("base64")}`);
  const [id = "", encoded = ""] = value.split(":");
  const key = Buffer.from(encoded, "base64");
  if (id === "" || key.length !== 32) throw new StartupError(`${path} must hold one id:base64(32 bytes)`);
  return { id, key };
}
