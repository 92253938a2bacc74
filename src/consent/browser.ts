import { hkdfSync } from "node:crypto";
import type { Keyring } from "../vault/keyring.ts";

const cookieSeconds = 7 * 24 * 3600; // the longest life of a link
const cookieShape = /^[A-Za-z0-9_-]{43}$/;

/** One browser at one link: what its forms and its verifiers are bound to. */
export type BrowserAtLink = { browser: string; link: string };

/** With https the `__Host-` prefix, which no other host and no plain http can set (RFC 6265bis, section 4.1.3.2). */
const cookieName = (publicUrl: string) =>
  publicUrl.startsWith("https:") ? "__Host-freshet_browser" : "freshet_browser";

/** A new value of the cookie that tells browsers apart: 256 random bits. */
export function createBrowser(randomBytes: (size: number) => Uint8Array): string {
  return Buffer.from(randomBytes(32)).toString("base64url");
}

/** The browser that a request's cookies tell of; null when there is none, or one that is not ours. */
export function readBrowser(cookies: Readonly<Record<string, string | undefined>>, publicUrl: string): string | null {
  const value = cookies[cookieName(publicUrl)] ?? "";
  return cookieShape.test(value) ? value : null;
}

/** The cookie to set. Lax: the callback is a navigation that another site starts. */
export function browserCookie(publicUrl: string) {
  const secure = publicUrl.startsWith("https:");
  const options = { path: "/", maxAge: cookieSeconds, httpOnly: true, sameSite: "lax", secure } as const;
  return { name: cookieName(publicUrl), options };
}

/** What forms are bound by. Their proofs carry the id of their key, so that a rotation of keys ends no form that is open. */
export type FormKeys = Pick<Keyring, "sign" | "verify" | "deriveWith">;

const formPurpose = "consent form";
const formText = ({ browser, link }: BrowserAtLink) => JSON.stringify([browser, link]);

/** The hidden field of a form: what another site cannot know, since it sees neither cookie nor page. */
export function csrfToken(keys: FormKeys, at: BrowserAtLink): string {
  return keys.sign(formPurpose, formText(at));
}

export function csrfMatches(keys: FormKeys, at: BrowserAtLink, given: string): boolean {
  return keys.verify(formPurpose, formText(at), given) === "authentic";
}

/**
 * Bytes that only this broker can make and that are the same at every look at one form: for what a GET shows but must not
 * store. They come from the key that made the form's token, so that its POST finds them again after a rotation.
 */
export function derivedBytes(
  keys: FormKeys,
  purpose: string,
  { browser, link, csrf }: BrowserAtLink & { csrf: string },
) {
  const key = keys.deriveWith(csrf, "consent forms");
  return (size: number) => Buffer.from(hkdfSync("sha256", key, link, JSON.stringify([purpose, browser]), size));
}
