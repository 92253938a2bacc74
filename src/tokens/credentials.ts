import type { TokenRow } from "../store/token-row.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { entrustedPlace } from "./destination.ts";

/** What a person entrusted a connection with: what a login needs, and inputs that are secrets. In the clear. */
export type Entrusted = { credentials: Record<string, string>; secretInputs: Record<string, string> };

const inputPrefix = "inputs.";

/** Both in one sealed record: inputs under their full name. */
export function joinEntrusted({ credentials, secretInputs }: Entrusted): Record<string, string> {
  const inputs = Object.entries(secretInputs).map(([name, value]) => [`${inputPrefix}${name}`, value] as const);
  return { ...credentials, ...Object.fromEntries(inputs) };
}

function splitEntrusted(joined: Readonly<Record<string, string>>): Entrusted {
  const entries = Object.entries(joined);
  const inputs = entries.filter(([name]) => name.startsWith(inputPrefix));
  return {
    credentials: Object.fromEntries(entries.filter(([name]) => !name.startsWith(inputPrefix))),
    secretInputs: Object.fromEntries(inputs.map(([name, value]) => [name.slice(inputPrefix.length), value])),
  };
}

type EntrustedRow = Parameters<typeof entrustedPlace>[0] & Pick<TokenRow, "credentials" | "credentialsRevision">;

/** Opens what a connection was entrusted with; nothing where there is nothing. */
export function openEntrusted(
  vault: Pick<TokenVault, "openCredentials">,
  row: EntrustedRow | { credentials?: never },
): Entrusted {
  if (!row.credentials) return splitEntrusted({});
  const place = entrustedPlace(row, { revision: row.credentialsRevision });
  return splitEntrusted(vault.openCredentials(row.credentials, place));
}
