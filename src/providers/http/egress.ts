import dns from "node:dns";
import net from "node:net";
import { quotedSetting } from "../../text.ts";
import type { ProviderDefinition } from "../format/definition.ts";
import type { OutboundProxy, Proxies } from "./outbound-proxy.ts";

/**
 * A URL leads to an address that this broker must not reach. Nothing was sent. The message names the host of the URL, and
 * never what it resolves to.
 */
export class BlockedAddressError extends Error {
  /** What the host resolves to, for the broker's log alone; null: the URL itself is refused. */
  readonly resolved: string | null;

  constructor(message: string, resolved: string | null = null) {
    super(message);
    this.name = "BlockedAddressError";
    this.resolved = resolved;
  }
}

type Address = { address: string; family: number };
type Resolve = (host: string, answer: (error: Error | null, addresses: Address[]) => void) => void;

/** The route to a URL: its host, without brackets, and port; a lookup that returns only allowed addresses; and the proxy; null: none. */
export type Route = { url: URL; host: string; port: number; lookup: net.LookupFunction; proxy: OutboundProxy | null };

export type Egress = {
  /**
   * Checks a provider's URL after parsing, IP literals in all their spellings included, and returns a lookup that checks every resolved address
   * when connecting. For the sandbox, this broker's own origin is allowed and reached directly. The proxy's own address is not checked, since
   * the operator has set it; as a provider's address it is checked like any other.
   * @throws BlockedAddressError
   */
  route(url: string, provider: EgressProvider): Route;
};

export type EgressProvider = Pick<ProviderDefinition, "isSandbox" | "networks">;

/**
 * Allows https to public addresses only. `networks`: other networks that may be reached, also by http, by every provider whose definition
 * names none. An address at which a cloud tells a machine its credentials is reached only where an entry names it alone: a wider network
 * that holds it does not open it.
 */
export function createEgress(options: {
  networks: net.BlockList | null;
  trustedOrigin: string | null;
  proxies?: Omit<Proxies, "secrets">;
  resolve?: Resolve;
}): Egress {
  const { trustedOrigin, proxies = direct, resolve = systemResolve } = options;
  const parsed = new WeakMap<readonly string[], net.BlockList>();
  const networksOf = ({ networks }: EgressProvider): net.BlockList | null => {
    if (networks === null) return options.networks;
    const own = parsed.get(networks) ?? parseNetworks(networks.join(","));
    parsed.set(networks, own);
    return own;
  };
  return {
    route(text, provider) {
      const url = parseUrl(text);
      const networks = networksOf(provider);
      const exempt = provider.isSandbox && url.origin === trustedOrigin;
      const allowed = (address: string) => exempt || mayReach({ address, scheme: url.protocol, networks });
      const host = bareHost(url);
      if (net.isIP(host) !== 0 && !allowed(host)) throw blocked(url, null);
      // Also where a proxy resolves the name, so that nobody here sees the address.
      if (metadataName.test(host) && !exempt) throw blocked(url, null);
      const lookup = checkedLookup({ url, allowed, resolve });
      return { url, host, port: portOf(url), lookup, proxy: exempt ? null : proxyFor(url, proxies) };
    },
  };
}

/**
 * The networks of a comma list of CIDR blocks. An empty list names none.
 * @throws RangeError with a text for people
 */
export function parseNetworks(text: string): net.BlockList {
  const list = new net.BlockList();
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (entry !== "") addNetwork(list, entry);
  }
  return list;
}

function addNetwork(list: net.BlockList, entry: string): void {
  const [address = "", prefix = "", ...more] = entry.split("/");
  const family = net.isIP(address);
  const bits = family === 6 ? 128 : 32;
  if (family === 0 || more.length > 0 || !/^\d{1,3}$/.test(prefix) || Number(prefix) > bits) {
    throw new RangeError(`${quotedSetting(entry)} is not a CIDR block such as 10.0.0.0/8 or fd00::/8`);
  }
  list.addSubnet(address, Number(prefix), family === 6 ? "ipv6" : "ipv4");
}

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (!url) throw new BlockedAddressError("not a URL");
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new BlockedAddressError("only https URLs are reached");
  }
  if (url.username !== "" || url.password !== "") {
    throw new BlockedAddressError("a URL with a user name is not reached");
  }
  return url;
}

function mayReach(target: { address: string; scheme: string; networks: net.BlockList | null }): boolean {
  const { address, scheme, networks } = target;
  const family = net.isIP(address) === 6 ? "ipv6" : "ipv4";
  if (metadata.check(address, family)) return networks?.rules.includes(ruleOfOne(address)) === true;
  if (networks?.check(address, family)) return true;
  return scheme === "https:" && isPublic(address);
}

function checkedLookup(options: {
  url: URL;
  allowed: (address: string) => boolean;
  resolve: Resolve;
}): net.LookupFunction {
  const { url, allowed, resolve } = options;
  return (host, { all }, done) => {
    resolve(host, (error, found) => {
      // The connection uses one of these addresses and the name is not resolved again, so an address that is left out cannot be reached.
      const good = found.filter(({ address }) => allowed(address));
      const [first] = good;
      if (error) done(error, []);
      else if (!first) done(blocked(url, found[0]?.address ?? "no address"), []);
      else if (all) done(null, good);
      else done(null, first.address, first.family);
    });
  };
}

/** The proxy for a URL; null: it is reached directly. */
export function proxyFor(url: URL, { https, http, exceptions }: Omit<Proxies, "secrets">): OutboundProxy | null {
  if (exceptions.some((matches) => matches(url))) return null;
  return url.protocol === "https:" ? https : http;
}

