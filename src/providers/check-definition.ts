import { validateHeaderName } from "node:http";
import { standardParams } from "./authorization-request.ts";
import { checkAnswers } from "./check-answers.ts";
import { checkFacts } from "./check-facts.ts";
import { checkRequests } from "./check-requests.ts";
import { checkTemplates } from "./check-templates.ts";
import type { ProviderDefinition } from "./definition.ts";
import { parseNetworks } from "./egress.ts";
import type { ProviderFile } from "./provider-file.ts";
import type { Problem } from "./yaml-source.ts";

/** What the shape of a merged file cannot say: knobs that need or exclude each other, patterns, templates. */
export function checkDefinition(file: ProviderFile, definition: ProviderDefinition): Problem[] {
  return [
    ...checkTemplates(file),
    ...checkInputs(file),
    ...checkNetworks(file),
    ...checkErrors(file),
    ...checkRest(file),
    ...checkHeaders(file),
    ...checkAnswers(file),
    ...checkFacts(file),
    ...(definition.usable ? checkRequests(definition) : []),
  ];
}

function checkInputs({ inputs = {} }: ProviderFile): Problem[] {
  return Object.entries(inputs).flatMap(([name, input]) => {
    const path = ["inputs", name];
    const fault = input.pattern === undefined ? null : patternFault(input.pattern);
    if (fault !== null) return [{ path: [...path, "pattern"], text: fault }];
    const fits =
      (input.enum?.includes(input.default ?? "") ?? true) &&
      (input.pattern === undefined || new RegExp(input.pattern, "u").test(input.default ?? ""));
    return input.default === undefined || fits
      ? []
      : [{ path: [...path, "default"], text: "does not fit this input's own pattern or enum" }];
  });
}

function checkNetworks({ networks = [] }: ProviderFile): Problem[] {
  return networks.flatMap((entry, index) => {
    try {
      parseNetworks(entry);
      return entry.includes(",") ? [{ path: ["networks", String(index)], text: "must be one CIDR block" }] : [];
    } catch (error) {
      return [{ path: ["networks", String(index)], text: error instanceof Error ? error.message : "is no CIDR block" }];
    }
  });
}

function patternFault(pattern: string): string | null {
  try {
    RegExp(pattern, "u");
    return null;
  } catch (error) {
    return `is not a regular expression (${error instanceof Error ? error.message : "syntax"})`;
  }
}

function checkErrors({ errors = [] }: ProviderFile): Problem[] {
  return errors.flatMap((rule, index) => {
    const path = ["errors", String(index)];
    const problems = (["regex", "body"] as const).flatMap((knob) => {
      const fault = rule[knob] === undefined ? null : patternFault(rule[knob]);
      return fault === null ? [] : [{ path: [...path, knob], text: fault }];
    });
    const fault = ruleFault(rule);
    return fault === null ? problems : [...problems, { path, text: fault }];
  });
}

function ruleFault(rule: NonNullable<ProviderFile["errors"]>[number]): string | null {
  const { endpoint, status, pointer, equals, regex, body, means } = rule;
  if (status === undefined && pointer === undefined && body === undefined) {
    return "a rule needs a `status`, a `pointer` or a `body`";
  }
  if ((pointer !== undefined) !== (equals !== undefined || regex !== undefined)) {
    return "`pointer` goes with `equals` or `regex`";
  }
  if (equals !== undefined && regex !== undefined) return "either `equals` or `regex`, not both";
  if (endpoint === "token") {
    return means === "access_token_expired" ? "access_token_expired is for `endpoint: api`" : null;
  }
  if (means !== "access_token_expired") return "`endpoint: api` goes with `means: access_token_expired`";
  return pointer === undefined ? null : "`endpoint: api` is told by `status` and `body`, not by `pointer`";
}

function checkRest(file: ProviderFile): Problem[] {
  const problems: Problem[] = [];
  const grants = file.grants ?? ["authorization_code"];
  if (
    file.token?.url !== undefined &&
    file.issuer === undefined &&
    grants.includes("authorization_code") &&
    !file.authorization?.url
  ) {
    problems.push({ path: ["grants"], text: "authorization_code is offered, and `authorization.url` is missing" });
  }
  if (file.authorization?.params?.["state"] === null) {
    problems.push({
      path: ["authorization", "params", "state"],
      text: "state cannot be left out: it binds the callback to its browser",
    });
  }
  if (file.authorization?.params?.["response_mode"] === "form_post") {
    problems.push({
      path: ["authorization", "params", "response_mode"],
      text: "an answer that is posted is taken with `authorization.response_mode: form_post` only",
    });
  }
  for (const [name, value] of Object.entries(file.authorization?.params ?? {})) {
    if (!isStandard(name) || !value?.includes("{")) continue;
    const text = `the broker sends ${name} itself: what stands here is its name at this provider, or null`;
    problems.push({ path: ["authorization", "params", name], text });
  }
  for (const [scope, params] of Object.entries(file.authorization?.params_with_scope ?? {})) {
    for (const name of Object.keys(params).filter((each) => isStandard(each) || each === "response_mode")) {
      const path = ["authorization", "params_with_scope", scope, name];
      problems.push({ path, text: `${name} is sent with every scope, or with none` });
    }
  }
  if (file.authorization?.iss === "required" && !(file.authorization.issuer ?? file.issuer)) {
    const text = "`iss: required` needs an `issuer` that it is compared with, here or at the top of the file";
    problems.push({ path: ["authorization", "iss"], text });
  }
  if (file.discovery?.metadata_url !== undefined && file.issuer === undefined) {
    const text = "metadata need an `issuer`: what they say counts only where they name it";
    problems.push({ path: ["discovery", "metadata_url"], text });
  }
  if (file.refresh?.reuse === "grace" && !file.refresh.grace_s) {
    problems.push({ path: ["refresh", "reuse"], text: "`reuse: grace` needs a `grace_s` above 0" });
  }
  return problems;
}

function isStandard(name: string): boolean {
  return standardParams.some((standard) => standard === name);
}

/** Headers that the HTTP client sets itself. */
const ownHeaders = new Set([
  "host",
  "connection",
  "content-length",
  "content-type",
  "transfer-encoding",
  "accept-encoding",
  "expect",
]);

function checkHeaders({ token, api }: ProviderFile): Problem[] {
  const maps: [string[], Readonly<Record<string, string | null>> | undefined][] = [
    [["token", "headers"], token?.headers],
    [["api", "headers"], api?.headers],
  ];
  for (const [grant, knobs] of Object.entries(token?.grants ?? {})) {
    maps.push([["token", "grants", grant, "headers"], knobs.headers]);
    if ("refresh" in knobs) maps.push([["token", "grants", grant, "refresh", "headers"], knobs.refresh?.headers]);
  }
  return maps.flatMap(([path, headers]) =>
    Object.entries(headers ?? {}).flatMap(([name, value]) => headerProblems([...path, name], name, value)),
  );
}

function headerProblems(path: string[], name: string, value: string | null): Problem[] {
  try {
    validateHeaderName(name);
  } catch {
    return [{ path, text: `\`${name}\` is not a header name` }];
  }
  if (path[0] === "token" && ownHeaders.has(name.toLowerCase())) {
    return [{ path, text: `\`${name}\` is set by the broker itself` }];
  }
  return /\p{Cc}/u.test(value ?? "") ? [{ path, text: "must not hold control characters" }] : [];
}
