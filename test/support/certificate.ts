import { sign, type KeyObject } from "node:crypto";
import { isIPv4 } from "node:net";

/**
 * A certificate (RFC 5280, section 4.1) of an elliptic key, signed by that key itself, as PEM. It names nobody but these hosts, which
 * are DNS names or IPv4 addresses (section 4.2.1.6).
 */
export function selfSigned(
  { publicKey, privateKey }: { publicKey: KeyObject; privateKey: KeyObject },
  hosts: readonly string[] = [],
): string {
  const algorithm = sequence(der(0x06, Buffer.from("2a8648ce3d040302", "hex"))); // ecdsa-with-SHA256
  const nobody = sequence();
  const validity = sequence(der(0x17, Buffer.from("200101000000Z")), der(0x17, Buffer.from("491231235959Z")));
  const key = publicKey.export({ format: "der", type: "spki" });
  const serial = der(0x02, Buffer.of(1));
  const version = der(0xa0, der(0x02, Buffer.of(2)));
  const names = hosts.map((host) => (isIPv4(host) ? der(0x87, addressBytes(host)) : der(0x82, Buffer.from(host))));
  const alternative = sequence(der(0x06, Buffer.from("551d11", "hex")), der(0x04, sequence(...names)));
  const more = hosts.length === 0 ? [] : [der(0xa3, sequence(alternative))];
  const body = sequence(version, serial, algorithm, nobody, validity, nobody, key, ...more);
  const signature = der(0x03, Buffer.concat([Buffer.of(0), sign("sha256", body, privateKey)]));
  const base64 = sequence(body, algorithm, signature).toString("base64");
  return `-----BEGIN CERTIFICATE-----\n${base64.replaceAll(/.{64}(?!$)/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
}

const sequence = (...parts: Buffer[]) => der(0x30, Buffer.concat(parts));

const addressBytes = (host: string) => Buffer.from(host.split(".").map(Number));

function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const head = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from(head), content]);
}
