/** What keeps a server from being reached, by the code of Node's error, and what to do about it. Nothing of an address stands in it. */
const troubles: Readonly<Record<string, string>> = {
  ENOTFOUND: "its host is not known; correct the host, or have it in the DNS",
  EAI_AGAIN: "its host cannot be looked up right now; see to the DNS, or correct the host",
  ECONNREFUSED: "nothing listens at its host and port; start it there, or correct host and port",
  ECONNRESET: "it cuts the connection off; correct the port, and see whether it expects TLS",
  EPIPE: "it cuts the connection off; correct the port, and see whether it expects TLS",
  ETIMEDOUT: "its host does not answer in time; correct host and port, or let the firewall pass",
  EHOSTUNREACH: "no way leads to its host; correct the host, or the network",
  ENETUNREACH: "no way leads to its network; correct the host, or the network",
  ENOENT: "there is no such socket file; start it there, or correct the path",
  EACCES: "this user may not open its socket; change the user, or the socket's mode",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is signed by itself; name a file that holds it in NODE_EXTRA_CA_CERTS",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is of an authority of your own; name its file in NODE_EXTRA_CA_CERTS",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    "its certificate is of an authority that is not known; name its file in NODE_EXTRA_CA_CERTS",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate is of an authority that is not known; name its file in NODE_EXTRA_CA_CERTS",
  CERT_HAS_EXPIRED: "its certificate has expired; renew it there",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another host; use the host that stands in it",
  ERR_SSL_WRONG_VERSION_NUMBER: "it speaks no TLS; use the address without TLS, or correct the port",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "it speaks no TLS; use the address without TLS, or correct the port",
};

/** @returns what is wrong and what to do, with the code; null: the error is no such trouble */
export function whyUnreachable(error: unknown): string | null {
  const { code = "" } = error as NodeJS.ErrnoException;
  const trouble = troubles[code];
  return trouble?.replace(";", ` (${code});`) ?? null;
}

/** The same of a folder or a file, by the code of its error. */
const onDisk: Readonly<Record<string, string>> = {
  ENOENT: "it is not there: correct the path, or make it",
  ENOTDIR: "a part of the path is a file: correct the path",
  EEXIST: "it is a file: name a folder",
  EISDIR: "it is a folder: name a file",
  EACCES: "this user may not: change its owner or mode, or name another one",
  EPERM: "this user may not: change its owner or mode, or name another one",
  EROFS: "it lies on a read-only file system: name another one, or mount a volume there",
  ENOSPC: "the disk is full: make room",
  ELOOP: "its links go round in a circle: correct the path",
  ENAMETOOLONG: "the path is too long: shorten it",
};

/** @returns the code in brackets, and what to do where that is known */
export function whyNotOnDisk(error: unknown): string {
  const { code = "unknown error", errstr } = error as NodeJS.ErrnoException & { errstr?: string };
  // SQLite's own words, which hold nothing of a path.
  if (errstr !== undefined) return `(${errstr}); make it writable for this user, or set DATA_DIR to another folder`;
  return `(${code})${code in onDisk ? `; ${onDisk[code]}` : ""}`;
}
