type Headers = Readonly<Record<string, string | string[] | number | undefined>>;

const year = 31_536_000;

/** What each answer must carry, whatever it is. */
const required: Record<string, RegExp> = {
  "cache-control": /^no-store$/,
  "content-security-policy": /^default-src 'none'; /,
  "cross-origin-opener-policy": /^same-origin$/,
  "cross-origin-resource-policy": /^same-origin$/,
  "referrer-policy": /^no-referrer$/,
  "x-content-type-options": /^nosniff$/,
  "x-frame-options": /^DENY$/,
};

/** What is wrong with the headers of an answer, each as a line; none is right. `publicUrl`: of the broker that answered. */
export function faultsOfHeaders(headers: Headers, { publicUrl }: { publicUrl: string }): string[] {
  const read = (name: string) => String(headers[name] ?? "");
  const policy = read("content-security-policy");
  const type = read("content-type");
  const directives = Object.fromEntries(
    policy.split("; ").map((directive) => [directive.split(" ", 1)[0], directive.replace(/^\S+ ?/, "")]),
  );
  const faults = Object.entries(required).flatMap(([name, right]) =>
    right.test(read(name)) ? [] : [`${name}: ${read(name)}`],
  );
  if (directives["frame-ancestors"] !== "'none'" || policy.includes("unsafe")) faults.push(`policy: ${policy}`);
  if (/json/.test(type) && policy !== "default-src 'none'; frame-ancestors 'none'") faults.push(`of JSON: ${policy}`);
  if (/html/.test(type) && !(directives["base-uri"] === "'none'" && directives["form-action"])) {
    faults.push(`of a page: ${policy}`);
  }
  const isHttps = publicUrl.startsWith("https:");
  const [, age = "", rest = ""] = /^max-age=(\d+)(; includeSubDomains)?$/.exec(read("strict-transport-security")) ?? [];
  const isTold = Number(age) >= year && rest !== "";
  if (isHttps ? !isTold : headers["strict-transport-security"] !== undefined) {
    faults.push(`strict-transport-security: ${read("strict-transport-security")}`);
  }
  return faults;
}