const direct: Omit<Proxies, "secrets"> = { https: null, http: null, exceptions: [] };

const systemResolve: Resolve = (host, answer) => {
  dns.lookup(host, { all: true }, (error, addresses) => answer(error, addresses ?? []));
};

/** Why a URL is refused, whatever its host resolves to; null: it is not, or that depends on the addresses. */
export function whyNeverReached(url: URL, networks: net.BlockList | null): string | null {
  const literal = bareHost(url);
  const isLocal = /(^|\.)localhost\.?$/i.test(literal); // RFC 6761, section 6.3
  const known = net.isIP(literal) !== 0 ? [literal] : isLocal ? ["127.0.0.1", "::1"] : null;
  const someNetwork = (networks?.rules.length ?? 0) > 0;
  const mayBe =
    known === null
      ? !metadataName.test(literal) && (url.protocol === "https:" || someNetwork)
      : known.some((address) => mayReach({ address, scheme: url.protocol, networks }));
  return mayBe ? null : blocked(url, null).message;
}

/** The host of a URL, an IPv6 address without its brackets. */
export function bareHost({ hostname }: URL): string {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}

export function portOf({ port, protocol }: URL): number {
  return port === "" ? (protocol === "https:" ? 443 : 80) : Number(port);
}

/** The text: what is refused, by which rule, and how the operator can allow it. */
function blocked(url: URL, resolved: string | null): BlockedAddressError {
  const literal = bareHost(url);
  const family = net.isIP(literal);
  const network = family === 0 ? "the network of its address" : `${literal}/${family === 4 ? 32 : 128}`;
  const scheme = url.protocol === "https:" ? "" : " by http";
  const rule = "the egress rules of this broker allow https to public addresses alone";
  const remedy = metadataName.test(literal)
    ? "clouds tell a machine its credentials by this name, which no setting opens"
    : `to allow it, put ${network} into \`networks\` of the definition or into PROVIDER_NETWORKS`;
  return new BlockedAddressError(`${url.hostname} may not be reached${scheme}: ${rule}; ${remedy}`, resolved);
}

/** As `rules` of a BlockList writes an entry for this address alone. */
function ruleOfOne(address: string): string {
  return net.isIP(address) === 6 ? `Subnet: IPv6 ${address}/128` : `Subnet: IPv4 ${address}/32`;
}

/** Names of the same services. Other names are told by the address that they resolve to. */
const metadataName = /^(metadata|instance-data)(\.([a-z0-9-]+\.)*internal)?\.?$/i;

const metadataIpv4 = [
  "169.254.0.0/16", // link-local: of nearly every cloud
  "100.100.100.200/32", // among those shared by carriers' NAT
  "168.63.129.16/32", // a public address that one cloud answers at in every machine
  "192.0.0.192/32", // among the protocol assignments
];

/** Where clouds tell a machine its credentials, in every form in which a translator may reach them (RFC 6052, RFC 3056, RFC 4291, RFC 2765). */
const metadata = parseNetworks(
  [
    ...metadataIpv4,
    ...metadataIpv4.flatMap(asIpv6),
    "fe80::/10", // link-local
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "fd00:42::42/128",
    "fd00:a9fe:a9fe::1/128",
  ].join(),
);

/** The same addresses, embedded in IPv6. BlockList knows those that are mapped (`::ffff:…`) by itself. */
function asIpv6(block: string): string[] {
  const [address = "", bits = ""] = block.split("/");
  const [a = 0, b = 0, c = 0, d = 0] = address.split(".").map(Number);
  const last = ["64:ff9b::", "64:ff9b:1::", "::", "::ffff:0:"].map(
    (prefix) => `${prefix}${address}/${96 + Number(bits)}`,
  );
  return [...last, `2002:${hex(a, b)}:${hex(c, d)}::/${16 + Number(bits)}`];
}

function hex(high: number, low: number): string {
  return (high * 256 + low).toString(16);
}

/** Whether an address is of the public internet, by the special-purpose registries of IPv4 and IPv6 (RFC 6890). */
function isPublic(address: string): boolean {
  const family = net.isIP(address);
  if (family === 4) return !specialIpv4.check(address, "ipv4");
  // Addresses that embed an IPv4 address (mapped, NAT64, 6to4, Teredo) lie outside of 2000::/3 or in the list below.
  return family === 6 && globalIpv6.check(address, "ipv6") && !specialIpv6.check(address, "ipv6");
}

const specialIpv4 = parseNetworks(
  [
    "0.0.0.0/8", // this network
    "10.0.0.0/8", // private
    "100.64.0.0/10", // shared by carriers' NAT
    "127.0.0.0/8", // loopback
    "169.254.0.0/16", // link-local, cloud metadata
    "172.16.0.0/12", // private
    "192.0.0.0/24", // protocol assignments
    "192.0.2.0/24", // documentation
    "192.31.196.0/24", // AS112
    "192.52.193.0/24", // AMT
    "192.88.99.0/24", // 6to4 relays
    "192.168.0.0/16", // private
    "192.175.48.0/24", // AS112
    "198.18.0.0/15", // benchmarks
    "198.51.100.0/24", // documentation
    "203.0.113.0/24", // documentation
    "224.0.0.0/4", // multicast
    "240.0.0.0/4", // reserved, broadcast
  ].join(),
);

const globalIpv6 = parseNetworks("2000::/3");

const specialIpv6 = parseNetworks(
  [
    "2001::/23", // protocol assignments: Teredo, ORCHID, benchmarks
    "2001:db8::/32", // documentation
    "2002::/16", // 6to4
    "2620:4f:8000::/48", // AS112
    "3fff::/20", // documentation
  ].join(),
);
