import type { LookupAddress } from "node:dns";
import { describe, expect, test } from "vitest";
import { BlockedAddressError, createEgress, parseNetworks } from "../../../src/providers/http/egress.ts";

const open = { networks: null, trustedOrigin: null };

function reaches(url: string, networks = ""): boolean {
  try {
    createEgress({ ...open, networks: parseNetworks(networks) }).route(url, { isSandbox: false, networks: null });
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(BlockedAddressError);
    return false;
  }
}

describe("addresses in a URL", () => {
  test.each([
    "https://8.8.8.8/token",
    "https://[2606:4700:4700::1111]/token",
    "https://login.example/token",
    "https://172.32.0.1/",
    "https://100.128.0.1/",
  ])("%s may be reached", (url) => expect(reaches(url)).toBe(true));

  test.each([
    "http://8.8.8.8/token", // public, but not https
    "ftp://8.8.8.8/",
    "file:///etc/passwd",
    "https://user@8.8.8.8/",
    "nonsense",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/",
    "https://192.0.0.8/",
    "https://192.0.2.1/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::]/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[fc00::1]/",
    "https://[fd12::1]/",
    "https://[fe80::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://[5f00::1]/",
  ])("%s may not", (url) => expect(reaches(url)).toBe(false));

  test("a network that is named may be reached, by http too, and nothing beside it", () => {
    expect(reaches("http://127.0.0.1:9000/", "127.0.0.0/8")).toBe(true);
    expect(reaches("https://10.1.2.3/", "127.0.0.0/8, 10.0.0.0/8")).toBe(true);
    expect(reaches("http://[fd12::1]/", "fd00::/8")).toBe(true);
    expect(reaches("http://11.0.0.1/", "10.0.0.0/8")).toBe(false);
    expect(reaches("http://[::1]/", "127.0.0.0/8")).toBe(false);
  });
});

/** Where clouds tell a machine its credentials, each with a network that an operator may have named. */
const metadataServices = [
  ["169.254.169.254", "169.254.0.0/16"],
  ["169.254.169.254", "0.0.0.0/0"],
  ["169.254.170.2", "169.254.170.0/24"],
  ["169.254.170.23", "169.254.170.22/31"],
  ["169.254.42.42", "169.254.0.0/16"],
  ["169.254.0.23", "169.254.0.0/16"],
  ["100.100.100.200", "100.64.0.0/10"],
  ["168.63.129.16", "168.63.0.0/16"],
  ["192.0.0.192", "192.0.0.0/24"],
  ["fd00:ec2::254", "fd00::/8"],
  ["fd00:ec2::23", "fc00::/7"],
  ["fd20:ce::254", "fd20:ce::/32"],
  ["fd00:42::42", "fd00:42::/64"],
  ["fd00:a9fe:a9fe::1", "fd00::/8"],
  ["fe80::a9fe:a9fe", "fe80::/10"],
  ["::ffff:169.254.169.254", "169.254.0.0/16"],
  ["::ffff:168.63.129.16", "::ffff:0:0/96"],
  ["64:ff9b::a9fe:a9fe", "64:ff9b::/96"],
  ["64:ff9b::a83f:8110", "::/0"],
  ["64:ff9b:1::6464:64c8", "64:ff9b:1::/48"],
  ["2002:a9fe:a9fe::1", "2002::/16"],
  ["2002:c000:c0::", "2000::/3"],
  ["::a9fe:a9fe", "::/96"],
  ["::ffff:0:a9fe:a9fe", "::/0"],
] as const;

const urlOf = (scheme: string, address: string) => `${scheme}://${address.includes(":") ? `[${address}]` : address}/`;

describe("addresses at which a cloud tells a machine its credentials", () => {
  test.each(metadataServices)(
    "%s is not opened by nothing, nor by %s, as a literal or behind a name",
    async (address, network) => {
      for (const scheme of ["https", "http"]) {
        for (const networks of ["", network]) {
          expect(reaches(urlOf(scheme, address), networks)).toBe(false);
          if (scheme === "http" && networks === "") continue;
          const found = await lookUp({ url: `${scheme}://name.example`, found: [address], networks });
          expect(found.error).toBeInstanceOf(BlockedAddressError);
        }
      }
    },
  );

  test("one is opened by an entry for it alone, and none beside it", () => {
    const alone = "10.0.0.0/8, 169.254.169.254/32, fd00:ec2::254/128";
    expect(reaches("http://169.254.169.254/", alone)).toBe(true);
    expect(reaches("https://[fd00:ec2::254]/", alone)).toBe(true);
    expect(reaches("http://10.1.1.1/", alone)).toBe(true);
    for (const address of ["169.254.169.253", "[fd00:ec2::23]", "[64:ff9b::a9fe:a9fe]"]) {
      expect(reaches(`http://${address}/`, alone)).toBe(false);
    }
  });

  test("what lies beside them is reached as before", () => {
    for (const url of ["https://168.63.129.17/", "https://168.63.128.16/"]) expect(reaches(url)).toBe(true);
    const wide = "100.64.0.0/10, 64:ff9b::/96, fd00::/8";
    for (const host of ["100.100.100.201", "[64:ff9b::808:808]", "[fd20:ce::255]"]) {
      expect(reaches(`http://${host}/`, wide)).toBe(true);
    }
  });

  test.each(["metadata", "metadata.any.internal", "METADATA.any.internal.", "instance-data.zone-1.any.internal"])(
    "%s is no name of a provider, whoever resolves it",
    (host) => {
      const networks = "0.0.0.0/0, ::/0";
      expect(() =>
        createEgress({ ...open, networks: parseNetworks(networks) }).route(`http://${host}/`, {
          isSandbox: false,
          networks: null,
        }),
      ).toThrow(/clouds tell a machine its credentials by this name, which no setting opens/);
    },
  );

  test.each(["metadata.example.com", "login.metadata.internal", "mymetadata.internal"])("%s may be one", (host) => {
    expect(reaches(`https://${host}/`)).toBe(true);
  });
});

