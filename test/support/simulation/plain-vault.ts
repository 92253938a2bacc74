import type { Place } from "../../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../../src/vault/vault.ts";

const separator = "\n";

function prefixOf({ table, row, column, revision }: Place): string {
  return [table, row, column, revision].join("/") + separator;
}

/** A vault that binds records to their places as the real one does, and hides nothing. */
export function createPlainVault(): TokenVault {
  const vault = createTokenVault({
    current: () => "k1",
    seal: (text, place) => new Uint8Array(Buffer.from(prefixOf(place) + text)),
    open(record, place) {
      const text = Buffer.from(record.buffer, record.byteOffset, record.byteLength).toString();
      const prefix = prefixOf(place);
      if (!text.startsWith(prefix)) throw new Error(`not sealed for ${prefix.trim()}`);
      return text.slice(prefix.length);
    },
    hostsOf: () => [],
    // Nobody writes rows by hand here.
    sign: () => "proof",
    verify: () => "authentic",
  });
  return { ...vault, isCurrent: () => true };
}

/** What a record holds, wherever it belongs. */
export function plainText(record: Uint8Array): string {
  const text = Buffer.from(record.buffer, record.byteOffset, record.byteLength).toString();
  return text.slice(text.indexOf(separator) + 1);
}
