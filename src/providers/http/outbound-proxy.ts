import net from "node:net";
import { quotedSetting } from "../../text.ts";
import { authority } from "./open-connection.ts";
import { bareHost, portOf } from "./egress.ts";

/** A proxy on the way to providers. Its password is only in `authorization` and `secrets`, which are not enumerable. */
export type OutboundProxy = {
  /** Host and port, for people. */
  readonly name: string;
  /** The variable that names it. */
  readonly setting: "HTTPS_PROXY" | "HTTP_PROXY";
  readonly isTls: boolean;
  readonly host: string;
  readonly port: number;
  /** The proxy resolves host names itself. */
  readonly byName: boolean;
  /** The value of `Proxy-Authorization` (RFC 9110, section 11.7.1), without its name. */
  readonly authorization: string | null;
  /** Texts that must never be shown or logged. */
  readonly secrets: readonly string[];
};

export type Proxies = {
  /** For `https:` and `http:` URLs; null: they are reached directly. */
  https: OutboundProxy | null;
  http: OutboundProxy | null;
  /** What NO_PROXY names: a URL that one of them matches is reached directly. */
  exceptions: readonly Exception[];
  /** The secrets of all proxies, which must never be shown or logged. */
  secrets: readonly string[];
};

export type ProxySettings = {
  httpsProxy: string | null;
  httpProxy: string | null;
  /** A comma list. */
  noProxy: string | null;
  proxyConnect: "by_address" | "by_name";
};

/**
 * What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
 * @throws RangeError with a text for people, which names the variable and holds no password
 */
export function readProxies(settings: ProxySettings): Proxies {
  const byName = settings.proxyConnect === "by_name";
  const https = parseProxy("HTTPS_PROXY", settings.httpsProxy, byName);
  const http = parseProxy("HTTP_PROXY", settings.httpProxy, byName);
  const exceptions = splitList(settings.noProxy).map(parseException);
  return {
    https,
    http,
    exceptions,
    secrets: [https, http].flatMap((proxy) => proxy?.secrets ?? []),
  };
}

function parseProxy(setting: OutboundProxy["setting"], text: string | null, byName: boolean): OutboundProxy | null {
  if (text === null) return null;
  const url = URL.parse(text);
  const isPlain = url !== null && url.pathname.length <= 1 && url.search === "" && url.hash === "";
  const [user, password] = isPlain ? [decode(url.username), decode(url.password)] : [null, null];
  if (!isPlain || !/^https?:$/.test(url.protocol) || user === null || password === null) {
    const special = "with special characters in user and password percent-encoded";
    throw new RangeError(`${setting} must be a URL http://user:password@host:port, or https://…, ${special}`);
  }
  const pair = user === "" && password === "" ? null : Buffer.from(`${user}:${password}`, "utf8").toString("base64");
  const proxy = {
    name: authority(bareHost(url), portOf(url)),
    setting,
    isTls: url.protocol === "https:",
    host: bareHost(url),
    port: portOf(url),
    byName,
  };
  const hidden = {
    authorization: pair === null ? null : `Basic ${pair}`,
    secrets: [password, pair].filter((secret) => secret !== null && secret !== ""),
  };
  Object.defineProperties(proxy, {
    authorization: { value: hidden.authorization, enumerable: false },
    secrets: { value: hidden.secrets, enumerable: false },
  });
  return proxy as OutboundProxy;
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

type Exception = (url: URL) => boolean;

/** `*`, a host with its subdomains, an address, or a CIDR block; with `:port` only for that port. */
function parseException(entry: string): Exception {
  if (entry === "*") return () => true;
  const block = /^([\d.]+|\[?[\da-f:.]+\]?)\/(\d{1,3})$/i.exec(entry);
  if (block) return inBlock(entry, block[1]?.replace(/^\[(.*)\]$/, "$1") ?? "", Number(block[2]));
  const bare = net.isIPv6(entry) ? `[${entry}]` : entry.replace(/^\*?\./, "");
  const url = /^[^\s/@?#]+$/.test(bare) ? URL.parse(`http://${bare}`) : null;
  if (url === null || url.hostname === "") return refuse(entry);
  const port = /:(\d+)$/.exec(bare.replace(/^\[[^\]]*\]/, ""))?.[1];
  const host = withoutDot(url.hostname);
  return (asked) => {
    const name = withoutDot(asked.hostname);
    const isHost = name === host || (net.isIP(bareHost(url)) === 0 && name.endsWith(`.${host}`));
    return isHost && (port === undefined || portOf(asked) === Number(port));
  };
}

function inBlock(entry: string, address: string, prefix: number): Exception {
  const family = net.isIP(address);
  if (family === 0 || prefix > (family === 4 ? 32 : 128)) return refuse(entry);
  const list = new net.BlockList();
  list.addSubnet(address, prefix, family === 6 ? "ipv6" : "ipv4");
  return (asked) => {
    const host = bareHost(asked);
    return net.isIP(host) === family && list.check(host, family === 6 ? "ipv6" : "ipv4");
  };
}

function refuse(entry: string): never {
  throw new RangeError(
    `NO_PROXY must be a comma list of host names, addresses and CIDR blocks, or *: ${quotedSetting(entry)} is none of these`,
  );
}

function withoutDot(host: string): string {
  return host.replace(/\.$/, "");
}

function splitList(text: string | null): string[] {
  return (text ?? "")
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}