describe("this broker's own origin", () => {
  const egress = createEgress({ networks: null, trustedOrigin: "http://127.0.0.1:8080" });

  test("is reached by the sandbox alone", () => {
    expect(egress.route("http://127.0.0.1:8080/sandbox/token", { isSandbox: true, networks: null }).url.port).toBe(
      "8080",
    );
    expect(() => egress.route("http://127.0.0.1:8080/sandbox/token", { isSandbox: false, networks: null })).toThrow(
      BlockedAddressError,
    );
  });

  test("does not open another port", () => {
    expect(() => egress.route("http://127.0.0.1:8081/", { isSandbox: true, networks: null })).toThrow(
      BlockedAddressError,
    );
  });
});

type Answer = { error: Error | null; addresses: LookupAddress[] | string };

function lookUp(options: {
  url: string;
  found: string[];
  networks?: string;
  all?: boolean;
  error?: Error;
}): Promise<Answer> {
  const { url, found, networks = "", all = true, error = null } = options;
  const addresses = found.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
  const egress = createEgress({
    networks: parseNetworks(networks),
    trustedOrigin: null,
    resolve: (_host, answer) => answer(error, addresses),
  });
  const { lookup } = egress.route(url, { isSandbox: false, networks: null });
  return new Promise((resolve) => {
    lookup("name.example", { all }, (failure, answer) => resolve({ error: failure, addresses: answer }));
  });
}

describe("addresses that a name resolves to", () => {
  test("public ones are connected to", async () => {
    const answer = await lookUp({ url: "https://name.example", found: ["8.8.8.8", "2606:4700::1"] });
    expect(answer.error).toBeNull();
    expect(answer.addresses).toHaveLength(2);
    expect((await lookUp({ url: "https://name.example", found: ["8.8.8.8"], all: false })).addresses).toBe("8.8.8.8");
  });

  test("private ones among them are left out", async () => {
    const answer = await lookUp({ url: "https://name.example", found: ["127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1"] });
    expect(answer.addresses).toEqual([{ address: "8.8.8.8", family: 4 }]);
  });

  test.each([
    ["https://name.example", "169.254.169.254"],
    ["http://name.example", "8.8.8.8"],
  ])(
    "%s at %s is blocked, and the text names the host and the remedy, and not what it resolves to",
    async (url, address) => {
      const { error } = await lookUp({ url, found: [address] });
      expect(error).toBeInstanceOf(BlockedAddressError);
      expect(error?.message).toContain("name.example may not be reached");
      expect(error?.message).not.toContain(address);
      expect(error).toHaveProperty("resolved", address);
      expect(error?.message).toContain("PROVIDER_NETWORKS");
    },
  );

  test("http goes to the addresses of a named network alone", async () => {
    const answer = await lookUp({ url: "http://name.example", found: ["8.8.8.8", "10.0.0.1"], networks: "10.0.0.0/8" });
    expect(answer.addresses).toEqual([{ address: "10.0.0.1", family: 4 }]);
  });

  test("a name that does not resolve is an error of the resolver, not a blocked address", async () => {
    const { error } = await lookUp({ url: "https://name.example", found: [], error: new Error("ENOTFOUND") });
    expect(error).not.toBeInstanceOf(BlockedAddressError);
  });
});

describe("a list of networks", () => {
  test.each([
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0/8",
    "fd00::/129",
    "x/8",
    "10.0.0.0/8/8",
    "10.0.0.0/-1",
    "127.0.0.0/8,,nope",
  ])("%s is refused with an example of what is allowed", (text) =>
    expect(() => parseNetworks(text)).toThrow(/is not a CIDR block such as 10\.0\.0\.0\/8/),
  );

  test("an empty one names none", () => {
    expect(parseNetworks("").rules).toEqual([]);
    expect(parseNetworks(" 10.0.0.0/8 , fd00::/8 ").rules).toHaveLength(2);
  });
});
