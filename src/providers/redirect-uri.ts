import type { ProviderDefinition } from "./definition.ts";
import { clientInputs } from "./requirements.ts";

/** Who is sent back to an address: all clients of a provider, or one of them. */
type Returning = { provider: string; client: string | null };

/** Where a provider sends browsers back to (RFC 6749, section 3.1.2). A client's name has no character that a path would change. */
export function redirectUriOf(publicUrl: string, { provider, client }: Returning): string {
  return `${publicUrl}/callback/${provider}${client === null ? "" : `/${client}`}`;
}

/**
 * Whether clients of this provider have redirect URIs of their own: where an input of the client decides which server is asked,
 * one server must not get what another one answers (RFC 9700, section 4.4.2.2).
 */
export function wantsOwnRedirectUri(definition: ProviderDefinition): boolean {
  return definition.authorization !== null && clientInputs(definition).length > 0;
}
